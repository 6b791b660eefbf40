"""The HTML page: charts, tables, waterfalls and the machine, with nothing fetched from outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from statistics import median
from typing import Any

from burnish.compiler.report import figures as f
from burnish.compiler.report.charts import bars
from burnish.compiler.report.style import STYLE
from burnish.compiler.report.tables import waterfall_cells

HEADINGS = (
    "variant", "p50 ms", "p95", "p99", "speed-up", "calls/s", "rel. error", "abs. error",
    "cosine", "accuracy", "weights", "artifact", "memory", "compile + tune", "pays after",
)  # fmt: skip
PASS_HEADINGS = (
    "phase", "pass", "took", "operators", "weights", "latency ms", "rel. error", "accuracy",
    "status", "note",
)  # fmt: skip


def render_page(entries: Sequence[Mapping[str, Any]], title: str = "Burnish report") -> str:
    """A self-contained page for comparisons, labelled with ``model`` and ``variant`` or not."""
    groups = f.by_model(list(entries))
    body = [f"<h1>{escape(title)}</h1>", f"<p class=machine>{_machine(entries)}</p>"]
    if len(entries) > 1:
        body.append(_summary(entries))
    for index, (model, group) in enumerate(groups.items()):
        body += _section(model, group, index)
    body.append(f"<footer>{NOTES}</footer>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
    )


NOTES = (
    "Latency is of one call, in milliseconds. Each runtime ran in a process of its own with the "
    "same number of threads, and they took turns; a speed-up is of medians taken in the same run. "
    f"{f.UNCLEAR}; {f.NOISY}. Relative error is max|y - ref| / max|ref|, worst output. Memory is "
    "the high-water mark of calls over what the process held before loading. Sizes count in "
    "powers of 1000."
)


def _machine(entries: Sequence[Mapping[str, Any]]) -> str:
    machine = entries[-1]["machine"] if entries else {}
    isa = ", ".join(machine.get("isa", ()))
    return escape(f.machine_line(machine)) + (f"<br>{escape(isa)}" if isa else "")


def _summary(entries: Sequence[Mapping[str, Any]]) -> str:
    labels = [f"{e.get('model', 'model')}, {f.variant(e)}" for e in entries]
    chart = bars(
        "Speed-up over the baseline, by median latency (longer is faster)",
        labels,
        [entry["speedup"] for entry in entries],
        texts=[f.speed(entry) for entry in entries],
        baseline=None,
        reference=1.0,
        key="summary",
    )
    return f"<figure>{chart}</figure>"


def _section(model: str, group: Sequence[Mapping[str, Any]], index: int) -> Iterable[str]:
    names = [f.baseline_name(group[0]), *(f.variant(entry) for entry in group)]
    yield f"<section><h2>{escape(model)}</h2>"
    runs = [entry["latency_ms"]["baseline"] for entry in group]
    ours = [entry["latency_ms"]["compiled"] for entry in group]
    latency = bars(
        "Latency, ms: median, line to p95 (shorter is faster)",
        names,
        [median(run["p50"] for run in runs), *(run["p50"] for run in ours)],
        tails=[median(run["p95"] for run in runs), *(run["p95"] for run in ours)],
        key=f"latency{index}",
    )
    yield f"<div class=charts><figure>{latency}</figure>"
    original = group[0]["bytes"].get("params_baseline")
    weights = [entry["bytes"]["params"] for entry in group]
    sizes, labels = ([original, *weights], names) if original else (weights, names[1:])
    chart = bars(
        "Weights, MB (shorter is smaller)",
        labels,
        [value / 1e6 for value in sizes],
        texts=[f.size(value) for value in sizes],
        baseline=0 if original else None,
        key=f"weights{index}",
    )
    yield f"<figure>{chart}</figure></div>"
    yield _table(HEADINGS, [_baseline_row(group), *map(_row, group)])
    remarks = [f"{f.variant(entry)}: {text}" for entry in group for text in f.remarks(entry)]
    if remarks:
        yield f"<ul class=remarks>{''.join(f'<li>{escape(text)}</li>' for text in remarks)}</ul>"
    for entry in group:
        if entry["passes"]:
            rows = [waterfall_cells(row) for row in entry["passes"]]
            yield f"<details><summary>Passes of {escape(f.variant(entry))}</summary>"
            yield _table(PASS_HEADINGS, rows, text_columns=(0, 1, 8, 9)) + "</details>"
    yield "</section>"


def _baseline_row(group: Sequence[Mapping[str, Any]]) -> list[str]:
    runs = [entry["latency_ms"]["baseline"] for entry in group]
    rates = [run["throughput"] for run in runs if run.get("throughput")]
    memory = [v for e in group if (v := f.side(e["peak_memory"], "baseline")) is not None]
    accuracy = next((e["accuracy"]["baseline"] for e in group if e["accuracy"]), None)
    return [
        f.baseline_name(group[0]),
        *(f.ms(median(run[key] for run in runs)) for key in ("p50", "p95", "p99")),
        "1x",
        f.digits(median(rates)) if rates else f.MISSING,
        *[""] * 3,
        f.accuracy(accuracy),
        f.size(group[0]["bytes"].get("params_baseline")),
        "",
        f.size(median(memory) if memory else None),
        *[""] * 2,
    ]


def _row(entry: Mapping[str, Any]) -> list[str]:
    ours, error, sizes = entry["latency_ms"]["compiled"], entry["error"], entry["bytes"]
    rate = ours.get("throughput")
    return [
        f.variant(entry),
        *(f.ms(ours[key]) for key in ("p50", "p95", "p99")),
        f.speed(entry),
        f.MISSING if rate is None else f.digits(rate),
        f.error(error["rel"]),
        f.error(error["max_abs"]),
        f.cosine(error["cosine"]),
        f.accuracy(f.side(entry["accuracy"], "compiled")),
        f.size(sizes["params"]),
        f.size(sizes["artifact"]),
        f.size(f.side(entry["peak_memory"], "compiled")),
        f.cost(entry),
        f.count(entry["break_even"]),
    ]


def _table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], text_columns: Sequence[int] = (0,)
) -> str:
    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=text' if index in text_columns else ''}>{escape(str(value))}</{tag}>"
            for index, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    head = f"<thead><tr>{cells('th', headings)}</tr></thead>"
    return f"<div class=scroll><table>{head}<tbody>{body}</tbody></table></div>"
