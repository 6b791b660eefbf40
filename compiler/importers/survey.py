"""What of a model can be imported, operator by operator, with nothing compiled."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from burnish.compiler.errors import (
    ImportModelError,
    UnsupportedOperator,
    UnsupportedOperatorError,
)

SCHEMA = 1


@dataclass(frozen=True)
class Work:
    """One node of a model as its file has it.

    ``flops`` counts a multiplication and an addition as two, and an elementwise operator as one
    an element; moving data is none. Open sizes count as 1, bodies of loops once; None is unknown.
    """

    name: str
    node: str
    flops: int | None
    domain: str = ""
    version: int | None = None


@dataclass(frozen=True)
class OperatorRow:
    """The nodes of one operator: how many, how many are supported, and their FLOPs."""

    name: str
    domain: str
    version: int | None
    count: int
    supported: int
    flops: int
    covered_flops: int


@dataclass(frozen=True)
class Survey:
    """A model's operators, and what keeps it from being imported.

    ``problem`` is an error that is not about single operators, such as inputs that do not fit;
    ``unknown_flops`` is how many nodes have sizes that the file does not tell.
    """

    kind: str
    rows: tuple[OperatorRow, ...]
    unsupported: tuple[UnsupportedOperator, ...]
    problem: str = ""
    unknown_flops: int = 0

    @property
    def importable(self) -> bool:
        """Whether the import goes through."""
        return not self.unsupported and not self.problem

    @property
    def tried(self) -> bool:
        """Whether operators were tried at all: not where another problem came before."""
        return bool(self.unsupported) or not self.problem

    @property
    def operator_share(self) -> float | None:
        """The share of nodes that are supported, 0 to 1; None where none was tried."""
        if not self.tried:
            return None
        return _share(sum(r.supported for r in self.rows), sum(r.count for r in self.rows))

    @property
    def flop_share(self) -> float | None:
        """The share of FLOPs in nodes that are supported, 0 to 1; None where no size is known, or
        no operator was tried."""
        if not self.tried:
            return None
        if self.unknown_flops and not any(row.flops for row in self.rows):
            return None
        return _share(sum(r.covered_flops for r in self.rows), sum(r.flops for r in self.rows))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; :meth:`from_dict` reads it back."""
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "importable": self.importable,
            "operator_share": self.operator_share,
            "flop_share": self.flop_share,
            "unknown_flops": self.unknown_flops,
            "problem": self.problem,
            "operators": [asdict(row) for row in self.rows],
            "unsupported": [asdict(item) for item in self.unsupported],
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Survey:
        """The survey that :meth:`to_dict` wrote."""
        return cls(
            data["kind"],
            tuple(OperatorRow(**row) for row in data["operators"]),
            tuple(map(UnsupportedOperator.from_dict, data["unsupported"])),
            data["problem"],
            data["unknown_flops"],
        )


def surveyed(kind: str, work: Iterable[Work], attempt: Callable[[], object]) -> Survey:
    """The survey of nodes under what ``attempt``, an import, says of them."""
    unsupported: tuple[UnsupportedOperator, ...] = ()
    problem = ""
    try:
        attempt()
    except UnsupportedOperatorError as error:
        unsupported = error.operators
    except ImportModelError as error:
        problem = error.message
    nodes = {node for item in unsupported for node in item.nodes}
    rows: dict[tuple[str, str, int], list[Work]] = {}
    for item in work:
        rows.setdefault((item.name, item.domain, item.version or 0), []).append(item)
    return Survey(
        kind,
        tuple(_row(items, nodes) for _, items in sorted(rows.items())),
        unsupported,
        problem,
        sum(item.flops is None for items in rows.values() for item in items),
    )


def _row(items: list[Work], refused: set[str]) -> OperatorRow:
    good = [item for item in items if item.node not in refused]
    first = items[0]
    return OperatorRow(
        first.name,
        first.domain,
        first.version,
        len(items),
        len(good),
        sum(item.flops or 0 for item in items),
        sum(item.flops or 0 for item in good),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
