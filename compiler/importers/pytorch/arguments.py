"""The arguments of a traced torch call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx

if TYPE_CHECKING:
    from burnish.compiler.importers.pytorch.translator import Translator


def arguments(node: fx.Node, t: Translator) -> dict[str, Any]:
    """Every argument of the call by its schema name, defaults filled in, nodes as expressions."""
    values: dict[str, Any] = {}
    for index, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if index < len(node.args):
            value: Any = node.args[index]
        else:
            value = node.kwargs.get(argument.name, argument.default_value)
        values[argument.name] = t._retrieve_args(value)
    return values
