"""One error that lists every operator a model has and we do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from burnish.compiler.errors import UnsupportedOperator, UnsupportedOperatorError

SHOWN = 3
NO_CONVERTER = "no converter"


class Refused(Exception):
    """A form of an operator that is not imported; the message says why, and what to do."""


@dataclass(frozen=True)
class Found:
    """One node that cannot be converted; fields as of
    :class:`~burnish.compiler.errors.UnsupportedOperator`."""

    name: str
    node: str
    reason: str = NO_CONVERTER
    domain: str = ""
    version: int | None = None
    source: str = ""
    nearest: str = ""
    remedy: str = ""


def gathered(found: Sequence[Found]) -> list[UnsupportedOperator]:
    """Nodes of one operator, version and reason as one entry, by name."""
    groups: dict[tuple[str, str, int, str], list[Found]] = {}
    for item in found:
        key = (item.name, item.domain, item.version or 0, item.reason)
        groups.setdefault(key, []).append(item)
    return [
        UnsupportedOperator(
            items[0].name,
            len(items),
            tuple(item.node for item in items),
            items[0].reason,
            sources=tuple(i.source for i in items) if any(i.source for i in items) else (),
            remedy=items[0].remedy,
            nearest=items[0].nearest,
            domain=items[0].domain,
            version=items[0].version,
        )
        for _, items in sorted(groups.items())
    ]


def unsupported_error(
    source: str,
    found: Mapping[str, Sequence[str]] | Sequence[Found],
    reasons: Mapping[str, str] | None = None,
) -> UnsupportedOperatorError:
    """Of all nodes found, or of operator -> nodes with reasons where they are known."""
    if isinstance(found, Mapping):
        reasons = reasons or {}
        found = [
            Found(name, node, reasons.get(name, NO_CONVERTER))
            for name, nodes in found.items()
            for node in nodes
        ]
    return listed(source, gathered(found))


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
    version = "" if item.version is None else f"version {item.version}"
    told = "; ".join(filter(None, (version, _advice(item))))
    shown = f"{item.name} x{item.count} ({', '.join(item.nodes[:SHOWN])}{more}{why})"
    return f"{shown} [{told}]" if told else shown


def _paragraph(item: UnsupportedOperator) -> str:
    lines = [f"{_titled(item)}: {item.reason}"]
    for index, node in enumerate(item.nodes[:SHOWN]):
        lines.append(f"  {node} {item.shapes[index] if item.shapes else ''}".rstrip())
        if item.sources and item.sources[index]:
            lines.append(f"    {item.sources[index]}")
    if item.count > SHOWN:
        lines.append(f"  and {item.count - SHOWN} more")
    if _advice(item):
        lines.append(f"  {_advice(item)}")
    return "\n".join(lines)


def _titled(item: UnsupportedOperator) -> str:
    version = "" if item.version is None else f" version {item.version}"
    return f"{item.name}{version} x{item.count}"


def _advice(item: UnsupportedOperator) -> str:
    near = f"nearest: {item.nearest}" if item.nearest else ""
    return "; ".join(filter(None, (near, item.remedy)))
