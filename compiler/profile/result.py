"""A profile as plain data: calls in order, kernels by time, shares of the machine's limit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burnish.compiler.bench.peaks import Peaks
from burnish.compiler.profile.kernel import Work

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA = "burnish.profile/1"


@dataclass(frozen=True)
class Line:
    """A kernel's call, or several calls of one kernel taken together: ``calls`` says how many.

    ``path`` is the module of the model, ``weights`` what is read of it. ``ms`` is the mean over
    the runs of middle length, half of all, which adds up; ``best_ms`` is the least. Rates and
    shares of the limit are by the least, as a limit asks for. ``limit_ms`` is the larger of
    operations over the machine's peak for ``dtype`` and bytes over its memory bandwidth;
    ``bound`` says which. Of a kernel that is not the CPU's, and of a move between memories, no
    limit is known: it is 0, and ``bound`` empty. ``device`` is the memory that it works in, of a
    move the one that it goes to; empty in a model of one device.
    """

    kernel: str
    operators: tuple[str, ...]
    rule: str
    dtype: str
    path: tuple[str, ...]
    weights: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    calls: int
    ms: float
    best_ms: float
    work: Work
    limit_ms: float
    bound: str
    device: str = ""

    @property
    def gflops(self) -> float | None:
        """GFLOP/s of multiply-adds and elementwise arithmetic; None where they are unknown."""
        operations = self.work.operations
        return None if operations is None else operations / self.best_ms / 1e6

    @property
    def gbytes(self) -> float:
        """GB/s, each buffer moved once."""
        return self.work.bytes / self.best_ms / 1e6

    @property
    def of_limit(self) -> float:
        """The limit's time over ours: 1 is the limit."""
        return self.limit_ms / self.best_ms

    def to_dict(self) -> dict[str, Any]:
        rates = {"gflops": self.gflops, "gbytes": self.gbytes, "of_limit": self.of_limit}
        return {**asdict(self), **rates}


def limit_of(work: Work, dtype: str, peaks: Peaks) -> tuple[float, str]:
    """The least milliseconds, and what bounds them: ``compute`` or ``memory``."""
    special = {"int8": peaks.int8, "bfloat16": peaks.bf16}
    rate = special.get(dtype) or peaks.fp32
    compute = (work.flops or 0) / rate / 1e6 + (work.elementwise or 0) / peaks.fp32 / 1e6
    memory = peaks.memory_ms(work.bytes)
    return (compute, "compute") if compute > memory else (memory, "memory")


def merged(lines: Iterable[Line]) -> list[Line]:
    """Calls of one kernel as one line each, by time."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(line.kernel, []).append(line)
    found = [_sum(group) for group in groups.values()]
    return sorted(found, key=lambda line: -line.ms)


def _sum(group: list[Line]) -> Line:
    first = group[0]
    if len(group) == 1:
        return first
    limits = {
        kind: sum(line.limit_ms for line in group if line.bound == kind)
        for kind in ("compute", "memory")
    }
    return Line(
        kernel=first.kernel,
        operators=first.operators,
        rule=first.rule,
        dtype=first.dtype,
        path=_shared([line.path for line in group]),
        weights=tuple(weight for line in group for weight in line.weights),
        shapes=first.shapes if all(line.shapes == first.shapes for line in group) else (),
        calls=sum(line.calls for line in group),
        ms=sum(line.ms for line in group),
        best_ms=sum(line.best_ms for line in group),
        work=total_work(line.work for line in group),
        limit_ms=sum(limits.values()),
        bound=max(limits, key=lambda kind: limits[kind]) if first.bound else "",
        device=first.device,
    )


def _shared(paths: list[tuple[str, ...]]) -> tuple[str, ...]:
    found = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        found.append(parts[0])
    return tuple(found)


def total_work(works: Iterable[Work]) -> Work:
    """The sum; what is unknown of one kernel counts as none."""
    found = list(works)

    def total(name: str) -> int:
        return sum(getattr(work, name) or 0 for work in found)

    return Work(*(total(name) for name in Work.__dataclass_fields__))


@dataclass(frozen=True)
class Profile:
    """Where the time of a call goes.

    ``calls`` are the kernels' calls in order. ``whole_ms`` and ``whole_best_ms`` are of calls
    without any instrument, in turns with the recorded ones; ``machine_ms`` is what the virtual
    machine's own functions (allocation, checks) took in the recorded ones. ``io_bytes`` are those
    of the weights read (of tables, the rows looked up), the inputs and the outputs.
    ``other_load`` is the mean number of cores that other processes used meanwhile.
    """

    model: str
    calls: tuple[Line, ...]
    whole_ms: float
    whole_best_ms: float
    machine_ms: float
    io_bytes: int
    peaks: Peaks
    machine: Mapping[str, Any]
    date: str
    runs: int
    other_load: float = 0.0

    @property
    def kernels(self) -> list[Line]:
        """One line a kernel, by time."""
        return merged(self.calls)

    @property
    def kernels_ms(self) -> float:
        return sum(line.ms for line in self.calls)

    @property
    def total_ms(self) -> float:
        """What shares are of: the whole call, or its kernels where they add up to more."""
        return max(self.whole_ms, self.kernels_ms)

    @property
    def between_ms(self) -> float:
        """What a call takes besides its kernels."""
        return self.total_ms - self.kernels_ms

    def share(self, line: Line) -> float:
        """A line's part of the call, 0 to 1."""
        return line.ms / self.total_ms

    @property
    def work(self) -> Work:
        return total_work(line.work for line in self.calls)

    @property
    def limit_ms(self) -> float:
        """The call's least time: all operations at their peaks, or weights, inputs and outputs
        moved once. Kernels' limits add up to more: they move activations too. Where the call is
        not ``limited``, it is that of the CPU's part."""
        compute = sum(
            limit_of(_unmoved(line.work), line.dtype, self.peaks)[0]
            for line in self.calls
            if line.bound
        )
        return max(compute, self.peaks.memory_ms(self.io_bytes))

    @property
    def of_limit(self) -> float:
        return self.limit_ms / self.whole_best_ms

    @property
    def several(self) -> bool:
        """Whether it is of a model over several devices."""
        return any(line.device for line in self.calls)

    @property
    def limited(self) -> bool:
        """Whether the limit is that of the whole call: all of its kernels are the CPU's."""
        return all(line.bound for line in self.calls)

    def table(self, *, least: float = 0.02, calls: bool = False) -> Table:
        """One line a kernel, or with ``calls`` one a call in order; what takes less than
        ``least`` of the time is summed up."""
        from burnish.compiler.profile.table import profile_table

        return profile_table(self, least=least, calls=calls)

    def draw(self, path: str | Path) -> None:
        """Write a picture (PNG or SVG): model, modules, kernels; width is time, colour the share
        of the limit."""
        from burnish.compiler.profile.picture import draw_profile

        draw_profile(self, Path(path))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        keys = ("model", "whole_ms", "whole_best_ms", "machine_ms", "kernels_ms", "between_ms")
        rest = ("limit_ms", "of_limit", "io_bytes", "runs", "other_load", "date")
        return {
            "schema": SCHEMA,
            **{key: getattr(self, key) for key in (*keys, *rest)},
            "kernels": [{**line.to_dict(), "share": self.share(line)} for line in self.kernels],
            "calls": [{**line.to_dict(), "share": self.share(line)} for line in self.calls],
            "peaks": self.peaks.to_dict(),
            "machine": dict(self.machine),
        }


def _unmoved(work: Work) -> Work:
    return Work(work.flops, work.elementwise, work.transcendental, 0, 0)
