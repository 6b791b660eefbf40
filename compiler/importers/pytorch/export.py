"""nn.Module -> ExportedProgram whose operators are the ones the translator takes."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.export import Dim, ExportedProgram, default_decompositions

from burnish.compiler.errors import ImportModelError

_aten = torch.ops.aten

# Kept whole, because one operator says more to a compiler than the pieces torch makes of it.
# Each has a converter in converters, or one of TVM's that the tests compare with eager.
KEPT_WHOLE = (
    _aten.gelu.default,
    _aten.group_norm.default,
    _aten.hardsigmoid.default,
    _aten.hardswish.default,
    _aten.layer_norm.default,
    _aten.linear.default,
    _aten.log_softmax.int,
    _aten.matmul.default,
    _aten.max_pool2d.default,
    _aten.relu6.default,
    _aten.rms_norm.default,
    _aten.scaled_dot_product_attention.default,
    _aten.silu.default,
    _aten.softmax.int,
    _aten.upsample_bilinear2d.vec,
    _aten.upsample_nearest2d.vec,
)


def export(
    model: torch.nn.Module,
    example_inputs: Any,
    dynamic: Mapping[str, Any] | None,
) -> tuple[ExportedProgram, list[str]]:
    """Trace a module in eval mode; also the names of its arguments, in the order given.

    Raises :class:`ImportModelError` for missing or ill-fitting examples, unknown names in
    ``dynamic``, and whatever torch.export refuses.
    """
    args, kwargs = split_examples(model, example_inputs)
    names = _argument_names(model, args, kwargs)
    shapes = None
    if dynamic:
        unknown = [name for name in dynamic if name not in names]
        if unknown:
            raise ImportModelError(
                f"dynamic names the input {unknown[0]!r}; the model's inputs are: "
                + ", ".join(names)
            )
        dims: dict[str, Any] = {}
        shapes = {name: _with_dims(dynamic.get(name), dims) for name in names}
        values = _without_size_one([*args, *kwargs.values()], [dynamic.get(name) for name in names])
        args = tuple(values[: len(args)])
        kwargs = dict(zip(kwargs, values[len(args) :], strict=True))
    with _eval_mode(model):
        try:
            program = _trace(model, args, kwargs, shapes)
        except Exception as error:
            hint = " (dynamic=...)" if dynamic else ""
            raise ImportModelError(
                f"torch.export refused the model{hint}: {_reason(error)}"
            ) from error
    return program, names


def decompose(program: ExportedProgram) -> ExportedProgram:
    """Core operators, but for those kept whole."""
    table = default_decompositions()
    for op in KEPT_WHOLE:
        table.pop(op, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return program.run_decompositions(table)


def split_examples(
    model: torch.nn.Module, example_inputs: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs as positional and keyword arguments; NumPy arrays become tensors.

    A mapping is keyword arguments, a single tensor is the only argument.
    """
    takes = f"forward{inspect.signature(model.forward)}"
    if example_inputs is None:
        raise ImportModelError(
            "a torch.nn.Module needs example_inputs: a tuple of what the model is called with; "
            f"it has {takes}"
        )
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    if isinstance(example_inputs, Mapping):
        args, kwargs = (), dict(example_inputs)
    elif isinstance(example_inputs, (torch.Tensor, np.ndarray)):
        args, kwargs = (example_inputs,), {}
    elif isinstance(example_inputs, (tuple, list)):
        args, kwargs = tuple(example_inputs), {}
    else:
        raise ImportModelError(
            "example_inputs must be a tuple of positional or a mapping of keyword arguments, "
            f"got {type(example_inputs).__name__}"
        )
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError as error:
        raise ImportModelError(
            f"example_inputs do not fit the model ({error}); it has {takes}"
        ) from None
    return tuple(map(_tensor, args)), {name: _tensor(value) for name, value in kwargs.items()}


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _argument_names(
    model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[str]:
    names: list[str] = []
    for parameter in inspect.signature(model.forward).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}_{i}" for i in range(len(args) - len(names))]
        elif parameter.kind in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        ):
            names.append(parameter.name)
    return names[: len(args)] + list(kwargs)


def _with_dims(spec: Any, dims: dict[str, Any]) -> Any:
    """Names replaced by one ``Dim`` each, shared between inputs."""
    if isinstance(spec, str):
        if not spec.isidentifier():
            raise ImportModelError(f"a dynamic size needs a name like 'batch', got {spec!r}")
        return dims.setdefault(spec, Dim(spec))
    if isinstance(spec, Mapping):
        return {key: _with_dims(item, dims) for key, item in spec.items()}
    if isinstance(spec, (tuple, list)):
        return type(spec)(_with_dims(item, dims) for item in spec)
    return spec


def _trace(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    shapes: dict[str, Any] | None,
) -> ExportedProgram:
    """Export; sizes that the model limits (by a table of positions) again with torch's range."""
    try:
        return torch.export.export(model, args, kwargs, dynamic_shapes=shapes)
    except Exception as error:
        violated = re.search(r"Constraints violated \((.*?)\)", str(error))
        if shapes is None or violated is None:
            raise
        limited = {name.strip() for name in violated[1].split(",")}
        free = {name: _freed(spec, limited) for name, spec in shapes.items()}
        return torch.export.export(model, args, kwargs, dynamic_shapes=free)


def _freed(spec: Any, names: set[str]) -> Any:
    """The dims of these names replaced by ``Dim.DYNAMIC``."""
    if isinstance(spec, Mapping):
        return {key: _freed(item, names) for key, item in spec.items()}
    if isinstance(spec, (tuple, list)):
        return type(spec)(_freed(item, names) for item in spec)
    return Dim.DYNAMIC if getattr(spec, "__name__", None) in names else spec


def _reason(error: Exception) -> str:
    """torch's message without its advice on debugging."""
    return str(error).partition("The error above occurred")[0].strip()


def _without_size_one(values: list[Any], specs: list[Any]) -> list[Any]:
    """Examples of size 1 along a dynamic axis, doubled: torch.export takes 1 for a constant."""
    result = []
    for value, spec in zip(values, specs, strict=True):
        for axis in _axes(value, spec):
            if value.shape[axis] == 1:
                value = torch.cat([value, value], dim=axis)
        result.append(value)
    return result


def _axes(value: Any, spec: Any) -> Iterator[int]:
    if not isinstance(value, torch.Tensor) or spec is None:
        return
    pairs = spec.items() if isinstance(spec, Mapping) else enumerate(spec)
    for axis, dim in pairs:
        if dim is None or isinstance(dim, int):
            continue
        if not isinstance(axis, int) or not -value.ndim <= axis < value.ndim:
            raise ImportModelError(
                f"dynamic names axis {axis!r} of an input of shape {tuple(value.shape)}"
            )
        yield axis


@contextmanager
def _eval_mode(model: torch.nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    if training:
        warnings.warn(
            "the model is in training mode; it is imported as in model.eval(), so dropout and "
            "batch norm behave as in inference",
            stacklevel=5,
        )
    switch: Callable[[torch.nn.Module, bool], None] = lambda m, on: setattr(m, "training", on)  # noqa: E731
    for module in training:
        switch(module, False)
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            switch(module, True)
