"""Stages as processes that share the frames' memory; only numbers travel between them.

The parent's own thread tells each stage which frame to work on, and keeps what it was told until
it has answered. A stage that dies, or does not answer in time, is started again and told the same
again: its inputs are still in their frames, since a frame is free only when its results are taken.
"""

from __future__ import annotations

import atexit
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from burnish.compiler.pipelines.flight import Flight, PipelineError
from burnish.compiler.pipelines.frames import Frames, layout_of, mapped, shared_memory
from burnish.compiler.pipelines.plan import Plan
from burnish.compiler.pipelines.stage_process import StageProcess
from burnish.compiler.pipelines.timeline import Span

AHEAD = 2
"""Micro-batches a stage is given at once: one it works on, and the one it goes on with."""
START_S = 120.0
TICK_S = 0.5


class Processes:
    """One process a stage.

    ``restarts`` is how often a stage may die in a row without finishing a micro-batch; each time
    counts in the attribute of that name. ``timeout_s`` is the longest that a stage may take.
    """

    def __init__(
        self, plan: Plan, folder: Path, frames: int, timeout_s: float, restarts: int
    ) -> None:
        self.plan, self.folder = plan, folder
        self.timeout_s, self.limit = timeout_s, restarts
        self.restarts = 0
        layout = layout_of(plan.values)
        size = layout.size * frames
        self._memory = shared_memory(size)
        self.flight = Flight(plan, Frames(layout, mapped(self._memory, size), frames))
        self._frames = frames
        self._waiting: list[deque[tuple[int, int]]] = [deque() for _ in plan.stages]
        self._failures = [0] * len(plan.stages)
        self._stages: list[StageProcess] = []
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._submitted: deque[tuple[int, int]] = deque()
        self._closing = False
        self._open = True
        atexit.register(self.close)
        try:
            for number in range(len(plan.stages)):
                self._stages.append(self._started(number))
            self._selector = selectors.DefaultSelector()
            self._selector.register(self._woken, selectors.EVENT_READ, None)
            for stage in self._stages:
                self._selector.register(stage.channel, selectors.EVENT_READ, stage.number)
            self._thread = threading.Thread(target=self._work, name="burnish-pipeline", daemon=True)
            self._thread.start()
            self._wait_ready()
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """The stages' processes as they are now."""
        return [stage.pid for stage in self._stages]

    def submit(self, arrays: Sequence[np.ndarray]) -> int:
        """Start a micro-batch on its way; there must be room."""
        number, frame = self.flight.submit(arrays)
        self._submitted.append((number, frame))
        self._wake.send(b"x")
        return number

    def take(self) -> list[np.ndarray]:
        """The results of the oldest micro-batch."""
        return self.flight.take(self._most_s())

    def close(self) -> None:
        """End the processes, each after the call it is in; nothing of them is left."""
        self._closing = True
        self.flight.fail(PipelineError("the pipeline is closed"))
        if not self._open:
            return
        self._open = False
        atexit.unregister(self.close)
        thread = getattr(self, "_thread", None)
        if thread is not None and thread.is_alive():
            self._wake.send(b"x")
            thread.join(START_S)
        for stage in self._stages:
            stage.channel.close()
        for stage in self._stages:
            stage.close()
        for end in (self._wake, self._woken):
            end.close()
        os.close(self._memory)

    def _most_s(self) -> float:
        """Longer than anything that is going well, or that is being restarted, may take."""
        tries = 1 + self.limit
        return tries * (START_S + self.timeout_s) * len(self.plan.stages)

    def _started(self, number: int) -> StageProcess:
        return StageProcess(self.plan, number, self.folder, self._memory, self._frames)

    def _wait_ready(self) -> None:
        end = time.monotonic() + self._most_s()
        while not all(stage.ready for stage in self._stages):
            self.flight.check()
            if time.monotonic() > end:
                raise PipelineError("the stages did not start in time")
            time.sleep(0.002)

    def _work(self) -> None:
        try:
            while not self._closing and self.flight.error is None:
                for key, _ in self._selector.select(TICK_S):
                    if key.data is None:
                        self._drain()
                    else:
                        self._hear(key.data)
                self._look_after()
                for number in range(len(self._stages)):
                    self._give(number)
        except Exception as error:  # noqa: BLE001 - no wait may outlive this thread
            self.flight.fail(PipelineError(f"the pipeline failed: {type(error).__name__}: {error}"))

    def _drain(self) -> None:
        try:
            while self._woken.recv(4096):
                pass
        except BlockingIOError:
            pass
        while self._submitted:
            self._waiting[0].append(self._submitted.popleft())

    def _give(self, number: int) -> None:
        stage, waiting = self._stages[number], self._waiting[number]
        while stage.ready and waiting and len(stage.outstanding) < AHEAD:
            stage.send(*waiting.popleft())

    def _hear(self, number: int) -> None:
        stage = self._stages[number]
        message = stage.receive()
        if message is None:
            self._revive(number, stage.death())
        elif isinstance(message, dict):
            self._told(stage, message)
        elif message:
            micro_batch, start, end = message
            frame = stage.outstanding.pop(micro_batch)
            self._failures[number] = 0
            self.flight.spans.append(Span(number, micro_batch, start, end))
            if number + 1 < len(self._stages):
                self._waiting[number + 1].append((micro_batch, frame))
            else:
                self.flight.finish(micro_batch)

    def _told(self, stage: StageProcess, message: dict[str, Any]) -> None:
        if "ready" in message:
            stage.ready = True
            return
        self.flight.fail(
            PipelineError(f"stage {stage.number} on {stage.device} failed: {message['error']}")
        )

    def _look_after(self) -> None:
        """End stages that owe an answer for too long."""
        now = time.monotonic()
        for stage in list(self._stages):
            limit = self.timeout_s if stage.ready else START_S
            if (stage.outstanding or not stage.ready) and now - stage.since > limit:
                doing = "run" if stage.ready else "start"
                stage.kill()
                self._revive(stage.number, f"did not {doing} within {limit:g} s")

    def _revive(self, number: int, why: str) -> None:
        """Start a stage again, to do what it had not done."""
        old = self._stages[number]
        self._selector.unregister(old.channel)
        old.kill()
        old.close()
        self._failures[number] += 1
        if self._failures[number] > self.limit:
            told = sorted(old.outstanding)
            on = f" on micro-batch {told[0]}" if told else ""
            self.flight.fail(
                PipelineError(
                    f"stage {number} on {old.device} failed {self._failures[number]} times in a "
                    f"row{on}, the limit of restarts is {self.limit}: it {why}"
                )
            )
            return
        self.restarts += 1
        self._waiting[number].extendleft(sorted(old.outstanding.items(), reverse=True))
        self._stages[number] = self._started(number)
        self._selector.register(self._stages[number].channel, selectors.EVENT_READ, number)
