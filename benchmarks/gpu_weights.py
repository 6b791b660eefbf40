"""A library's weights, made from the model's own: by name, by axes, by folding a batch norm.

The bundle has no weights: each model is drawn again from its seed where it runs, and a recipe says
how each weight of the library comes from it. Recipes are plain data, found and checked here where
the library is built.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

SMALL = 64 * 1024
"""Bytes of a value that may be written into a recipe: constants that no model tensor is."""


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by name, and scale and shift of every batch norm."""
    found = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            scale, shift = _folded(module)
            found[f"{name}#scale"], found[f"{name}#shift"] = scale, shift
    return {name: value.detach() for name, value in found.items()}


def _folded(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    mean, var = norm.running_mean.double(), norm.running_var.double()
    scale = norm.weight.double() / torch.sqrt(var + norm.eps)
    return scale, norm.bias.double() - mean * scale


def recipes(params: Mapping[str, Tensor], model: nn.Module) -> list[dict[str, Any]]:
    """How each of a library's weights is made, in order; ``ValueError`` for one that is not."""
    known = tensors_of(model)
    return [_recipe(name, value, known) for name, value in params.items()]


def _recipe(name: str, value: Tensor, known: Mapping[str, Tensor]) -> dict[str, Any]:
    base = name.partition("~")[0]
    first = [key for key in known if key == base]
    for key in (*first, *(key for key in known if key != base)):
        source = known[key]
        if source.numel() != value.numel():
            continue
        for axes in _orders(source, value):
            for scaled in (None, *_scales(known, source)) if "#" not in key else (None,):
                recipe = {"from": key, "axes": axes, "scale": scaled, **_form(value)}
                if _matches(made(recipe, known), value):
                    return recipe
    if value.numel() * value.element_size() <= SMALL:
        return {"values": value.double().reshape(-1).tolist(), **_form(value)}
    raise ValueError(f"the weight {name} of shape {tuple(value.shape)} comes from no model tensor")


def _form(value: Tensor) -> dict[str, Any]:
    return {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}


def _orders(source: Tensor, value: Tensor) -> list[list[int]]:
    """Orders of the axes of ``source`` that may give ``value``, the plain one first."""
    wanted = [n for n in value.shape if n != 1]
    return [
        list(axes)
        for axes in itertools.permutations(range(source.ndim))
        if [source.shape[axis] for axis in axes if source.shape[axis] != 1] == wanted
    ]


def _scales(known: Mapping[str, Tensor], source: Tensor) -> list[str]:
    """Scales of batch norms over as many channels as a convolution's weight has."""
    if source.ndim != 4:
        return []
    return [k for k, v in known.items() if k.endswith("#scale") and len(v) == len(source)]


def _matches(found: Tensor, value: Tensor) -> bool:
    if not value.is_floating_point():
        return bool(torch.equal(found, value))
    bound = 1e-5 if value.dtype == torch.float32 else 4e-3
    return bool((found.double() - value.double()).abs().max() <= bound * value.double().abs().max())


def made(recipe: Mapping[str, Any], known: Mapping[str, Tensor]) -> Tensor:
    """The weight that a recipe describes."""
    dtype = getattr(torch, recipe["dtype"])
    if "values" in recipe:
        return (
            torch.tensor(recipe["values"], dtype=torch.float64).to(dtype).reshape(recipe["shape"])
        )
    value = known[recipe["from"]]
    if recipe["scale"] is not None:
        scale = known[recipe["scale"]]
        value = value.double() * scale.reshape(-1, *[1] * (value.ndim - 1))
    value = value.permute(recipe["axes"]) if value.ndim else value
    return value.to(dtype).reshape(recipe["shape"]).contiguous()
