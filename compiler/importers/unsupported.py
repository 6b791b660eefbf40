"""One error that lists every operator a model has and we do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from burnish.compiler.errors import UnsupportedOperator, UnsupportedOperatorError

SHOWN = 3
NO_CONVERTER = "no converter"


def unsupported_error(
    source: str, found: Mapping[str, Sequence[str]], reasons: Mapping[str, str] | None = None
) -> UnsupportedOperatorError:
    """Operator -> nodes, and why where it is more than a missing converter."""
    reasons = reasons or {}
    return listed(
        source,
        [
            UnsupportedOperator(name, len(nodes), tuple(nodes), reasons.get(name, NO_CONVERTER))
            for name, nodes in sorted(found.items())
        ],
    )


def listed(source: str, operators: Sequence[UnsupportedOperator]) -> UnsupportedOperatorError:
    """The error of these operators; where their source lines are known, each in a paragraph."""
    detailed = any(item.sources for item in operators)
    parts = map(_paragraph if detailed else _phrase, operators)
    return UnsupportedOperatorError(
        f"{len(operators)} {source} operator{'s' * (len(operators) != 1)} cannot be imported:"
        + ("\n" if detailed else " ")
        + ("\n" if detailed else "; ").join(parts),
        operators,
    )


def _phrase(item: UnsupportedOperator) -> str:
    more = f", and {item.count - SHOWN} more" if item.count > SHOWN else ""
    why = f"; {item.reason}" if item.reason != NO_CONVERTER else ""
    return f"{item.name} x{item.count} ({', '.join(item.nodes[:SHOWN])}{more}{why})"


def _paragraph(item: UnsupportedOperator) -> str:
    lines = [f"{item.name} x{item.count}: {item.reason}"]
    for node, shape, source in list(zip(item.nodes, item.shapes, item.sources, strict=True))[
        :SHOWN
    ]:
        lines += [f"  {node} {shape}", f"    {source}"]
    if item.count > SHOWN:
        lines.append(f"  and {item.count - SHOWN} more")
    if item.remedy:
        lines.append(f"  {item.remedy}")
    return "\n".join(lines)
