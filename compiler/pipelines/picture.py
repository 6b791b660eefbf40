"""A run as a Gantt chart: a row a stage, a box a micro-batch; measured above, predicted below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from burnish.compiler.pipelines.timeline import Schedule, Timeline
from burnish.compiler.report import figures as f

INK, LINE, EDGE, IDLE = "#1d2430", "#ffffff", "#a9b4c0", "#f6f8fa"
COLOURS = ("#3f6f9f", "#6b9bc4", "#3f8f5c", "#85b58f", "#a9772f", "#d0a764", "#8d4f7d", "#bb8fae")
"""Micro-batches take them in turns: the same colour is the same micro-batch in every row."""
WIDTH_INCHES, ROW_INCHES, LEFT_INCHES, RIGHT_INCHES = 14.0, 0.36, 1.25, 0.15
TITLE_INCHES, AXIS_INCHES = 0.42, 0.3
FONT = 7.5


def draw_timeline(timeline: Timeline, path: Path) -> None:
    """Write the picture, PNG or SVG by the suffix of ``path``; both parts have one time axis."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    parts = (("measured", timeline.measured), ("predicted", timeline.predicted))
    stages = len(timeline.measured.devices)
    block = TITLE_INCHES + ROW_INCHES * stages + AXIS_INCHES
    height = 2 * block
    longest = max(part.seconds for _, part in parts) or 1e-6
    style = {"svg.fonttype": "none", "svg.hashsalt": "burnish", "font.family": "sans-serif"}
    with mpl.rc_context(style):
        figure = Figure(figsize=(WIDTH_INCHES, height), dpi=110)
        across = (WIDTH_INCHES - LEFT_INCHES - RIGHT_INCHES) / WIDTH_INCHES
        for number, (what, schedule) in enumerate(parts):
            bottom = height - (number + 1) * block + AXIS_INCHES
            box = (LEFT_INCHES / WIDTH_INCHES, bottom / height, across)
            axes = figure.add_axes((*box, ROW_INCHES * stages / height))
            _rows(axes, schedule, 1e3 * longest)
            title = (bottom + ROW_INCHES * stages + 0.16) / height
            figure.text(box[0], title, _title(what, schedule), fontsize=10, color=INK, va="center")
        figure.savefig(
            path, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None}
        )


def _title(what: str, schedule: Schedule) -> str:
    return (
        f"{what}: {schedule.micro_batches} micro-batches in {f.ms(1e3 * schedule.seconds)} ms, "
        f"{schedule.bubble:.0%} of the stages' time idle"
    )


def _rows(axes: Any, schedule: Schedule, longest_ms: float) -> None:
    from matplotlib.patches import Rectangle

    axes.set_xlim(0, longest_ms)
    axes.set_ylim(len(schedule.devices), 0)
    axes.add_patch(Rectangle((0, 0), 1e3 * schedule.seconds, len(schedule.devices), color=IDLE))
    inches = (WIDTH_INCHES - LEFT_INCHES - RIGHT_INCHES) / longest_ms
    for span in schedule.spans:
        start, width = 1e3 * span.start, 1e3 * (span.end - span.start)
        colour = COLOURS[span.micro_batch % len(COLOURS)]
        place = (start, span.stage + 0.08)
        axes.add_patch(
            Rectangle(place, width, 0.84, facecolor=colour, edgecolor=LINE, linewidth=0.4)
        )
        label = str(span.micro_batch)
        if width * inches > 0.08 * len(label):
            middle = (start + width / 2, span.stage + 0.5)
            axes.text(*middle, label, ha="center", va="center", fontsize=FONT, color="white")
    labels = [f"{number}  {device}" for number, device in enumerate(schedule.devices)]
    axes.set_yticks([at + 0.5 for at in range(len(labels))], labels, fontsize=8, color=INK)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", length=3, color=EDGE, labelcolor=INK, labelsize=8)
    axes.xaxis.set_major_formatter(lambda at, _: f"{at:g} ms")
    for spine in axes.spines.values():
        spine.set_visible(False)
