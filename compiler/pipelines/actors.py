"""Stages as Ray actors: on this machine, or on the nodes of a cluster.

Values go from actor to actor through Ray's object store (shared memory on a node, copied once
between nodes); the caller holds references only. Ray starts an actor that died again and runs its
unfinished calls again; the artifact itself lies in the object store.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from burnish.compiler.errors import ConfigError
from burnish.compiler.pipelines.actor_stage import ActorStage
from burnish.compiler.pipelines.flight import KEPT_SPANS, PipelineError
from burnish.compiler.pipelines.plan import Plan
from burnish.compiler.pipelines.timeline import Span

START_S = 180.0
CONNECT_S = 10.0


class RayFlight:
    """What :class:`~burnish.compiler.pipelines.flight.Flight` is to the frames, for references."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self.held: deque[tuple[int, list[Any], list[Any]]] = deque()
        self.error: BaseException | None = None
        self.spans: deque[Span] = deque(maxlen=KEPT_SPANS)

    @property
    def pending(self) -> int:
        """Micro-batches that were submitted and not taken."""
        return len(self.held)

    @property
    def room(self) -> bool:
        """Whether a micro-batch can be submitted without a wait."""
        return len(self.held) < self._frames


class Actors:
    """One actor a stage, spread over the nodes, each with as many CPUs as its device has cores."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        frames: int,
        timeout_s: float,
        restarts: int,
        address: str | None,
    ) -> None:
        self._ray = ray = _ray()
        self.plan, self.timeout_s = plan, timeout_s
        self.flight = RayFlight(frames)
        self._numbers = itertools.count()
        self._mine = not ray.is_initialized()
        if self._mine:
            _connect(ray, address, sum(stage.device.threads for stage in plan.stages))
        self._actors: list[Any] = []
        self._artifacts: list[Any] = []
        try:
            for number in range(len(plan.stages)):
                self._actors.append(self._started(number, folder, restarts))
            self._pids = self._get([a.about.remote() for a in self._actors], START_S, "start")
        except BaseException:
            self.close()
            raise

    def _started(self, number: int, folder: Path, restarts: int) -> Any:
        ray, stage = self._ray, self.plan.stages[number]
        actor = ray.remote(ActorStage).options(
            num_cpus=stage.device.threads,
            max_restarts=restarts,
            max_task_retries=restarts,
            scheduling_strategy="SPREAD",
            name=f"burnish-{os.getpid()}-{id(self):x}-stage{number}",
        )
        values = {name: self.plan.values[name] for name in (*stage.takes, *stage.gives)}
        artifact = ray.put((folder / stage.artifact).read_bytes())
        self._artifacts.append(artifact)  # an actor that is started again reads it again
        return actor.remote([artifact], stage.takes, stage.gives, values, stage.device, START_S)

    @property
    def pids(self) -> list[int]:
        """The actors' processes as they are now, each on its node."""
        self._pids = self._get([a.about.remote() for a in self._actors], START_S, "answer")
        return [pid for pid, _, _ in self._pids]

    @property
    def nodes(self) -> list[str]:
        """The node of each stage."""
        return [node for _, node, _ in self._pids]

    @property
    def restarts(self) -> int:
        """How often Ray started a stage again."""
        found = self._get([a.about.remote() for a in self._actors], START_S, "answer")
        return sum(int(born) for _, _, born in found)

    def submit(self, arrays: Sequence[np.ndarray]) -> int:
        """Start a micro-batch on its way; there must be room."""
        if self.flight.error is not None:
            raise self.flight.error
        number = next(self._numbers)
        known = {
            name: self._ray.put(np.array(array, copy=True))
            for name, array in zip(self.plan.inputs, arrays, strict=True)
        }
        times = []
        for stage, actor in zip(self.plan.stages, self._actors, strict=True):
            run = actor.run.options(num_returns=len(stage.gives) + 1)
            *given, took = run.remote(*(known[name] for name in stage.takes))
            known.update(zip(stage.gives, given, strict=True))
            times.append(took)
        self.flight.held.append((number, [known[name] for name in self.plan.results], times))
        return number

    def take(self) -> list[np.ndarray]:
        """The results of the oldest micro-batch."""
        if self.flight.error is not None:
            raise self.flight.error
        number, results, times = self.flight.held[0]
        limit = self.timeout_s * len(self._actors)
        arrays = self._get(results, limit, f"finish micro-batch {number}")
        spans = self._get(times, limit, f"finish micro-batch {number}")
        self.flight.held.popleft()
        self.flight.spans.extend(Span(s, number, *span) for s, span in enumerate(spans))
        return [array.copy() for array in arrays]

    def _get(self, references: Sequence[Any], limit_s: float, doing: str) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(list(references), timeout=limit_s)
        except errors.GetTimeoutError:
            error = PipelineError(f"the stages did not {doing} within {limit_s:g} s{self._room()}")
        except errors.RayActorError as lost:
            error = PipelineError(
                f"a stage died and was not to be started again, so it did not {doing}: {lost}"
            )
        except errors.RayTaskError as failed:
            error = PipelineError(f"a stage failed, so it did not {doing}: {failed.cause}")
        except errors.RayError as other:
            error = PipelineError(f"Ray could not {doing}: {other}")
        self.flight.error = error
        raise error

    def _room(self) -> str:
        """What the stages want beside what the cluster has, where that is too little."""
        wanted = sum(stage.device.threads for stage in self.plan.stages)
        have = self._ray.cluster_resources().get("CPU", 0)
        return f": they want {wanted} CPUs, and the cluster has {have:g}" if have < wanted else ""

    def close(self) -> None:
        """End the actors, and Ray if it was started here."""
        if self.flight.error is None:
            self.flight.error = PipelineError("the pipeline is closed")
        self.flight.held.clear()
        actors, self._actors = self._actors, []
        for actor in actors:
            self._ray.kill(actor)
        if self._mine and self._ray.is_initialized():
            self._ray.shutdown()
            self._mine = False


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "engine='ray' needs Ray: pip install 'burnish[ray]', on every node of the cluster"
        ) from error
    return ray


def _connect(ray: Any, address: str | None, cpus: int) -> None:
    """The cluster at ``address``, or one node of this machine started for this process."""
    # Failures come as exceptions; what it logs beside is that an actor started again reads its
    # artifact again, which is kept for that.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    try:
        if address is not None:
            _check_reachable(address)
            ray.init(address=address, **options)
        else:
            count = max(cpus, os.cpu_count() or 1)
            ray.init(num_cpus=count, include_dashboard=False, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"no Ray cluster at {address!r}: {error}") from error


def _check_reachable(address: str) -> None:
    """``OSError`` where nothing answers there: Ray itself waits for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        with socket.create_connection((host, int(port)), timeout=CONNECT_S):
            pass
