"""One error that lists every operator a model has and we do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from burnish.compiler.errors import UnsupportedOperator, UnsupportedOperatorError

SHOWN = 3


def unsupported_error(
    source: str, found: Mapping[str, Sequence[str]], reasons: Mapping[str, str] | None = None
) -> UnsupportedOperatorError:
    """Operator -> nodes, and why where it is more than a missing converter."""
    reasons = reasons or {}
    operators = [
        UnsupportedOperator(name, len(nodes), tuple(nodes), reasons.get(name, "no converter"))
        for name, nodes in sorted(found.items())
    ]
    lines = []
    for item in operators:
        more = f", and {item.count - SHOWN} more" if item.count > SHOWN else ""
        why = f"; {item.reason}" if item.name in reasons else ""
        lines.append(f"{item.name} x{item.count} ({', '.join(item.nodes[:SHOWN])}{more}{why})")
    return UnsupportedOperatorError(
        f"{len(operators)} {source} operator{'s' * (len(operators) != 1)} cannot be imported: "
        + "; ".join(lines),
        operators,
    )
