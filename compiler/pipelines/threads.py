"""Stages as threads of this process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from burnish.compiler.pipelines.flight import Flight, PipelineError
from burnish.compiler.pipelines.frames import Frames, layout_of
from burnish.compiler.pipelines.plan import Plan
from burnish.compiler.pipelines.stage import open_stage, run_stage
from burnish.compiler.pipelines.timeline import Span
from burnish.runtime.tensors import ALIGNMENT, aligned

END_S = 10.0


class Threads:
    """One thread a stage, bound to its cores; they hand frames on by queues."""

    def __init__(self, plan: Plan, folder: Path, frames: int, timeout_s: float) -> None:
        self.plan, self.timeout_s = plan, timeout_s
        layout = layout_of(plan.values)
        memory = aligned((layout.size * frames,), np.dtype(np.uint8))
        assert memory.ctypes.data % ALIGNMENT == 0
        self.flight = Flight(plan, Frames(layout, memory, frames))
        self.restarts = 0
        self._queues: list[queue.SimpleQueue[tuple[int, int] | None]] = [
            queue.SimpleQueue() for _ in plan.stages
        ]
        models = [
            open_stage(folder / s.artifact, s.takes, s.gives, plan.values, s.device.threads)
            for s in plan.stages
        ]
        self._threads = [
            threading.Thread(
                target=self._work, args=(number, model), name=f"burnish-stage-{number}", daemon=True
            )
            for number, model in enumerate(models)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, arrays: Sequence[np.ndarray]) -> int:
        """Start a micro-batch on its way; there must be room."""
        number, frame = self.flight.submit(arrays)
        self._queues[0].put((number, frame))
        return number

    def take(self) -> list[np.ndarray]:
        """The results of the oldest micro-batch."""
        return self.flight.take(self.timeout_s * len(self.plan.stages))

    @property
    def pids(self) -> list[int]:
        """No stage has a process of its own."""
        return []

    def close(self) -> None:
        """End the threads, each after the call it is in."""
        self.flight.fail(PipelineError("the pipeline is closed"))
        for waiting in self._queues:
            waiting.put(None)
        for thread in self._threads:
            thread.join(END_S)

    def _work(self, number: int, model: object) -> None:
        stage = self.plan.stages[number]
        try:
            stage.device.bind()
            while (item := self._queues[number].get()) is not None:
                micro_batch, frame = item
                start, end = run_stage(
                    model,  # type: ignore[arg-type]
                    self.flight.frames,
                    frame,
                    stage.takes,
                    stage.gives,
                )
                self.flight.spans.append(Span(number, micro_batch, start, end))
                if number + 1 < len(self._queues):
                    self._queues[number + 1].put(item)
                else:
                    self.flight.finish(micro_batch)
        except Exception as error:  # noqa: BLE001 - whatever ends a stage is the caller's to know
            self.flight.fail(
                PipelineError(f"stage {number} on {stage.device.name} failed: {error}")
            )
