"""The report of a pipeline on a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from burnish.compiler.pipelines.report import PipelineReport
from burnish.compiler.report import figures as f


def print_pipeline(report: PipelineReport, console: Console) -> None:
    """A row a stage, and what went through."""
    table = Table(title=report.name, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage")
    for name in ("operators", "weights MB", "sends KB", "predicted ms", "measured ms"):
        table.add_column(name, justify="right")
    for number, row in enumerate(report.stages):
        table.add_row(
            f"{number}  {row.device}",
            str(row.operators),
            f"{row.weight_bytes / 1e6:.3g}",
            f"{row.sent_bytes / 1e3:.3g}",
            f.ms(row.predicted_ms),
            "" if row.measured_ms is None else f.ms(row.measured_ms),
        )
    console.print(table)
    console.print(
        f"{report.micro_batches} micro-batches of {report.rows} rows a batch ({report.why}); "
        f"{report.frames} in flight at most; stages run as {report.engine}"
    )
    if report.rate is not None and report.bubble is not None:
        console.print(
            f"{report.batches} batches, {report.done} micro-batches in "
            f"{f.ms(1e3 * report.seconds)} ms: {report.rate:.4g} a second, "
            f"{report.bubble:.0%} of the stages' time idle, {report.restarts} restarts"
        )
