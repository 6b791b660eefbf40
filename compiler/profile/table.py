"""A profile as a table."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from burnish.compiler.profile.result import Line, Profile, total_work
from burnish.compiler.report import figures as f

WIDTH = 170
KERNEL_WIDTH, CELL_WIDTH = 38, 26
SEVERAL = (
    "device: the memory that a kernel works in, or that a move goes to; each is waited for, where "
    "a call without a profile goes on; limits are known of the CPU's kernels alone"
)
GOOD, POOR = 0.7, 0.35
"""Shares of the limit from which a line is green, and below which it is red."""


def profile_table(profile: Profile, *, least: float = 0.02, calls: bool = False) -> Table:
    """See :meth:`Profile.table`."""
    lines = list(profile.calls) if calls else profile.kernels
    shown = [line for line in lines if profile.share(line) >= least]
    rest = [line for line in lines if profile.share(line) < least]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("kernel", overflow="ellipsis", max_width=KERNEL_WIDTH, no_wrap=True)
    table.add_column("operators", overflow="ellipsis", max_width=CELL_WIDTH, no_wrap=True)
    several = profile.several
    if several:
        table.add_column("device", no_wrap=True)
    table.add_column("module", overflow="ellipsis", max_width=CELL_WIDTH, no_wrap=True)
    table.add_column("result", no_wrap=True)
    for name in ("calls", "ms", "share", "GFLOP/s", "GB/s", "of limit"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("bound", no_wrap=True)
    table.add_column("rule", no_wrap=True)
    for line in shown:
        table.add_row(*_cells(profile, line, several))
    if rest:
        count = len(rest)
        label = f"{count} other{'s' if count > 1 else ''}, each under {100 * least:g} %"
        table.add_row(*_summed(profile, rest, label, several))
    table.add_section()
    table.add_row(
        "between kernels",
        *[""] * (4 + several),
        f.ms(profile.between_ms),
        f"{profile.between_ms / profile.total_ms:.1%}",
    )
    total = _summed(profile, list(profile.calls), "in all", several, whole=True)
    table.add_row(*total, style="bold")
    return table


def _cells(profile: Profile, line: Line, several: bool) -> list[str | Text]:
    return [
        line.kernel,
        ", ".join(line.operators) or f.MISSING,
        *([line.device] if several else []),
        ".".join(line.path) or f.MISSING,
        "x".join(map(str, line.shapes[-1])) if line.shapes else f.MISSING,
        f.count(line.calls),
        f.ms(line.ms),
        f"{profile.share(line):.1%}",
        f.MISSING if line.gflops is None else f.digits(line.gflops),
        f.digits(line.gbytes),
        _of_limit(line.of_limit) if line.bound else f.MISSING,
        line.bound,
        line.rule,
    ]


def _summed(
    profile: Profile, lines: list[Line], label: str, several: bool, *, whole: bool = False
) -> list[str | Text]:
    work = total_work(line.work for line in lines)
    best = profile.whole_best_ms if whole else sum(line.best_ms for line in lines)
    limit = profile.limit_ms if whole else sum(line.limit_ms for line in lines)
    ms = profile.total_ms if whole else sum(line.ms for line in lines)
    return [
        label,
        *[""] * (3 + several),
        f.count(sum(line.calls for line in lines)),
        f.ms(ms),
        f"{ms / profile.total_ms:.1%}",
        f.digits((work.operations or 0) / best / 1e6),
        f.digits((profile.io_bytes if whole else work.bytes) / best / 1e6),
        _of_limit(limit / best) if profile.limited or not whole else f.MISSING,
    ]


def _of_limit(share: float) -> Text:
    style = "green" if share >= GOOD else "red" if share < POOR else "yellow"
    return Text(f"{share:.0%}", style=style)


def notes(profile: Profile) -> list[str]:
    """What the columns mean, and the machine."""
    peaks = profile.peaks
    other = [
        f"int8 {peaks.int8:.0f}" if peaks.int8 else "",
        f"bf16 {peaks.bf16:.0f}" if peaks.bf16 else "",
    ]
    limit = "its limit" if profile.limited else "the limit of its CPU's part"
    rates = ", ".join([f"fp32 {peaks.fp32:.0f}", *filter(None, other)])
    return [
        f"{profile.model}: a call takes {f.ms(profile.whole_ms)} ms (median; best "
        f"{f.ms(profile.whole_best_ms)}), {limit} is {f.ms(profile.limit_ms)} ms; kernels timed "
        f"in {profile.runs} calls; of the time between kernels the virtual machine's own functions "
        f"took {f.ms(profile.machine_ms)} ms",
        f"limit: the larger of operations / {rates} GFLOP/s and bytes / {peaks.read:.0f} GB/s "
        f"({peaks.threads} thread{'s' if peaks.threads > 1 else ''}); rates and shares of it by "
        "best time; ms is the mean of the middle half of the calls",
        "GB/s: inputs, weights and outputs of a kernel once; what is still in a cache moves faster "
        "than memory, so a share can exceed 100 %",
        *([SEVERAL] if profile.several else []),
        f.machine_line(profile.machine),
    ]


def print_profile(
    profile: Profile,
    console: Console | None = None,
    *,
    least: float = 0.02,
    calls: bool = False,
) -> None:
    """The table and its notes, to the terminal."""
    console = console or Console(width=WIDTH, highlight=False)
    console.print(profile_table(profile, least=least, calls=calls))
    first, *rest = notes(profile)
    console.print(Text(first))
    if profile.other_load >= 0.05:
        load = f"! other processes used {profile.other_load:.2f} cores meanwhile"
        console.print(Text(load, "yellow"))
    for line in rest:
        console.print(Text(line, "dim"))
