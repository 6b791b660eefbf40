"""What to measure, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from burnish.compiler.config import CompileConfig
from burnish.compiler.errors import ConfigError


@dataclass(frozen=True)
class Case:
    """A model to measure: rows of one ``group`` count as one model; ``kind`` is its family.

    ``load`` gives a torch module in eval mode, or an exported program, and its inputs.
    """

    name: str
    title: str
    group: str
    kind: str
    load: Callable[[], tuple[Any, Sequence[Any]]]


@dataclass(frozen=True)
class Options:
    """How :func:`bench` measures. ``quiet`` is entered while runtimes are timed: whoever shares
    the machine can hold others off with it. ``budget_s`` ends the rounds of one attempt early,
    never before the third; ``peak_seconds`` go to each of the machine's peak rates.
    """

    rounds: int = 15
    threads: int | None = None
    budget_s: float = 180.0
    config: CompileConfig = field(default_factory=CompileConfig)
    quiet: Callable[[], AbstractContextManager[Any]] = nullcontext
    peak_seconds: float = 0.3

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ConfigError(f"rounds is {self.rounds}; it must be 1 or more")
