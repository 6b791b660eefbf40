"""Nesting of inputs and outputs as plain JSON, so that an artifact restores it without code.

A node is a leaf's index (``int``), or an object with one key:

1. ``{"tuple": [node, ...]}``, ``{"list": [node, ...]}``
2. ``{"dict": [[key, node], ...]}``, keys strings or integers
3. ``{"fields": [[name, node], ...]}``: a dataclass or ``ModelOutput``; restored as :class:`Fields`
4. ``{"const": value}``: None, a bool, a number, a string or a list of numbers that the model was
   imported with
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Node = Any  # int | dict[str, Any], as above

CONSTANTS = (bool, int, float, str, type(None))


class Fields(dict[str, Any]):
    """A named output structure: ``out.logits`` and ``out["logits"]``."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no output {name!r}; outputs: {', '.join(self)}") from None


@dataclasses.dataclass(frozen=True)
class Leaf:
    """The place of tensor number ``index`` in a structure handed to :func:`encode`."""

    index: int


def encode(value: object) -> Node:
    """Structure with :class:`Leaf` items and constants -> node.

    Raises ``TypeError`` for a container that has no plain form (a named tuple, an own class).
    """
    if isinstance(value, Leaf):
        return value.index
    if isinstance(value, CONSTANTS):
        return {"const": value}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = value if isinstance(value, Mapping) else _fields(value)
        return {"fields": [[name, encode(item)] for name, item in named.items()]}
    if isinstance(value, Mapping):
        bad = [key for key in value if not isinstance(key, (str, int))]
        if bad:
            raise TypeError(f"dictionary keys must be strings or integers, got {bad[0]!r}")
        return {"dict": [[key, encode(item)] for key, item in value.items()]}
    if isinstance(value, tuple) and type(value) is not tuple and hasattr(value, "_fields"):
        raise TypeError(
            f"named tuple {type(value).__name__} has no plain form: return a tuple or a dict"
        )
    if isinstance(value, (tuple, list)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [encode(item) for item in value]}
    raise TypeError(f"{type(value).__name__} is no tuple, list, dict or dataclass of tensors")


def _fields(value: Any) -> dict[str, object]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def decode(node: Node, leaves: Sequence[Any]) -> Any:
    """Node and leaves -> the structure."""
    if isinstance(node, int):
        return leaves[node]
    ((kind, items),) = node.items()
    if kind == "const":
        return items
    if kind == "tuple":
        return tuple(decode(item, leaves) for item in items)
    if kind == "list":
        return [decode(item, leaves) for item in items]
    pairs = {key: decode(item, leaves) for key, item in items}
    return Fields(pairs) if kind == "fields" else pairs


def flatten(node: Node, value: object, put: Callable[[int, object], None], where: str) -> None:
    """Hand each leaf of ``value``, shaped as ``node`` says, to ``put(index, leaf)``.

    Raises ``ValueError`` naming the place where the structure, or a constant, is another.
    """
    if isinstance(node, int):
        put(node, value)
        return
    value = opened(value)
    ((kind, items),) = node.items()
    if kind == "const":
        if not _is_same(value, items):
            raise ValueError(
                f"{where} was imported as the constant {items!r} and cannot be {_short(value)}"
            )
        return
    if kind in ("dict", "fields"):
        got = value if isinstance(value, Mapping) else _named(value)
        keys = [key for key, _ in items]
        if got is None or set(got) != set(keys):
            raise ValueError(f"{where} must be a mapping with keys {keys}, got {_short(value)}")
        for key, item in items:
            flatten(item, got[key], put, f"{where}[{key!r}]")
        return
    if not isinstance(value, (tuple, list)) or len(value) != len(items):
        raise ValueError(f"{where} must be a {kind} of {len(items)}, got {_short(value)}")
    for index, (item, part) in enumerate(zip(items, value, strict=True)):
        flatten(item, part, put, f"{where}[{index}]")


def opened(value: Any) -> Any:
    """A cache of ``transformers`` as a tuple of (keys, values) a layer, or a dict of two caches.

    Anything else as it is.
    """
    if not type(value).__module__.startswith("transformers."):
        return value
    sides = ("self_attention_cache", "cross_attention_cache")
    if all(hasattr(value, side) for side in sides):
        return {side: getattr(value, side) for side in sides}
    layers = getattr(value, "layers", None)
    if isinstance(layers, list) and all(hasattr(layer, "keys") for layer in layers):
        return tuple((one.keys, one.values) for one in layers if one.keys is not None)
    return value


def paths(node: Node, prefix: str = "") -> Iterator[tuple[int, str]]:
    """(leaf index, dotted path of keys and positions) of every tensor; a lone leaf has none."""
    if isinstance(node, int):
        yield node, prefix
        return
    ((kind, items),) = node.items()
    if kind == "const":
        return
    pairs = items if kind in ("dict", "fields") else enumerate(items)
    for key, item in pairs:
        yield from paths(item, f"{prefix}.{key}" if prefix else str(key))


def check(node: Node, leaves: int) -> None:
    """Raise ``ValueError`` unless this is a node whose leaves are numbers below ``leaves``."""
    if isinstance(node, int) and not isinstance(node, bool):
        if not 0 <= node < leaves:
            raise ValueError(f"a nesting names tensor {node} of {leaves}")
        return
    if not isinstance(node, dict) or len(node) != 1:
        raise ValueError(f"{node!r:.80} is no nesting")
    ((kind, items),) = node.items()
    if kind == "const":
        if not _is_constant(items):
            raise ValueError(f"{items!r:.80} is no constant")
        return
    if kind not in ("tuple", "list", "dict", "fields") or not isinstance(items, list):
        raise ValueError(f"{node!r:.80} is no nesting")
    for item in items:
        if kind in ("tuple", "list"):
            check(item, leaves)
            continue
        keys = (str,) if kind == "fields" else (str, int)
        if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], keys):
            raise ValueError(f"{item!r:.80} is no key and nesting")
        check(item[1], leaves)


def _is_constant(value: object) -> bool:
    if isinstance(value, list):
        return all(_is_constant(item) for item in value)
    return isinstance(value, CONSTANTS)


def is_constant(node: Node) -> bool:
    """Whether the node is a fixed value, not a tensor."""
    return isinstance(node, dict) and "const" in node


def _is_same(value: Any, constant: object) -> bool:
    """Whether a value is the constant, as itself or as an array of these numbers."""
    if isinstance(constant, list):
        return bool((value.tolist() if hasattr(value, "tolist") else value) == constant)
    if getattr(value, "shape", None) in ((), (1,)) and hasattr(value, "item"):
        value = value.item()
    return type(value) is type(constant) and value == constant


def _named(value: object) -> dict[str, object] | None:
    return _fields(value) if dataclasses.is_dataclass(value) else None


def _short(value: object) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"a tensor of shape {tuple(shape)}"
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"
