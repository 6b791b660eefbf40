"""Tables for the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from burnish.compiler.report import figures as f
from burnish.compiler.waterfall import Report

WIDE = 160
"""Columns where the output is not a terminal: a narrower table would lose figures."""

STATUS_STYLE = {"undone": "yellow", "size only": "cyan", "no change": "dim"}


def comparison_table(entry: Mapping[str, Any]) -> Table:
    """One comparison: a row a figure, the baseline and the compiled model side by side."""
    latency, memory = entry["latency_ms"], entry["peak_memory"] or {}
    base, ours = latency["baseline"], latency["compiled"]
    mark = "?" if f.noisy(entry) else ""
    table = Table(title=Text(entry.get("model", "")), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    table.add_column(f.baseline_name(entry), justify="right")
    table.add_column(escape(f.variant(entry)), justify="right", style="bold")
    table.add_column("gain", justify="right")
    for key in ("p50", "p95", "p99"):
        gain = f.speed(entry) if key == "p50" else f.ratio(base[key], ours[key]) + mark
        table.add_row(f"latency {key}, ms", f.ms(base[key]), f.ms(ours[key]), gain)
    rates = [side.get("throughput") for side in (base, ours)]
    table.add_row(
        "throughput, calls/s",
        *(f.MISSING if rate is None else f.digits(rate) for rate in rates),
        f.ratio(rates[1], rates[0]) + mark,
        end_section=True,
    )
    sizes = entry["bytes"]
    original = sizes.get("params_baseline")
    params, artifact = sizes["params"], sizes["artifact"]
    table.add_row("parameters", f.size(original), f.size(params), f.ratio(original, params))
    table.add_row("artifact", "", f.size(artifact))
    peaks = [f.side(memory, name) for name in ("baseline", "compiled")]
    table.add_row("peak memory", *map(f.size, peaks), f.ratio(*peaks), end_section=True)
    error = entry["error"]
    table.add_row("max absolute error", "", f.error(error["max_abs"]))
    table.add_row("max relative error", "", f.error(error["rel"]))
    table.add_row("cosine", "", f.cosine(error["cosine"]), end_section=entry["accuracy"] is None)
    if entry["accuracy"] is not None:
        pair = [entry["accuracy"][name] for name in ("baseline", "compiled")]
        change = f"{pair[1] - pair[0]:+.4f}"
        table.add_row("accuracy", *map(f.accuracy, pair), change, end_section=True)
    table.add_row("compile time", "", f.seconds(entry["compile_s"]))
    table.add_row(
        "tuning time", "", f.seconds(None if entry["compile_s"] is None else entry["tune_s"])
    )
    table.add_row("pays after, calls", "", f.count(entry["break_even"]))
    return table


def render_table(
    entries: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> Table:
    """Models by variants: a section a model, its baseline first, then each variant.

    ``entries`` are :meth:`Comparison.labelled` dictionaries. Each was measured beside its own
    run of the baseline, and its speed-up is of that run; the baseline row shows the median run.
    ``columns`` are names out of ``SPEED`` and ``SIZE``; all by default.
    """
    chosen = [*SPEED, *SIZE] if columns is None else columns
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for column in chosen:
        table.add_column(column, justify="right", no_wrap=True)
    for model, group in f.by_model(list(entries)).items():
        name = Text.assemble((model, "bold"), f"  {f.baseline_name(group[0])}")
        _add(table, name, _baseline_cells(group), chosen)
        for entry in group:
            last = entry is group[-1]
            _add(table, Text(f"  {f.variant(entry)}"), _variant_cells(entry), chosen, last)
    return table


SPEED = ("p50 ms", "p95", "p99", "speed-up", "compile + tune", "pays after")
SIZE = ("rel. error", "cosine", "accuracy", "weights", "artifact", "memory")


def _add(
    table: Table,
    name: Text,
    cells: Mapping[str, str | Text],
    chosen: Sequence[str],
    end: bool = False,
) -> None:
    table.add_row(name, *(cells.get(column, "") for column in chosen), end_section=end)


def _baseline_cells(group: Sequence[Mapping[str, Any]]) -> dict[str, str | Text]:
    runs = [entry["latency_ms"]["baseline"] for entry in group]
    memory = [f.side(entry["peak_memory"], "baseline") for entry in group]
    known = [value for value in memory if value is not None]
    accuracy = next((e["accuracy"]["baseline"] for e in group if e["accuracy"]), None)
    return {
        "p50 ms": f.ms(median(run["p50"] for run in runs)),
        "p95": f.ms(median(run["p95"] for run in runs)),
        "p99": f.ms(median(run["p99"] for run in runs)),
        "speed-up": "1x",
        "accuracy": f.accuracy(accuracy),
        "weights": f.size(group[0]["bytes"].get("params_baseline")),
        "memory": f.size(median(known) if known else None),
    }


def _variant_cells(entry: Mapping[str, Any]) -> dict[str, str | Text]:
    ours, error, sizes = entry["latency_ms"]["compiled"], entry["error"], entry["bytes"]
    style = {"faster": "bold green", "slower": "bold red"}.get(entry["latency_ms"]["verdict"], "")
    return {
        "p50 ms": f.ms(ours["p50"]),
        "p95": f.ms(ours["p95"]),
        "p99": f.ms(ours["p99"]),
        "speed-up": Text(f.speed(entry), style=style),
        "compile + tune": f.cost(entry),
        "pays after": f.count(entry["break_even"]),
        "rel. error": f.error(error["rel"]),
        "cosine": f.cosine(error["cosine"]),
        "accuracy": f.accuracy(f.side(entry["accuracy"], "compiled")),
        "weights": f.size(sizes["params"]),
        "artifact": f.size(sizes["artifact"]),
        "memory": f.size(f.side(entry["peak_memory"], "compiled")),
    }


def waterfall_table(report: Report | Sequence[Mapping[str, Any]]) -> Table:
    """What each pass bought: time, size and error after it, in pipeline order.

    ``report`` is a waterfall, or the ``passes`` of a comparison.
    """
    rows = report.to_dict()["rows"] if isinstance(report, Report) else report
    table = Table(title="passes", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("phase", style="dim")
    table.add_column("pass")
    for name in ("took", "operators", "weights", "latency ms", "rel. error", "accuracy"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("status")
    table.add_column("note", overflow="fold")
    phase = None
    for row in rows:
        status = row["status"]
        cells = waterfall_cells(row)
        cells[0] = "" if row["phase"] == phase else row["phase"]
        phase = row["phase"]
        texts = [Text(cell) for cell in cells]  # notes may hold what rich reads as markup
        texts[-2] = Text(status, style=STATUS_STYLE.get(status, ""))
        table.add_row(*texts)
    return table


def waterfall_cells(row: Mapping[str, Any]) -> list[str]:
    """A pass as text: phase, name, time, operators, weights, latency, error, accuracy, status,
    note; figures that a pass left as they were are shown once."""
    before, after = row["before"], row["after"]

    def change(old: str, new: str) -> str:
        return new if old in (new, f.MISSING) else f"{old} → {new}"

    pairs = [
        [
            f.count(sum(side["ops"].values())) if side["ops"] else f.MISSING
            for side in (before, after)
        ],
        [f.size(side["bytes"]) for side in (before, after)],
        [f.ms(side["ms"]) for side in (before, after)],
        [f.error(side["error"]["rel"]) if side["error"] else f.MISSING for side in (before, after)],
        [f.accuracy(side["accuracy"]) for side in (before, after)],
    ]
    return [
        row["phase"],
        row["name"],
        f.seconds(row["seconds"] or None),
        *(change(old, new) for old, new in pairs),
        row["status"],
        row["note"],
    ]


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else WIDE)


def print_comparison(entry: Mapping[str, Any]) -> None:
    """One comparison, its waterfall, remarks and machine, to the terminal."""
    console = _console()
    console.print(comparison_table(entry))
    if entry["passes"]:
        console.print(waterfall_table(entry["passes"]))
    for remark in f.remarks(entry):
        console.print(Text(f"! {remark}", "yellow"))
    _close(console, [entry])


def print_tables(entries: Sequence[Mapping[str, Any]]) -> None:
    """Several comparisons, with remarks and the machine: two tables where one is too wide."""
    console = _console()
    whole = render_table(entries)
    if Console(width=1000).measure(whole).maximum <= console.width:
        console.print(whole)
    else:
        console.print(render_table(entries, SPEED))
        console.print(render_table(entries, SIZE))
    noisy = [f"{e.get('model', 'model')} {f.variant(e)}" for e in entries if f.noisy(e)]
    if noisy:
        console.print(Text(f"! noisy timings: {', '.join(noisy)}", "yellow"))
    _close(console, entries)


def _close(console: Console, entries: Sequence[Mapping[str, Any]]) -> None:
    if any(entry["latency_ms"]["verdict"] == "within noise" for entry in entries):
        console.print(Text(f.UNCLEAR))
    if any(f.noisy(entry) for entry in entries):
        console.print(Text(f.NOISY))
    if entries:
        console.print(Text(f.machine_line(entries[-1]["machine"]), "dim"))
