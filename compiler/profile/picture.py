"""A profile as an icicle: model, modules, kernels; left to right as they run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnish.compiler.profile.result import Line, Profile
from burnish.compiler.report import figures as f

INK, LINE, EDGE, PAPER = "#1d2430", "#ffffff", "#a9b4c0", "#f6f8fa"
MODULE = ("#cfd8e3", "#dbe2ea", "#e3e9ef", "#eaeef3", "#f0f3f6")
STOPS = ("#a93a34", "#d9804a", "#ecd07a", "#9cc487", "#3f8f5c")
"""Colours of a share of the limit from 0 to 1."""

DARK = 0.2
"""Shares whose colour wants white letters."""

WIDTH_INCHES, ROW_INCHES, MARGIN, FONT = 16.0, 0.3, 0.012, 7.5
TOP_INCHES, BOTTOM_INCHES = 0.55, 0.85
FRAME_INCHES = TOP_INCHES + BOTTOM_INCHES
KERNEL_ROWS = 5.0
"""A kernel's height in rows: room for upright names."""

DEEPEST = 6


@dataclass(frozen=True)
class Box:
    """A rectangle: where it begins and its width, in ms; ``line`` where it is a kernel's call."""

    label: str
    depth: int
    start: float
    width: float
    line: Line | None = None


def boxes(profile: Profile) -> list[Box]:
    """The root, the modules and the calls; neighbours in one module share its box.

    Modules below ``DEEPEST`` levels are left out. What passes between kernels is the rest of the
    root's box.
    """
    return [
        Box(profile.model, 0, 0.0, profile.total_ms),
        *_level(list(profile.calls), 0.0, 0),
    ]


def _level(calls: Sequence[Line], start: float, depth: int) -> Iterator[Box]:
    position = 0
    while position < len(calls):
        line = calls[position]
        if len(line.path) <= depth or depth >= DEEPEST:
            label = " ".join(line.operators) or line.kernel
            yield Box(label, depth + 1, start, line.ms, line)
            start += line.ms
            position += 1
            continue
        group = [line]
        while position + len(group) < len(calls):
            following = calls[position + len(group)]
            if following.path[: depth + 1] != line.path[: depth + 1]:
                break
            group.append(following)
        width = sum(other.ms for other in group)
        yield Box(line.path[depth], depth + 1, start, width)
        yield from _level(group, start, depth + 1)
        start += width
        position += len(group)


def draw_profile(profile: Profile, path: Path) -> None:
    """Write the picture, PNG or SVG by the suffix of ``path``."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    found = boxes(profile)
    levels = 1 + max(box.depth for box in found if box.line is None)
    inches = ROW_INCHES * (levels + KERNEL_ROWS) + FRAME_INCHES
    style = {"svg.fonttype": "none", "svg.hashsalt": "burnish", "font.family": "sans-serif"}
    with mpl.rc_context(style):
        figure = Figure(figsize=(WIDTH_INCHES, inches), dpi=110)
        low, high = BOTTOM_INCHES / inches, (inches - TOP_INCHES) / inches
        axes = figure.add_axes((MARGIN, low, 1 - 2 * MARGIN, high - low))
        axes.set_xlim(0, profile.total_ms)
        axes.set_ylim(levels + KERNEL_ROWS, 0)
        colours = mpl.colors.LinearSegmentedColormap.from_list("limit", STOPS)
        for box in found:
            _draw(axes, box, levels, colours, profile)
        if profile.between_ms > 0:
            rest = profile.between_ms
            between = Box("between kernels", levels, profile.total_ms - rest, rest)
            _rectangle(axes, between, levels, KERNEL_ROWS, PAPER, hatch="////")
            _label(axes, between, levels, KERNEL_ROWS, [between.label])
        _frame(figure, axes, profile, colours, inches)
        figure.savefig(
            path, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None}
        )


def _draw(axes: Any, box: Box, levels: int, colours: Any, profile: Profile) -> None:
    if box.line is None:
        label = box.label
        _rectangle(axes, box, box.depth, 1, MODULE[min(box.depth, len(MODULE) - 1)])
        _label(axes, box, box.depth, 1, [f"{label}  {f.ms(box.width)} ms", label])
        return
    share = box.line.of_limit
    colour = colours(min(1.0, share)) if box.line.bound else PAPER
    _rectangle(axes, box, levels, KERNEL_ROWS, colour)
    ink = "white" if box.line.bound and share < DARK else INK
    name = box.label
    told = f"{name}  {share:.0%}" if box.line.bound else f"{name}  {box.line.device}"
    labels = [told, name, name.split(" ")[0]]
    _label(axes, box, levels, KERNEL_ROWS, labels, ink)


def _rectangle(
    axes: Any, box: Box, top: float, height: float, colour: Any, hatch: str | None = None
) -> None:
    from matplotlib.patches import Rectangle

    edge = EDGE if hatch else LINE
    axes.add_patch(
        Rectangle(
            (box.start, top),
            box.width,
            height,
            facecolor=colour,
            edgecolor=edge,
            linewidth=0.5,
            hatch=hatch,
        )
    )


def _label(
    axes: Any, box: Box, top: float, height: float, labels: Sequence[str], ink: str = INK
) -> None:
    """The first of ``labels`` that fits, lying or, in tall boxes, upright."""
    inches = box.width / axes.get_xlim()[1] * WIDTH_INCHES * (1 - 2 * MARGIN)
    room = (inches - 0.02, height * ROW_INCHES - 0.08)
    middle = (box.start + box.width / 2, top + height / 2)
    for text in labels:
        for upright in (False, True) if height > 1 else (False,):
            long, across = (room[1], room[0]) if upright else room
            if _inches(text) <= long and across >= FONT / 72:
                axes.text(
                    *middle,
                    text,
                    ha="center",
                    va="center",
                    fontsize=FONT,
                    color=ink,
                    rotation=90 if upright else 0,
                    clip_on=True,
                )
                return


def _inches(text: str) -> float:
    return len(text) * FONT * 0.56 / 72


def _frame(figure: Any, axes: Any, profile: Profile, colours: Any, inches: float) -> None:
    """Title, time axis, the colours' key and the machine."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    title = f"{profile.model}: {f.ms(profile.whole_ms)} ms a call"
    if profile.limited:
        title += f", {profile.of_limit:.0%} of the machine's limit at its best"
    figure.text(MARGIN, 1 - 0.3 / inches, title, fontsize=12, color=INK, va="center")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=3, color=EDGE, labelcolor=INK, labelsize=8)
    axes.xaxis.set_major_formatter(lambda at, _: f"{at:g} ms")
    key = figure.add_axes((MARGIN, 0.27 / inches, 0.22, 0.13 / inches))
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), colours), cax=key, orientation="horizontal"
    )
    bar.outline.set_visible(False)
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0 %", "25", "50", "75", "100 %"])
    key.tick_params(length=0, labelcolor=INK, labelsize=7, pad=1)
    figure.text(
        MARGIN + 0.23,
        0.335 / inches,
        "share of the limit (best time)",
        fontsize=8,
        color=INK,
        va="center",
    )
    peaks = profile.peaks
    rates = f"{peaks.fp32:.0f} GFLOP/s fp32, {peaks.read:.0f} GB/s"
    cpu = profile.machine.get("cpu", "")
    note = f"{cpu}, {peaks.threads} threads, {rates}, {profile.date[:10]}"
    figure.text(1 - MARGIN, 0.335 / inches, note, fontsize=8, color=INK, ha="right", va="center")
