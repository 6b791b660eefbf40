"""Bar charts as inline SVG that takes its colours from the page, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from burnish.compiler.report.figures import digits

# Colours no one would choose, replaced by the page's own in the finished SVG.
INK, FAINT, PLAIN, STRONG = "#010101", "#010102", "#010103", "#010104"
THEME = {
    INK: "var(--ink)",
    FAINT: "var(--line)",
    PLAIN: "var(--baseline)",
    STRONG: "var(--accent)",
}
ROW_INCHES, FRAME_INCHES, WIDTH_INCHES = 0.34, 0.62, 7.4


def bars(
    title: str,
    labels: Sequence[str],
    values: Sequence[float],
    *,
    texts: Sequence[str] | None = None,
    baseline: int | None = 0,
    tails: Sequence[float] | None = None,
    reference: float | None = None,
    key: str = "chart",
) -> str:
    """Horizontal bars, first label on top, each with its figure, as an ``<svg>`` element.

    ``baseline`` is the index of the bar in the plain colour; ``tails`` extend each bar by a thin
    line (a p95); ``reference`` draws a line across (1x of a speed-up); ``key`` sets the chart's
    ids apart from those of others on the page.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    texts = texts or [digits(value) for value in values]
    style = {"svg.fonttype": "none", "svg.hashsalt": "burnish", "font.family": "sans-serif"}
    with mpl.rc_context(style):
        height = FRAME_INCHES + ROW_INCHES * len(labels)
        figure = Figure(figsize=(WIDTH_INCHES, height))
        axes = figure.add_subplot()
        rows = range(len(labels))
        colours = [PLAIN if row == baseline else STRONG for row in rows]
        axes.barh(rows, values, height=0.62, color=colours)
        if tails is not None:
            axes.hlines(rows, values, tails, color=INK, linewidth=1.2)
            axes.plot(tails, rows, "|", color=INK, markersize=7)
        ends = [max(v, t) for v, t in zip(values, tails or values, strict=True)]
        room = max([*ends, reference or 0]) or 1
        for row, end, text in zip(rows, ends, texts, strict=True):
            axes.text(end + room * 0.012, row, text, va="center", color=INK, fontsize=9)
        if reference is not None:
            axes.axvline(reference, color=INK, linewidth=1, linestyle=(0, (3, 3)))
        axes.set_xlim(0, room * 1.16)
        axes.set_yticks(rows, labels, color=INK, fontsize=9)
        axes.set_title(title, loc="left", color=INK, fontsize=10)
        axes.invert_yaxis()
        axes.tick_params(length=0)
        axes.tick_params(axis="x", labelcolor=INK, labelsize=8)
        axes.grid(axis="x", color=FAINT, linewidth=0.8)
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_visible(False)
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        figure.tight_layout(pad=0.4)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return _inline(file.getvalue(), title, key)


def _inline(svg: str, title: str, key: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for colour, variable in THEME.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{key}-\1"', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{key}-", svg)
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
