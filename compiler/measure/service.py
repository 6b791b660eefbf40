"""The one measuring service: isolated processes, equal threads, turns, honest noise."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from burnish.compiler.errors import MeasureError
from burnish.compiler.measure.cache import TimingCache
from burnish.compiler.measure.load import LoadMeter
from burnish.compiler.measure.machine import cores, describe_machine
from burnish.compiler.measure.process import RemoteError, Worker
from burnish.compiler.measure.runners import Runner
from burnish.compiler.measure.timing import Timing
from burnish.compiler.measure.turns import Turn, take_rounds, timing_of

ROUNDS = 15
HOSTED_LIMIT = 4
"""Runners that stay loaded in a shared process: enough for before and after, twice."""


@dataclass(frozen=True)
class Loaded:
    """A runner loaded in a worker under ``key``."""

    worker: Worker
    key: str
    runner: Runner
    load_s: float
    note: str


class MeasureService:
    """Times models and kernels in processes of their own, with ``threads`` threads each.

    A context manager: its processes end with it. ``timeout`` is the most seconds any one answer
    (loading, the first call, one turn) may take. A process that dies or hangs is ended, the
    error names it, and the next use starts a fresh one.
    """

    def __init__(
        self,
        threads: int | None = None,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        timeout: float = 300.0,
    ) -> None:
        if threads is not None and threads < 1:
            raise MeasureError(f"threads is {threads}; it must be 1 or more")
        self.threads = threads or cores()
        self.timeout = timeout
        self.cache = TimingCache(cache_dir)
        self._folder = tempfile.TemporaryDirectory(prefix="burnish-measure-")
        self._workers: dict[str, Worker] = {}
        self._loaded: dict[tuple[str, Hashable], Loaded] = {}
        self._named: dict[str, Loaded] = {}
        self._count = 0

    def __enter__(self) -> MeasureService:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process and remove temporary files."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()
        self._loaded.clear()
        self._named.clear()
        self._folder.cleanup()

    def machine(self) -> dict[str, Any]:
        """The machine, its load, versions, and the threads each runtime gets."""
        return describe_machine(self.threads)

    def take_turns(
        self,
        runners: Mapping[str, Runner],
        inputs: Sequence[Any],
        *,
        rounds: int | None = None,
        budget_s: float = 20.0,
        share_process: bool = False,
        retries: int = 2,
    ) -> dict[str, Timing]:
        """Time the runners on the same inputs, in rounds in which each has one turn.

        Each runner has its own process, or with ``share_process`` all have one (variants of one
        model; they must be of one runtime, since two thread pools in a process disturb each
        other). ``rounds`` is 15 by default; ``budget_s`` bounds the rounds, loading apart, and
        ends them early, never before the third. Rounds during which other processes used the
        machine are taken again, up to ``retries`` times as many. The processes stay loaded until
        the service ends, and a runner given again is not loaded again.

        Raises MeasureError naming the runner that failed, died or ran out of time.
        """
        if not runners:
            raise MeasureError("nothing to time: no runners were given")
        if rounds is not None and rounds < 1:
            raise MeasureError(f"rounds is {rounds}; it must be 1 or more")
        runtimes = sorted({runner.runtime for runner in runners.values()})
        if share_process and len(runtimes) > 1:
            raise MeasureError(
                f"runners of {' and '.join(runtimes)} cannot share a process: their thread pools "
                "disturb each other"
            )
        loaded = self.open(runners, inputs, share_process=share_process)
        turns = [self._turn(name, loaded[name], inputs) for name in runners]
        meter = LoadMeter({turn.pid for turn in turns})
        take_rounds(turns, rounds=rounds or ROUNDS, budget_s=budget_s, retries=retries)
        load = meter.others()
        return {turn.name: self._timing(turn, load, share_process) for turn in turns}

    def _turn(self, name: str, loaded: Loaded, inputs: Sequence[Any]) -> Turn:
        first, best = self._ask(loaded, "bind", tuple(inputs), doing=f"first running {name!r}")
        facts = {"load_s": loaded.load_s, "first_ms": first * 1e3, "note": loaded.note}
        sample = partial(self._ask, loaded, "time", doing=f"timing {name!r}")
        return Turn(name, loaded.worker.pid, sample, best, facts)

    def _timing(self, turn: Turn, load: float, shared: bool) -> Timing:
        timing = timing_of(turn, load)
        if shared:
            return timing
        peak = self._ask(self._named[turn.name], "peak", doing=f"reading {turn.name!r}'s memory")
        return replace(timing, peak_memory_bytes=peak or None)

    def _ask(self, loaded: Loaded, verb: str, *arguments: Any, doing: str) -> Any:
        return loaded.worker.ask(verb, loaded.key, *arguments, timeout=self.timeout, doing=doing)

    def open(
        self, runners: Mapping[str, Runner], inputs: Sequence[Any], *, share_process: bool = False
    ) -> dict[str, Loaded]:
        """Load runners under their names, without timing them.

        ``inputs`` serve those that must export their model. What is loaded already stays.
        """
        places = {
            name: f"shared {runner.runtime}" if share_process else f"own {name}"
            for name, runner in runners.items()
        }
        keys = {name: (places[name], runner.identity()) for name, runner in runners.items()}
        missing = [name for name, key in keys.items() if not self._lives(key)]
        for name in missing:
            self._start(places[name], runners[name], fresh=not share_process)
        for name, key in keys.items():
            found = self._loaded.pop(key, None)
            if found is None or not self._lives_in(found):
                self._evict(places[name], max(HOSTED_LIMIT, len(runners)))
                found = self._load(places[name], name, runners[name], inputs)
            self._loaded[key] = self._named[name] = found
        return {name: self._named[name] for name in runners}

    def _lives(self, key: tuple[str, Hashable]) -> bool:
        found = self._loaded.get(key)
        return found is not None and self._lives_in(found)

    def _lives_in(self, loaded: Loaded) -> bool:
        return loaded.worker.alive and loaded.worker in self._workers.values()

    def _start(self, place: str, runner: Runner, *, fresh: bool) -> None:
        worker = self._workers.get(place)
        if worker is not None and (fresh or not worker.alive):
            self._end(place)
        if place not in self._workers:
            name = f"the {runner.runtime} process"
            self._workers[place] = Worker(name, self.threads, runner.imports)

    def _load(self, place: str, name: str, runner: Runner, inputs: Sequence[Any]) -> Loaded:
        import cloudpickle

        worker = self._workers[place]
        self._count += 1
        label = f"{self._count}"
        refused: RemoteError | None = None
        with tempfile.TemporaryDirectory(dir=self._folder.name) as folder:
            for packed in runner.packings(Path(folder), inputs):
                payload = cloudpickle.dumps(packed)
                doing = f"loading {name!r}"
                try:
                    load_s = worker.ask("open", label, payload, timeout=self.timeout, doing=doing)
                except RemoteError as error:
                    refused = error
                    continue
                return Loaded(worker, label, runner, load_s, packed.note)
        if refused is None:
            raise MeasureError(f"{name!r} offers no way to reach its process")
        raise refused

    def _evict(self, place: str, limit: int) -> None:
        keys = [key for key in self._loaded if key[0] == place]
        for key in keys[: max(0, len(keys) + 1 - limit)]:
            loaded = self._loaded.pop(key)
            self._named = {k: v for k, v in self._named.items() if v is not loaded}
            self._ask(loaded, "close", doing="making room")

    def _end(self, place: str) -> None:
        worker = self._workers.pop(place)
        worker.close()
        self._loaded = {k: v for k, v in self._loaded.items() if v.worker is not worker}
        self._named = {k: v for k, v in self._named.items() if v.worker is not worker}

    def outputs(self, name: str, inputs: Sequence[Any]) -> Any:
        """The outputs of a runner opened or timed before under ``name``.

        Plain containers with NumPy leaves; bfloat16 arrives as float32.
        """
        loaded = self._named.get(name)
        if loaded is None:
            known = ", ".join(sorted(self._named)) or "none"
            raise MeasureError(f"no runner is loaded as {name!r} (loaded: {known})")
        return self._ask(loaded, "call", tuple(inputs), doing=f"running {name!r}")

    def time_kernel(
        self,
        runner: Runner,
        *,
        signature: str,
        target: str,
        rounds: int = 5,
        budget_s: float = 1.0,
    ) -> Timing:
        """The timing of a kernel, from the cache where it was taken before.

        ``signature`` must tell apart all that is to be told apart: operator, shapes, dtypes, and
        the schedule. The key adds ``target``, the threads, and the CPU model. Noisy timings are
        not kept.
        """
        parts = {
            "signature": signature,
            "target": target,
            "threads": self.threads,
            "cpu": describe_machine()["cpu"],
        }
        key = TimingCache.key(**parts)
        cached = self.cache.get(key)
        if cached is not None:
            return cached
        timing = self.take_turns(
            {signature: runner}, (), rounds=rounds, budget_s=budget_s, share_process=True
        )[signature]
        self._named.pop(signature, None)
        if not timing.noisy:
            self.cache.put(key, timing, **parts)
        return timing
