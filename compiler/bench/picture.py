"""A benchmark as a picture: speed-ups over each peer, and each time against the limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from burnish.compiler.bench.result import OURS, BenchResult
from burnish.compiler.bench.table import title
from burnish.compiler.report import figures as f

COLOURS = ("#a9b4c0", "#e0a84a", "#c9713c", "#5aa17a", "#8a6fc0", "#7f8790")
ACCENT, INK, LINE = "#2f6fde", "#1d2430", "#dfe4ea"
ROW_INCHES, FRAME_INCHES, WIDTH_INCHES = 0.62, 1.6, 13.0


def draw_bench(result: BenchResult, path: Path) -> None:
    """Write a PNG: on the left each peer's median time over ours, on the right the share of the
    machine's limit that ours and the fastest peer reach at their best."""
    from matplotlib.figure import Figure

    height = FRAME_INCHES + ROW_INCHES * max(1, len(result.rows))
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=110)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    _speedups(left, result)
    _shares(right, result)
    labels = [row.title for row in result.rows]
    left.set_yticks(range(len(labels)), labels, color=INK)
    left.set_ylim(len(labels) - 0.45, -0.55)
    for axes in (left, right):
        axes.tick_params(length=0, labelcolor=INK, labelsize=9)
        axes.grid(axis="x", color=LINE, linewidth=0.8)
        axes.set_axisbelow(True)
        if result.rows:
            axes.legend(
                loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, frameon=False, fontsize=9
            )
        for spine in axes.spines.values():
            spine.set_visible(False)
    machine = result.machine
    note = f"{machine['cpu']}, {result.peaks.threads} threads, {result.date[:10]}"
    figure.text(0.995, 0.005, note, ha="right", va="bottom", fontsize=8, color=INK)
    figure.tight_layout(pad=1.0, rect=(0, 0.01, 1, 1))
    figure.savefig(path, metadata={"Software": None})


def _speedups(axes: Any, result: BenchResult) -> None:
    thick = 0.84 / max(1, len(result.peers))
    for index, peer in enumerate(result.peers):
        known = [
            (number, ratio)
            for number, row in enumerate(result.rows)
            if (ratio := row.speedup(peer, "median")) is not None
        ]
        places = [number - 0.42 + thick * (index + 0.5) for number, _ in known]
        ratios = [ratio for _, ratio in known]
        colour = COLOURS[index % len(COLOURS)]
        axes.barh(places, ratios, height=thick * 0.9, color=colour, label=title(peer))
        for place, ratio in zip(places, ratios, strict=True):
            axes.text(ratio, place, f" {f.digits(ratio)}", va="center", fontsize=6.5, color=INK)
    axes.axvline(1, color=INK, linewidth=1.2, linestyle=(0, (3, 3)))
    axes.set_xlabel(f"times as long as {OURS}, by median: above 1, {OURS} is faster", color=INK)
    axes.margins(x=0.08)


def _shares(axes: Any, result: BenchResult) -> None:
    highest = 1.0
    for number, row in enumerate(result.rows):
        fastest = row.fastest("best")
        for runtime, offset, colour in ((OURS, -0.2, ACCENT), (fastest, 0.2, COLOURS[0])):
            share = result.share(row, runtime) if runtime else None
            if share is None or runtime is None:
                continue
            label = OURS if runtime == OURS else "fastest peer"
            first = label not in axes.get_legend_handles_labels()[1]
            axes.barh(
                number + offset, share, height=0.36, color=colour, label=label if first else None
            )
            text = f"{share:.0%}, {f.ms(row.ms(runtime, 'best'))} ms"
            if runtime != OURS:
                text += f" {title(runtime)}"
            ink = "white" if runtime == OURS else INK
            axes.text(0.012, number + offset, text, va="center", fontsize=8, color=ink)
            highest = max(highest, share)
    axes.axvline(1, color=INK, linewidth=1.2, linestyle=(0, (3, 3)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("share of the machine's limit, by best time", color=INK)
    axes.set_xlim(0, 1.05 * highest)
