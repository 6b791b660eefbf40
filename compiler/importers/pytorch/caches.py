"""Caches of ``transformers`` (``past_key_values``): for torch.export, and as nested tensors.

Outside a model a ``DynamicCache`` is a tuple with a pair (keys, values) for each layer, an
``EncoderDecoderCache`` a dict of two such. :func:`burnish.runtime.trees.opened` takes the objects
themselves apart in the same way.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from torch.utils import _pytree as pytree

from burnish.compiler.errors import ImportModelError

_DECODER, _BOTH = "DynamicCache", "EncoderDecoderCache"
_SIDES = ("self_attention_cache", "cross_attention_cache")


def is_cache(value: Any) -> bool:
    """Whether a value is one of the two kinds of cache, or a class of theirs."""
    kind = value if isinstance(value, type) else type(value)
    return kind.__name__ in (_DECODER, _BOTH) and kind.__module__.startswith("transformers.")


def register_cache(kind: type) -> None:
    """Make a kind of cache known to torch's pytree, as torch.export needs it; once is enough.

    Transformers' own registration fills a new cache by ``update``, which torch would trace.
    """
    if kind.__name__ == _BOTH:
        register_cache(sys.modules[kind.__module__].DynamicCache)
    if kind in pytree.SUPPORTED_NODES:
        return
    pytree.register_pytree_node(
        kind,
        lambda cache: (list(_held(cache).values()), None),
        lambda parts, _: _restored(kind, parts),
        serialized_type_name=f"{kind.__module__}.{kind.__name__}",
        flatten_with_keys_fn=lambda cache: (
            [(pytree.GetAttrKey(name), part) for name, part in _held(cache).items()],
            None,
        ),
    )


def _held(cache: Any) -> dict[str, Any]:
    if type(cache).__name__ == _BOTH:
        return {side: getattr(cache, side) for side in _SIDES}
    layers = [layer for layer in cache.layers if layer.keys is not None]
    return {
        "key_cache": [layer.keys for layer in layers],
        "value_cache": [layer.values for layer in layers],
    }


def _restored(kind: type, parts: Any) -> Any:
    if kind.__name__ == _BOTH:
        return kind(*parts)
    cache = kind()
    for keys, values in zip(*parts, strict=True):
        layer = sys.modules[kind.__module__].DynamicLayer()
        layer.keys, layer.values, layer.is_initialized = keys, values, True
        layer.device = getattr(keys, "device", None)
        cache.layers.append(layer)
    return cache


def children(cache: Any) -> dict[str, Any]:
    """What a cache given as an input holds, in pytree's order: all keys before all values."""
    if any(getattr(layer, "is_sliding", False) for layer in getattr(cache, "layers", ())):
        raise ImportModelError(
            "a cache of sliding windows knows its position by a number that is no tensor: give "
            "the model a DynamicCache made without its configuration, which keeps all positions"
        )
    return _held(cache)


class Layers(tuple[Any, ...]):
    """The pairs (keys, values) of a cache, in the description of a model's arguments."""


class Sides(dict[str, Any]):
    """The two caches of an encoder-decoder, likewise."""


def spec_of(spec: Any, value: Any) -> Any:
    """Open sizes of a cache as those of its parts; of any other value as they are.

    They are one mapping of axes for all tensors, or given by layer as pairs for keys and values.
    """
    if spec is None:
        return None
    if isinstance(value, Sides) or type(value).__name__ == _BOTH:
        own = isinstance(spec, dict) and set(spec) <= set(_SIDES)
        return spec if own else dict.fromkeys(_SIDES, spec)
    if not isinstance(value, Layers) and not is_cache(value):
        return spec
    layers = value if isinstance(value, Layers) else _held(value)["key_cache"]
    by_layer = isinstance(spec, (tuple, list)) and all(isinstance(s, (tuple, list)) for s in spec)
    pairs = spec if by_layer else [(spec, spec)] * len(layers)
    if isinstance(value, Layers):
        return pairs
    keys, values = zip(*pairs, strict=True)
    return {"key_cache": list(keys), "value_cache": list(values)}


def nested(spec: pytree.TreeSpec, leaves: Sequence[Any]) -> Any:
    """Leaves in the structure of a traced call; caches are plain tuples and dicts."""
    found = iter(leaves)

    def build(part: pytree.TreeSpec) -> Any:
        if part.is_leaf():
            return next(found)
        inner = [build(child) for child in part.children()]
        if not is_cache(part.type):
            unflatten: Callable[..., Any] = pytree.SUPPORTED_NODES[part.type].unflatten_fn
            return unflatten(inner, part.context)
        if part.type.__name__ == _BOTH:
            return Sides(zip(_SIDES, inner, strict=True))
        return Layers(zip(*inner, strict=True))

    return build(spec)
