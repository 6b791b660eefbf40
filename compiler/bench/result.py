"""What a benchmark found, as plain data: rows, ratios and their means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from burnish.compiler.bench.peaks import Peaks
from burnish.compiler.bench.work import Work
from burnish.compiler.errors import ConfigError
from burnish.compiler.measure import Timing

SCHEMA = "burnish.bench/1"
OURS = "burnish"
MEASURES = ("best", "median")
CONVOLUTION = "convolution"


@dataclass(frozen=True)
class Row:
    """One model in every runtime: ``times`` by runtime, ours under ``burnish``.

    ``errors`` are max|y - eager| / max|eager|; ``failures`` say why a runtime has no time;
    ``void`` names runtimes whose best time taking turns stayed over 5 % worse than alone, after
    ``attempts`` attempts. ``compile_s`` is ours, the peers' are in their timings' ``load_s`` and
    ``first_ms``.
    """

    name: str
    title: str
    group: str
    kind: str
    work: Work
    times: Mapping[str, Timing]
    errors: Mapping[str, float] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    void: tuple[str, ...] = ()
    attempts: int = 1
    compile_s: float = 0.0

    def ms(self, runtime: str, measure: str) -> float | None:
        """Milliseconds by ``"best"`` or ``"median"``; None where the runtime has no time."""
        timing = self.times.get(runtime)
        if timing is None:
            return None
        return timing.best if measure == "best" else timing.p50

    def fastest(self, measure: str) -> str | None:
        """The peer with the least time."""
        peers = [name for name in self.times if name != OURS]
        return min(peers, key=lambda name: self.ms(name, measure) or math.inf, default=None)

    def speedup(self, peer: str | None, measure: str) -> float | None:
        """The peer's time over ours; None where either is missing."""
        ours, theirs = self.ms(OURS, measure), self.ms(peer or "", measure)
        return theirs / ours if ours and theirs else None

    def lead(self, measure: str) -> float | None:
        """The speed-up over the fastest peer by the same measure."""
        return self.speedup(self.fastest(measure), measure)

    @property
    def no_slower(self) -> bool | None:
        """Whether ours is at least as fast as the fastest peer, by best and by median."""
        leads = [self.lead(measure) for measure in MEASURES]
        return None if None in leads else all(lead >= 1.0 for lead in leads if lead is not None)

    def to_dict(self) -> dict[str, Any]:
        return {
            **{key: getattr(self, key) for key in ("name", "title", "group", "kind")},
            "flops": self.work.flops,
            "bytes": self.work.bytes,
            "times": {name: timing.to_dict() for name, timing in self.times.items()},
            "errors": dict(self.errors),
            "failures": dict(self.failures),
            "void": list(self.void),
            "attempts": self.attempts,
            "compile_s": self.compile_s,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Row:
        return cls(
            **{key: str(data[key]) for key in ("name", "title", "group", "kind")},
            work=Work(int(data["flops"]), int(data["bytes"])),
            times={name: Timing.from_dict(timing) for name, timing in data["times"].items()},
            errors=dict(data["errors"]),
            failures=dict(data["failures"]),
            void=tuple(data["void"]),
            attempts=int(data["attempts"]),
            compile_s=float(data["compile_s"]),
        )


@dataclass(frozen=True)
class BenchResult:
    """Rows with the machine they were taken on. ``peers`` in the order of the table;
    ``settings`` are what the run was asked for; ``one`` are the peaks of one thread alone."""

    rows: tuple[Row, ...]
    peers: tuple[str, ...]
    peaks: Peaks
    one: Peaks
    machine: Mapping[str, Any]
    settings: Mapping[str, Any]
    date: str
    complete: bool = True

    def limit_ms(self, row: Row) -> float:
        """The least milliseconds that the row's work can take in float32 on this machine."""
        return self.top.limit_ms(row.work.flops, row.work.bytes)

    @property
    def top(self) -> Peaks:
        """The peaks, with the float32 rate raised to the highest that any model reached.

        Convolution networks do not count there: Winograd does fewer operations than counted.
        """
        rates = [
            row.work.flops / timing.best / 1e6
            for row in self.rows
            if row.kind != CONVOLUTION
            for timing in row.times.values()
        ]
        return replace(self.peaks, fp32=max([self.peaks.fp32, *rates]))

    def share(self, row: Row, runtime: str, measure: str = "best") -> float | None:
        """The limit over the runtime's time: 1 is the machine's own limit."""
        taken = row.ms(runtime, measure)
        return self.limit_ms(row) / taken if taken else None

    def summary(self) -> dict[str, Any]:
        """Geometric means of speed-ups by best and by median, and on how many ours is no slower."""
        convolution = [row for row in self.rows if row.kind == CONVOLUTION]
        means = {
            measure: {
                "fastest": geometric_mean(row.lead(measure) for row in self.rows),
                "fastest_convolution": geometric_mean(row.lead(measure) for row in convolution),
                **{
                    peer: geometric_mean(row.speedup(peer, measure) for row in self.rows)
                    for peer in self.peers
                },
            }
            for measure in MEASURES
        }
        known = [row for row in self.rows if row.no_slower is not None]
        groups = {row.group for row in known}
        slower = {row.group for row in known if not row.no_slower}
        return {
            "geometric_mean": means,
            "rows": len(known),
            "rows_no_slower": sum(bool(row.no_slower) for row in known),
            "models": len(groups),
            "models_no_slower": len(groups - slower),
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON: the rows with their limits and ratios beside what was measured."""
        rows = [
            {
                **row.to_dict(),
                "limit_ms": self.limit_ms(row),
                "share_of_limit": self.share(row, OURS),
                "lead": {measure: row.lead(measure) for measure in MEASURES},
                "fastest": {measure: row.fastest(measure) for measure in MEASURES},
            }
            for row in self.rows
        ]
        return {
            "schema": SCHEMA,
            "date": self.date,
            "complete": self.complete,
            "summary": self.summary(),
            "peers": list(self.peers),
            "settings": dict(self.settings),
            "machine": dict(self.machine),
            "peaks": {"measured": self.peaks.to_dict(), "one_thread": self.one.to_dict()},
            "peak_fp32": self.top.fp32,
            "rows": rows,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BenchResult:
        """The result that :meth:`to_dict` wrote; ConfigError for anything else."""
        if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
            raise ConfigError(f"this is no result of a benchmark: its schema is not {SCHEMA!r}")
        try:
            return cls(
                rows=tuple(Row.from_dict(row) for row in data["rows"]),
                peers=tuple(data["peers"]),
                peaks=Peaks.from_dict(data["peaks"]["measured"]),
                one=Peaks.from_dict(data["peaks"]["one_thread"]),
                machine=data["machine"],
                settings=data["settings"],
                date=str(data["date"]),
                complete=bool(data["complete"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"this result of a benchmark is damaged: {error!r}") from error


def geometric_mean(ratios: Iterable[float | None]) -> float | None:
    """The geometric mean of those that are known; None where none is."""
    known = [ratio for ratio in ratios if ratio is not None]
    return math.exp(sum(map(math.log, known)) / len(known)) if known else None


def merged(old: Sequence[Row], new: Sequence[Row]) -> tuple[Row, ...]:
    """The rows of both in order of first appearance, the newer where both have one."""
    rows = {row.name: row for row in (*old, *new)}
    return tuple(rows[name] for name in dict.fromkeys(row.name for row in (*old, *new)))
