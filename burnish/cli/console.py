"""Where words go: results on stdout, everything else on stderr.

With ``--json`` stdout holds one JSON document and nothing else, so stray prints of libraries
(C and C++ ones too) are sent to stderr for as long as the verb runs.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from burnish.compiler.waterfall import Report


PIPE_WIDTH = 150


@dataclass
class Flags:
    """What ``--json`` and ``-v`` said, on whichever side of the verb."""

    json: bool = False
    verbose: bool = False


flags = Flags()


@contextmanager
def redirected_stdout() -> Iterator[None]:
    """Send file descriptor 1 to stderr meanwhile; :func:`print_json` still reaches stdout."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError, io.UnsupportedOperation):
        yield  # no real stdout (captured in the same process): nothing to protect
        return
    sys.stdout.flush()
    kept = os.dup(descriptor)
    os.dup2(2, descriptor)
    documents = os.fdopen(kept, "w", encoding="utf-8")
    global _documents
    _documents = documents
    try:
        yield
    finally:
        sys.stdout.flush()
        documents.flush()
        os.dup2(kept, descriptor)
        _documents = None
        documents.close()


_documents: io.TextIOWrapper | None = None


def print_json(data: Any, *, line: bool = False) -> None:
    """The one document of a verb with ``--json``, on one ``line`` where that is said."""
    from burnish.compiler.report.files import finite

    out = _documents or sys.stdout
    indent = None if line else 2
    json.dump(finite(data), out, indent=indent, default=_plain, allow_nan=False)
    out.write("\n")
    out.flush()


def results() -> Console:
    """Console for what was asked for; wide where no terminal limits it."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def notes() -> Console:
    """Console for progress and remarks, on stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; columns whose values are numbers are set right."""
    from rich import box
    from rich.table import Table

    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        shown.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(_cell(value) for value in row))
    results().print(shown)


def waterfall(report: Report) -> None:
    """Print what each pass bought, and the seconds of each stage."""
    from burnish.compiler.report import waterfall_table

    if report.rows:
        results().print(waterfall_table(report))
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.seconds.items())
    if stages:
        results().print(stages)
    if report.cache:
        results().print(report.cache)


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Say on stderr what is being done, with the seconds it has taken; silent under a pipe."""
    console = notes()
    if not console.is_terminal:
        yield
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        shown.add_task(what, total=None)
        yield


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
