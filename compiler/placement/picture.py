"""Steps as a Gantt chart: a row for each device and link, left to right in time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from burnish.compiler.placement.errors import PlacementError
from burnish.compiler.placement.timeline import Step
from burnish.compiler.report import figures as f

INK, LINE, ROW = "#1d2430", "#ffffff", "#f6f8fa"
COMPUTE = ("#3f6f9f", "#6b9bc4", "#3f8f5c", "#85b58f", "#a9772f", "#d0a764", "#8d4f7d", "#bb8fae")
"""Of micro-batches in turns; a placement has the first two in turns, to tell nodes apart."""
TRANSFER = "#d9804a"
WIDTH_INCHES, ROW_INCHES, LEFT_INCHES, RIGHT_INCHES = 12.0, 0.34, 1.6, 0.2
TOP_INCHES, BOTTOM_INCHES, FONT = 0.5, 0.45, 7.5


def draw_steps(steps: Sequence[Step], title: str, path: Path) -> None:
    """Write the picture, PNG or SVG by the suffix of ``path``; devices above links."""
    if not steps:
        raise PlacementError("there are no steps to draw")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = _rows(steps)
    whole = max(step.end for step in steps) or 1e-9
    inches = TOP_INCHES + ROW_INCHES * len(rows) + BOTTOM_INCHES
    style = {"svg.fonttype": "none", "svg.hashsalt": "burnish", "font.family": "sans-serif"}
    with mpl.rc_context(style):
        figure = Figure(figsize=(WIDTH_INCHES, inches), dpi=110)
        width = 1 - (LEFT_INCHES + RIGHT_INCHES) / WIDTH_INCHES
        height = ROW_INCHES * len(rows) / inches
        axes = figure.add_axes((LEFT_INCHES / WIDTH_INCHES, BOTTOM_INCHES / inches, width, height))
        axes.set_xlim(0, whole * 1e3)
        axes.set_ylim(len(rows), 0)
        room = WIDTH_INCHES * width / whole
        batches = len({step.batch for step in steps}) > 1
        turns = dict.fromkeys(rows, 0)
        for row in range(len(rows)):
            axes.axhspan(row + 0.06, row + 0.94, color=ROW, linewidth=0, zorder=0)
        for step in steps:
            turn = step.batch if batches else turns[step.where] % 2
            turns[step.where] += 1
            _draw(axes, step, rows.index(step.where), turn, room)
        axes.set_yticks([row + 0.5 for row in range(len(rows))], rows, fontsize=8, color=INK)
        axes.tick_params(length=0, labelcolor=INK, labelsize=8)
        axes.xaxis.set_major_formatter(lambda at, _: f"{at:g} ms")
        for spine in axes.spines.values():
            spine.set_visible(False)
        left = LEFT_INCHES / WIDTH_INCHES
        figure.text(left, 1 - 0.25 / inches, title, fontsize=11, color=INK, va="center")
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(path, metadata=metadata)


def _rows(steps: Sequence[Step]) -> list[str]:
    devices = dict.fromkeys(step.where for step in steps if step.kind == "compute")
    links = dict.fromkeys(step.where for step in steps if step.kind == "transfer")
    return [*devices, *links]


def _draw(axes: Any, step: Step, row: int, turn: int, room: float) -> None:
    from matplotlib.patches import Rectangle

    colour = TRANSFER if step.kind == "transfer" else COMPUTE[turn % len(COMPUTE)]
    place = (step.start * 1e3, row + 0.06)
    box = Rectangle(place, step.seconds * 1e3, 0.88, facecolor=colour, edgecolor=LINE)
    box.set_linewidth(0.4)
    axes.add_patch(box)
    texts = (f"{step.label}  {f.ms(step.seconds * 1e3)} ms", step.label)
    for text in texts:
        if len(text) * FONT * 0.56 / 72 <= step.seconds * room - 0.04:
            middle = (step.start + step.end) / 2 * 1e3
            axes.text(middle, row + 0.5, text, ha="center", va="center", fontsize=FONT, color=LINE)
            return
