"""Converters that users registered, by operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from burnish.compiler import registry
from burnish.compiler.importers.pytorch.arguments import arguments

if TYPE_CHECKING:
    from burnish.compiler.importers.pytorch.translator import Translator


def registered(target: Any) -> registry.OperatorConverter | None:
    """The user's converter of a traced call's target: of the overload, or of all of them."""
    if not registry.converters or not isinstance(target, torch._ops.OpOverload):
        return None
    name = target._schema.name
    whole = registry.converters.get(name)
    return registry.converters.get(f"{name}.{target._overloadname}", whole)


def kept_whole() -> list[torch._ops.OpOverload]:
    """The overloads of the operators that users registered."""
    found = []
    for name in registry.converters:
        space, _, rest = name.partition("::")
        op, _, overload = rest.partition(".")
        packet = getattr(getattr(torch.ops, space), op)
        found += [
            getattr(packet, each) for each in ([overload] if overload else packet.overloads())
        ]
    return found


def convert(node: fx.Node, t: Translator, fn: registry.OperatorConverter) -> Any:
    """What the user's converter makes of a call; ``ValueError`` for another number of results."""
    values = arguments(node, t)
    schema = node.target._schema  # type: ignore[union-attr]
    named = {a.name: values.pop(a.name) for a in schema.arguments if a.kwarg_only}
    made = fn(t.block_builder, *values.values(), **named)
    results = made if isinstance(made, (tuple, list)) else [made]
    expected = node.meta["val"] if isinstance(node.meta["val"], (tuple, list)) else [None]
    whole = len(expected) > 1 and len(results) == 1  # one expression of a tuple type
    if not all(map(_is_expression, results)) or not (whole or len(results) == len(expected)):
        raise ValueError(
            f"the registered converter must return {len(expected)} Relax expression"
            f"{'s' * (len(expected) != 1)}, got {made!r}"
        )
    made = [t.emit(each) for each in results]
    return made if isinstance(node.meta["val"], (tuple, list)) and not whole else made[0]


def _is_expression(value: Any) -> bool:
    from tvm import relax

    return isinstance(value, relax.Expr)
