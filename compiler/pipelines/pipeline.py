"""A pipeline that runs: called with a batch, or given a stream of them."""

from __future__ import annotations

import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from burnish.compiler.errors import ConfigError
from burnish.compiler.pipelines.batches import check_joinable, join, split
from burnish.compiler.pipelines.flight import PipelineError
from burnish.compiler.pipelines.plan import Plan
from burnish.compiler.pipelines.report import PipelineReport
from burnish.compiler.pipelines.timeline import Schedule, Span, Timeline, predict_schedule
from burnish.runtime.signature import Signature

ENGINES = ("processes", "threads", "ray")
TIMEOUT_S = 120.0
RESTARTS = 3
CALLER_S = 3600.0
SHOWN = 32
"""Micro-batches of a run that its timeline shows, the last ones."""


class Airborne(Protocol):
    """Micro-batches in flight: how many, whether there is room, and how they went."""

    error: BaseException | None
    spans: deque[Span]

    @property
    def pending(self) -> int: ...
    @property
    def room(self) -> bool: ...


class Running(Protocol):
    """What an engine does; methods as in :class:`~burnish.compiler.pipelines.threads.Threads`."""

    @property
    def flight(self) -> Airborne: ...
    @property
    def restarts(self) -> int: ...
    def submit(self, arrays: Sequence[np.ndarray]) -> int: ...
    def take(self) -> list[np.ndarray]: ...
    def close(self) -> None: ...
    @property
    def pids(self) -> list[int]: ...


class Pipeline:
    """A model over several devices. A context manager; :meth:`close` ends its stages.

    Call it as the model is called, with any batch: tensors in, tensors out. ``plan`` says how it
    was cut, ``timeline`` and ``report`` how the last call or stream went, ``pids`` which
    processes its stages are. Calls from several threads take turns.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        *,
        engine: str = "processes",
        timeout_s: float = TIMEOUT_S,
        restarts: int = RESTARTS,
        frames: int | None = None,
        address: str | None = None,
        owner: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        check_running(engine, timeout_s, restarts, frames)
        if frames is None:
            frames = 2 * len(plan.stages) + 1
        self.plan, self.engine, self.frames = plan, engine, frames
        self._owner = owner
        self._lock = threading.Lock()
        self._caller: int | None = None
        self._run = _started(engine, plan, folder, frames, timeout_s, restarts, address)
        self._batches = 0
        self._micro_batches = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's outputs for one batch.

        Raises :class:`~burnish.compiler.errors.InvalidInputError` for inputs that it does not
        take, :class:`PipelineError` where a stage failed for good.
        """
        (result,) = self._stream([self._leaves(args, kwargs)])
        return result

    def stream(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The outputs for each of ``batches``, in order, each once.

        A batch is a tuple of the model's arguments, a mapping of them by name, or the one
        argument. Batches are read ahead as far as there is room: a slow consumer, or a slow
        stage, holds the reading back.
        """
        return self._stream(self._leaves(*_arguments(batch)) for batch in batches)

    def _leaves(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        return self.plan.signature.flatten(args, kwargs)

    def _stream(self, batches: Iterable[list[Any]]) -> Iterator[Any]:
        with self._turn():
            run = self._run
            run.flight.spans.clear()
            self._batches = self._micro_batches = 0
            coming = iter(batches)
            waiting: deque[_Batch] = deque()
            ahead: deque[list[np.ndarray]] = deque()
            ended = False
            try:
                while not ended or waiting:
                    while not ended and run.flight.room:
                        if not ahead:
                            leaves = next(coming, None)
                            if leaves is None:
                                ended = True
                                break
                            waiting.append(self._entered(leaves, ahead))
                        run.submit(ahead.popleft())
                    if not waiting:
                        break
                    first = waiting[0]
                    first.parts.append(run.take())
                    self._micro_batches += 1
                    if len(first.parts) == first.count:
                        waiting.popleft()
                        self._batches += 1
                        yield first.joined(self.plan.signature)
            finally:
                while run.flight.pending and run.flight.error is None:
                    run.take()  # of a stream that was left, or that met a batch it cannot take

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One caller at a time; a stream is one until it ends or is closed."""
        me = threading.get_ident()
        if self._caller == me:
            raise PipelineError("a stream of this pipeline is not at its end: close it first")
        if not self._lock.acquire(timeout=CALLER_S):
            raise PipelineError(f"another thread has used this pipeline for {CALLER_S:g} s")
        self._caller = me
        try:
            yield
        finally:
            self._caller = None
            self._lock.release()

    def _entered(self, leaves: list[Any], ahead: deque[list[np.ndarray]]) -> _Batch:
        parts, rows = split(self.plan.signature, self.plan.rows, self.plan.whole, leaves)
        exact = rows % self.plan.rows == 0
        if len(parts) > 1 or not exact:
            check_joinable(self.plan.signature, self.plan.rows)
        ahead.extend(parts)
        as_torch = any(isinstance(leaf, torch.Tensor) for leaf in leaves)
        return _Batch(len(parts), rows, exact, as_torch)

    @property
    def pids(self) -> list[int]:
        """Processes of the stages; none where they are threads."""
        return self._run.pids

    @property
    def restarts(self) -> int:
        """How often a stage was started again."""
        return self._run.restarts

    @property
    def timeline(self) -> Timeline:
        """The last call or stream: its last micro-batches, and what was expected of them."""
        devices = [stage.device.name for stage in self.plan.stages]
        last = {span.micro_batch for span in self._run.flight.spans}
        shown = sorted(last)[-SHOWN:]
        spans = [span for span in list(self._run.flight.spans) if span.micro_batch in set(shown)]
        seconds = [stage.seconds for stage in self.plan.stages]
        predicted = predict_schedule(devices, seconds, len(shown), self.frames)
        return Timeline(Schedule.of(devices, spans), predicted)

    @property
    def report(self) -> PipelineReport:
        """How it was cut, and how the last call or stream went."""
        return PipelineReport.of(
            self.plan,
            self.engine,
            Schedule.of([s.device.name for s in self.plan.stages], list(self._run.flight.spans)),
            self._batches,
            self._run.restarts,
            self.frames,
        )

    def close(self) -> None:
        """End the stages; they finish the call they are in."""
        self._run.close()
        if self._owner is not None:
            self._owner.cleanup()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        devices = ", ".join(stage.device.name for stage in self.plan.stages)
        return f"Pipeline({self.plan.name} over {devices}; {self.engine})"


class _Batch:
    """A batch on its way: how many micro-batches it is, and their results so far."""

    def __init__(self, count: int, rows: int, exact: bool, as_torch: bool) -> None:
        self.count, self.rows, self.exact, self.as_torch = count, rows, exact, as_torch
        self.parts: list[list[np.ndarray]] = []

    def joined(self, signature: Signature) -> Any:
        return join(signature, self.parts, self.rows, exact=self.exact, as_torch=self.as_torch)


def load_pipeline(folder: str | Path, **options: Any) -> Pipeline:
    """The pipeline saved in ``folder``; ``options`` as for :class:`Pipeline`.

    Raises :class:`~burnish.compiler.errors.ArtifactError` for a missing or damaged one. It runs
    the libraries that are inside: load only what you trust.
    """
    path = Path(folder)
    return Pipeline(Plan.load(path), path, **options)


def check_engine(engine: str) -> None:
    """:class:`ConfigError` for an engine that is none."""
    if engine not in ENGINES:
        raise ConfigError(f"engine {engine!r} is unknown; known: {', '.join(ENGINES)}")


def check_running(engine: str, timeout_s: float, restarts: int, frames: int | None) -> None:
    """:class:`ConfigError` for settings with which no pipeline runs."""
    check_engine(engine)
    check_limit(timeout_s)
    for name, value, least in (("restarts", restarts, 0), ("frames", frames, 1)):
        if value is None and name == "frames":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{name} must be a whole number of {least} or more, got {value!r}")


def check_limit(timeout_s: float) -> None:
    """:class:`ConfigError` for a time that is no limit: each wait has an end."""
    number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
    if not number or not 0 < timeout_s < float("inf"):
        raise ConfigError(f"timeout_s must be more than 0 and an end, got {timeout_s!r}")


def _started(
    engine: str,
    plan: Plan,
    folder: Path,
    frames: int,
    timeout_s: float,
    restarts: int,
    address: str | None,
) -> Running:
    if engine == "threads":
        from burnish.compiler.pipelines.threads import Threads

        return Threads(plan, folder, frames, timeout_s)
    if engine == "processes":
        from burnish.compiler.pipelines.processes import Processes

        return Processes(plan, folder, frames, timeout_s, restarts)
    from burnish.compiler.pipelines.actors import Actors

    return Actors(plan, folder, frames, timeout_s, restarts, address)


def _arguments(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(batch, Mapping):
        return (), dict(batch)
    return (tuple(batch), {}) if isinstance(batch, tuple | list) else ((batch,), {})


__all__ = [
    "ENGINES",
    "Pipeline",
    "PipelineError",
    "check_limit",
    "check_running",
    "load_pipeline",
]
