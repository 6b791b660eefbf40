"""Progress of a search in the terminal: how far, and how long still."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from burnish.compiler.tune import Progress as Report

LINE_EVERY_S = 5.0
"""Seconds between lines where there is no terminal to draw a bar in."""


@contextmanager
def shown(title: str) -> Iterator[Report]:
    """A callback for the tuner that draws a bar on stderr, or prints a line now and then."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console, title)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, left="")

        def report(done: int, total: int, eta_s: float, message: str) -> None:
            bar.update(task, completed=done, total=total, left=f"{left(eta_s)}  {message}")

        yield report


def _lines(console: Console, title: str) -> Report:
    last = time.monotonic()

    def report(done: int, total: int, eta_s: float, message: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_EVERY_S:
            last = now
            console.print(f"{title}: {done} of {total}, {left(eta_s)} ({message})", soft_wrap=True)

    return report


def left(seconds: float) -> str:
    """Seconds as people say them: ``about 1 min 20 s left``."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    return f"about {minutes} min {rest} s left" if minutes else f"about {rest} s left"
