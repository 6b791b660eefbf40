"""The user's open sizes, ``dynamic``, laid over the arguments of a model.

``dynamic`` says them by argument, as a mapping of names or a sequence in the order of the
arguments. Below an argument it follows the argument's own nesting:

1. a tensor ``[2, 8]``: ``{0: "batch", 1: "seq"}``, ``["batch", None]``, or None: nothing is open
2. a dict: by key; a tuple or list: by position, as a sequence or ``{1: ...}``
3. a dataclass (a ``ModelOutput`` too): by field
4. a cache of ``transformers``: axes once for all its tensors, or by layer, (keys, values) each

A size is a name, or a ``torch.export.Dim`` where it has limits. One name is one size.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.export import Dim
from torch.utils import _pytree as pytree

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.pytorch import caches

Open = dict[int, Any]
"""Axis -> the user's word for its size, of one tensor."""


def by_argument(dynamic: Any, names: Sequence[str]) -> dict[str, Any]:
    """``dynamic`` by the names of the arguments; raises :class:`ImportModelError` for others."""
    if not dynamic:
        return {}
    if not isinstance(dynamic, Mapping):
        if isinstance(dynamic, str) or not isinstance(dynamic, Sequence):
            raise ImportModelError(
                "dynamic must be a mapping of arguments, or a sequence with an item for each; "
                f"got {dynamic!r}"
            )
        if len(dynamic) > len(names):
            raise ImportModelError(
                f"dynamic has {len(dynamic)} items for the model's inputs: {', '.join(names)}"
            )
        dynamic = dict(zip(names, dynamic, strict=False))
    unknown = [name for name in dynamic if name not in names]
    if unknown:
        raise ImportModelError(
            f"dynamic names the input {unknown[0]!r}; the model's inputs are: {', '.join(names)}"
        )
    return {name: spec for name, spec in dynamic.items() if spec is not None}


def open_axes(
    value: Any, spec: Any, where: str, is_tensor: Callable[[Any], bool]
) -> Iterator[tuple[Any, Open]]:
    """(leaf, its open axes) of one argument, in pytree's order."""
    if is_tensor(value):
        yield value, _axes(spec, where)
        return
    parts = _parts(value)
    if parts is None:
        if spec is not None:
            raise ImportModelError(f"dynamic gives sizes for {where}, which is no tensor")
        yield value, {}
        return
    spec = caches.spec_of(spec, value)
    specs = _by_key(spec, list(parts), where)
    for key, part in parts.items():
        yield from open_axes(part, specs.get(key), f"{where}[{key!r}]", is_tensor)


def _parts(value: Any) -> dict[Any, Any] | None:
    """What a container holds, by key, field or position; None for a lone value."""
    if caches.is_cache(value):
        return caches.children(value)
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        # As torch.export registers one: fields of None are no leaves.
        return {name: part for name, part in named.items() if part is not None}
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value))
    return None


def _by_key(spec: Any, keys: list[Any], where: str) -> dict[Any, Any]:
    if spec is None:
        return {}
    if isinstance(spec, Mapping):
        unknown = [key for key in spec if key not in keys]
        if unknown:
            raise ImportModelError(
                f"dynamic names {unknown[0]!r} in {where}, which has: " + ", ".join(map(repr, keys))
            )
        return dict(spec)
    if isinstance(spec, (tuple, list)) and len(spec) <= len(keys):
        return dict(zip(keys, spec, strict=False))
    raise ImportModelError(
        f"dynamic must follow the nesting of {where}, which has {len(keys)} parts; got {spec!r}"
    )


def _axes(spec: Any, where: str) -> Open:
    if spec is None:
        return {}
    if isinstance(spec, Mapping):
        pairs = list(spec.items())
    elif isinstance(spec, (tuple, list)):
        pairs = list(enumerate(spec))
    else:
        raise ImportModelError(
            f"the open sizes of {where} must be a mapping like {{0: 'batch'}} or a list with a "
            f"size or None for each axis; got {spec!r}"
        )
    for axis, size in pairs:
        if isinstance(size, str) and not size.isidentifier():
            raise ImportModelError(f"a dynamic size needs a name like 'batch', got {size!r}")
        if not isinstance(axis, int):
            raise ImportModelError(f"dynamic names axis {axis!r} of {where}: an axis is a number")
    return {axis: size for axis, size in pairs if size is not None and not isinstance(size, int)}


def label(size: Any) -> str | None:
    """The name of a size; None for one that torch is to name (``Dim.DYNAMIC``)."""
    return size if isinstance(size, str) else getattr(size, "__name__", None)


class OpenSizes:
    """The open sizes of the arguments of one model, for :func:`torch.export.export`.

    ``values`` are the example arguments by name; dataclasses among them are made known to torch.
    """

    def __init__(self, values: Mapping[str, Any], dynamic: Any) -> None:
        self.specs = by_argument(dynamic, list(values))
        self.dims: dict[str, Any] = {}
        self.leaves = {
            name: [
                (leaf, _within(leaf, axes, f"input {name!r}"))
                for leaf, axes in open_axes(value, self.specs.get(name), f"input {name!r}", _tensor)
            ]
            for name, value in values.items()
        }
        for leaves in self.leaves.values():
            for size in (size for _, axes in leaves for size in axes.values()):
                self._add(size)

    def _add(self, size: Any) -> None:
        name = label(size)
        if name is None:
            return
        known = self.dims.get(name)
        if isinstance(size, str):
            self.dims.setdefault(name, Dim(name))
        elif known is None or _limits(known) == _limits(Dim(name)):
            self.dims[name] = size
        elif _limits(known) != _limits(size):
            raise ImportModelError(
                f"dynamic gives {name!r} two ranges: {_limits(known)} and {_limits(size)}"
            )

    def examples(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, those of size 1 along an open axis doubled: torch.export takes 1 for a
        constant."""
        widened = {}
        for name, value in values.items():
            leaves, form = pytree.tree_flatten(value)
            if any(axes for _, axes in self.leaves[name]):
                leaves = [_wider(leaf, axes) for leaf, axes in self.leaves[name]]
            widened[name] = pytree.tree_unflatten(leaves, form)
        return widened

    def shapes(
        self, values: Mapping[str, Any], free: frozenset[str] = frozenset()
    ) -> dict[str, Any]:
        """``dynamic_shapes`` by argument; the names in ``free`` get the range that torch finds."""
        return {
            name: self._shape(value, iter(self.leaves[name]), free)
            for name, value in values.items()
        }

    def _shape(self, value: Any, leaves: Iterator[tuple[Any, Open]], free: frozenset[str]) -> Any:
        parts = None if isinstance(value, torch.Tensor) else _parts(value)
        if parts is None:
            _, axes = next(leaves)
            return {axis: self._dim(size, free) for axis, size in axes.items()} or None
        shapes = {key: self._shape(part, leaves, free) for key, part in parts.items()}
        if type(value) is dict:
            return shapes
        inner = list(shapes.values())
        # torch takes those of a dataclass in the order of its fields.
        return tuple(inner) if isinstance(value, tuple) else inner

    def _dim(self, size: Any, free: frozenset[str]) -> Any:
        name = label(size)
        if name in free:
            return Dim.DYNAMIC
        return size if name is None else self.dims[name]


def _tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _within(leaf: Any, axes: Open, where: str) -> Open:
    for axis in axes:
        if not -leaf.ndim <= axis < leaf.ndim:
            raise ImportModelError(
                f"dynamic names axis {axis} of {where}, a tensor of shape {tuple(leaf.shape)}"
            )
    return {axis % leaf.ndim: size for axis, size in axes.items()}


def _limits(dim: Any) -> tuple[Any, Any]:
    return getattr(dim, "min", None), getattr(dim, "max", None)


def _wider(leaf: Any, axes: Open) -> Any:
    for axis in axes:
        if leaf.shape[axis] == 1:
            leaf = torch.cat([leaf, leaf], dim=axis)
    return leaf


def arranged(model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Something for each argument, in the form in which torch.export takes ``dynamic_shapes``."""
    return dict(inspect.signature(model.forward).bind(*args, **kwargs).arguments)


def register_containers(value: Any) -> None:
    """Make the dataclasses and caches in a structure known to torch's pytree, for torch.export."""
    if isinstance(value, torch.Tensor):
        return
    kind = type(value)
    if caches.is_cache(value):
        caches.register_cache(kind)
        return
    known = kind in pytree.SUPPORTED_NODES
    if dataclasses.is_dataclass(value) and not known and not isinstance(value, (type, Mapping)):
        torch.export.register_dataclass(kind)
    for part in (_parts(value) or {}).values():
        register_containers(part)


__all__ = [
    "OpenSizes",
    "arranged",
    "by_argument",
    "label",
    "open_axes",
    "register_containers",
]
