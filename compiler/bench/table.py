"""A benchmark as a table, with its summary and the machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from burnish.compiler.bench.peers import PEERS
from burnish.compiler.bench.result import MEASURES, OURS, BenchResult, Row
from burnish.compiler.report import figures as f

LEAST_ROUNDS = 15
WIDTH = 180


def title(runtime: str) -> str:
    """A runtime as people call it."""
    return PEERS[runtime].title if runtime in PEERS else runtime


def bench_table(result: BenchResult) -> Table:
    """A line a model: best / median milliseconds of each runtime, the limit, and the speed-ups."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("ms, best / median", no_wrap=True)
    for runtime in (OURS, *result.peers):
        table.add_column(title(runtime), justify="right", no_wrap=True)
    for name in ("limit", "of limit", "over the fastest", "over eager"):
        table.add_column(name, justify="right", no_wrap=True)
    kind = None
    for row in result.rows:
        if kind not in (None, row.kind):
            table.add_section()
        kind = row.kind
        table.add_row(*_cells(result, row))
    return table


def _cells(result: BenchResult, row: Row) -> list[str | Text]:
    fastest = {row.fastest(measure) for measure in MEASURES}
    style = {True: "bold green", False: "bold red", None: ""}[row.no_slower]
    times = [
        Text(_time(row, runtime), style="bold" if runtime in fastest else "")
        for runtime in (OURS, *result.peers)
    ]
    share = result.share(row, OURS)
    return [
        row.title,
        *times,
        f.ms(result.limit_ms(row)),
        f.MISSING if share is None else f"{share:.0%}",
        Text(_pair([row.lead(measure) for measure in MEASURES]), style=style),
        _pair([row.speedup("eager", measure) for measure in MEASURES]),
    ]


def _time(row: Row, runtime: str) -> str:
    if runtime in row.failures:
        return "failed"
    mark = "?" if runtime in row.void else ""
    timing = row.times.get(runtime)
    if timing is None:
        return f.MISSING
    return _pair([timing.best, timing.p50]) + mark


def _pair(values: list[float | None]) -> str:
    if None in values:
        return f.MISSING
    return " / ".join(f.digits(value) for value in values if value is not None)


def summary_lines(result: BenchResult) -> list[str]:
    """Geometric means by best and by median, and how often ours is no slower."""
    found = result.summary()
    lines = [
        f"{OURS} is no slower than the fastest peer on {found['models_no_slower']} of "
        f"{found['models']} models ({found['rows_no_slower']} of {found['rows']} lines), by best "
        "and by median"
    ]
    labels = {"fastest": "the fastest peer", "fastest_convolution": "the same, convolution nets"}
    best, median = (found["geometric_mean"][measure] for measure in MEASURES)
    for key in best:
        if best[key] is not None:
            means = f"{f.times(best[key])} by best, {f.times(median[key])} by median"
            lines.append(f"geometric mean over {labels.get(key) or title(key)}: {means}")
    return lines


def remarks(result: BenchResult) -> Iterator[str]:
    """What a reader must know before trusting the figures."""
    if not result.complete:
        yield "not complete: ended before every model was measured"
    rounds = int(result.settings.get("rounds", 0))
    if rounds < LEAST_ROUNDS:
        yield f"{rounds} rounds: a claim needs {LEAST_ROUNDS} or more"
    for row in result.rows:
        for runtime, reason in row.failures.items():
            yield f"{row.title}: {title(runtime)} failed: {reason}"
        if row.void:
            names = ", ".join(map(title, row.void))
            yield (
                f"{row.title}: ? marks {names}, over 5 % slower taking turns than alone in each "
                f"of {row.attempts} attempts"
            )
        noisy = [title(name) for name, timing in row.times.items() if timing.noisy]
        if noisy:
            load = max(timing.other_load for timing in row.times.values())
            yield f"{row.title}: noisy times of {', '.join(noisy)}, others used {load:.2f} cores"


def machine_lines(result: BenchResult) -> list[str]:
    """The machine, its caches, its peaks, and the date."""
    machine = result.machine
    caches = ", ".join(f"{k.upper()} {v // 1024} KiB" for k, v in machine["caches"].items())
    return [
        f.machine_line(machine),
        f"{caches}; {' '.join(machine['isa'])}",
        f"peaks of {_rates(result.peaks.to_dict())}; of {_rates(result.one.to_dict())}",
        f"limit: the larger of FLOPs / {result.top.fp32:.0f} GFLOP/s and bytes / "
        f"{result.peaks.read:.0f} GB/s; {result.date}",
    ]


def _rates(peaks: dict[str, Any]) -> str:
    units = {"fp32": "GFLOP/s", "bf16": "GFLOP/s", "int8": "GOP/s", "read": "GB/s"}
    known = [f"{name} {peaks[name]:.0f} {unit}" for name, unit in units.items() if peaks[name]]
    count = peaks["threads"]
    return f"{count} thread{'s' if count > 1 else ''}: {', '.join(known)}"


def print_bench(result: BenchResult, console: Console | None = None) -> None:
    """The whole result, to the terminal."""
    console = console or Console(width=WIDTH, highlight=False)
    console.print(bench_table(result))
    for line in summary_lines(result):
        console.print(Text(line))
    for remark in remarks(result):
        console.print(Text(f"! {remark}", "yellow"))
    for line in machine_lines(result):
        console.print(Text(line, "dim"))
