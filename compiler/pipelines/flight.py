"""Micro-batches in flight: frames lent and given back, results in order, each once."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

import numpy as np

from burnish.compiler.pipelines.frames import Frames
from burnish.compiler.pipelines.plan import Plan
from burnish.compiler.pipelines.timeline import Span
from burnish.runtime.errors import BurnishError

KEPT_SPANS = 100_000


class PipelineError(BurnishError):
    """A pipeline's stage failed for good, or did not answer in its time."""

    stage = "run"


class Flight:
    """The caller's side of the frames. All methods may be called from any thread.

    A frame is free, or holds the micro-batch with some number: they are given out in order
    (``submit``), finished in any (``finish``), and taken in order (``take``), so that a full
    ring holds the caller back.
    """

    def __init__(self, plan: Plan, frames: Frames) -> None:
        self.plan, self.frames = plan, frames
        self._changed = threading.Condition()
        self._free = deque(range(frames.count))
        self._held: deque[tuple[int, int]] = deque()
        self._done: set[int] = set()
        self._next = 0
        self.error: BaseException | None = None
        self.spans: deque[Span] = deque(maxlen=KEPT_SPANS)

    @property
    def pending(self) -> int:
        """Micro-batches that were submitted and not taken."""
        return len(self._held)

    @property
    def room(self) -> bool:
        """Whether a micro-batch can be submitted without a wait."""
        return bool(self._free)

    def submit(self, arrays: Sequence[np.ndarray]) -> tuple[int, int]:
        """Put a micro-batch's inputs into a free frame: its number and frame.

        There must be ``room``.
        """
        with self._changed:
            self.check()
            frame = self._free.popleft()
            number, self._next = self._next, self._next + 1
            self._held.append((number, frame))
        for place, array in zip(self.frames.arrays(frame, self.plan.inputs), arrays, strict=True):
            np.copyto(place, array, casting="no")
        return number, frame

    def finish(self, number: int) -> None:
        """All stages are done with a micro-batch; a second time is an error of ours."""
        with self._changed:
            if number in self._done or all(number != held for held, _ in self._held):
                raise RuntimeError(f"micro-batch {number} ended twice")
            self._done.add(number)
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """End all waits with this error; the first one counts."""
        with self._changed:
            if self.error is None:
                self.error = error
            self._changed.notify_all()

    def check(self) -> None:
        """Raise what the pipeline failed of."""
        if self.error is not None:
            raise self.error

    def take(self, limit_s: float) -> list[np.ndarray]:
        """Copies of the results of the oldest micro-batch, once they are there.

        Raises :class:`PipelineError` where that takes longer than ``limit_s``, or the pipeline
        failed.
        """
        end = time.monotonic() + limit_s
        with self._changed:
            number, frame = self._held[0]
            while number not in self._done:
                self.check()
                left = end - time.monotonic()
                if left <= 0:
                    # What was not done in time may write into its frame at any later one.
                    self.error = PipelineError(
                        f"micro-batch {number} was not done within {limit_s:g} s; a longer "
                        "timeout_s waits longer"
                    )
                    raise self.error
                self._changed.wait(left)
        results = [a.copy() for a in self.frames.arrays(frame, self.plan.results)]
        with self._changed:
            self._held.popleft()
            self._done.discard(number)
            self._free.append(frame)
        return results
