"""Where the trials go, and how long what is left may take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

MIN_TRIALS = 8
"""Trials below which a task gets none: so few find nothing."""

CHEAP = 0.015
"""A task with a smaller share of the time is left as it is."""


class Progress(Protocol):
    """Told after each step: steps done, steps in all, seconds left, what was done."""

    def __call__(self, done: int, total: int, eta_s: float, message: str) -> None: ...


def shares(times: Mapping[int, float]) -> dict[int, float]:
    """Each key's part of the sum."""
    total = sum(times.values())
    return {key: value / total for key, value in times.items()} if total > 0 else {}


def spread_trials(trials: int, share: Mapping[int, float]) -> dict[int, int]:
    """Trials by share of the time: ``MIN_TRIALS`` at least or none, the largest shares first.

    Fewer than ``MIN_TRIALS`` in all go to the largest share together.
    """
    chosen = sorted(share, key=lambda key: (-share[key], key))
    if not chosen:
        return {}
    while True:
        whole = sum(share[key] for key in chosen)
        quotas = {key: int(trials * share[key] / whole) for key in chosen}
        if len(chosen) == 1 or quotas[chosen[-1]] >= MIN_TRIALS:
            break
        chosen.pop()
    quotas[chosen[0]] += trials - sum(quotas.values())
    return quotas


class Clock:
    """Steps done and to do of each phase, and what one takes by those done so far."""

    def __init__(
        self,
        progress: Progress | None,
        guesses: Mapping[str, float],
        left: Callable[[], float],
    ) -> None:
        self.progress = progress
        self.left = left
        self.cost = dict(guesses)
        self.done = dict.fromkeys(guesses, 0)
        self.todo = dict.fromkeys(guesses, 0)
        self.spent = dict.fromkeys(guesses, 0.0)

    def plan(self, **steps: int) -> None:
        """The number of steps left of these phases."""
        self.todo.update(steps)

    def step(self, phase: str, seconds: float, message: str, *, steps: int = 1) -> None:
        """Count steps of a phase as done, in ``seconds`` together, and tell the caller."""
        self.done[phase] += steps
        self.todo[phase] = max(0, self.todo[phase] - steps)
        self.spent[phase] += seconds
        self.cost[phase] = self.spent[phase] / self.done[phase]
        self.tell(message)

    def tell(self, message: str) -> None:
        if self.progress is None:
            return
        done = sum(self.done.values())
        eta = sum(self.cost[phase] * count for phase, count in self.todo.items())
        self.progress(
            done, done + sum(self.todo.values()), max(0.0, min(eta, self.left())), message
        )
