"""Models beside peers: each runtime in a process of its own, taking turns, also timed alone.

Rules of a row:

1. Every runtime has the same cores and threads, and a process of its own; a turn waits until the
   pools of the others sleep.
2. Rounds in which other processes used the machine are taken again (``measure.turns``).
3. A row is void, and is measured again, where a runtime's best time taking turns is over 5 %
   worse than its time alone; after ``ATTEMPTS`` the attempt with the fewest such runtimes stays,
   and names them.
4. A runtime that fails, or whose outputs are further from eager's than ``TOLERANCE``, has no time
   and says why; the others are measured.
"""

from __future__ import annotations

import datetime
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from burnish.compiler import driver
from burnish.compiler.bench.options import Case, Options
from burnish.compiler.bench.peaks import Peaks, keep_peaks, measure_peaks
from burnish.compiler.bench.peers import Peer, Subject, find_peers
from burnish.compiler.bench.result import OURS, BenchResult, Row, merged
from burnish.compiler.bench.work import count_work
from burnish.compiler.config import CompileConfig
from burnish.compiler.errors import BurnishError, ConfigError, MeasureError
from burnish.compiler.measure import (
    ArtifactRunner,
    MeasureService,
    Runner,
    Timing,
    describe_machine,
)
from burnish.compiler.measure.runners import evaluating
from burnish.compiler.measure.turns import ALONE_LIMIT
from burnish.compiler.parity import leaves, parity
from burnish.compiler.tune import Progress
from burnish.targets.target import host, host_threads

ATTEMPTS = 3
TOLERANCE = 0.05
"""max|y - eager| / max|eager| above which a runtime computes something else: narrow floats pass."""

PEER_TIMEOUT_S = 1800.0
"""Seconds one answer may take: max-autotune builds and times many kernels before the first."""


def bench(
    cases: Sequence[Case],
    peers: Sequence[str] | None = None,
    options: Options | None = None,
    *,
    progress: Progress | None = None,
    resumed: BenchResult | None = None,
    on_row: Callable[[BenchResult], None] | None = None,
) -> BenchResult:
    """Measure every case in burnish and in the ``peers`` (all by default).

    Ctrl-C ends it early: what has been measured is returned, ``complete`` false. ``resumed`` is
    an earlier result whose rows are kept, their cases not measured again. ``on_row`` gets the
    result so far after each row. ``progress`` is called with steps done, steps in all, seconds
    left and a message.

    Raises ConfigError for no case, unknown peers, fewer rounds than 1, or a result to resume that
    was taken with other threads or peers; MeasureError where the peaks cannot be measured.
    """
    options = options or Options()
    chosen = find_peers(peers)
    threads = options.threads or options.config.threads or host_threads()
    _check(cases, resumed, threads, chosen)
    before = resumed.rows if resumed else ()
    left = [case for case in cases if case.name not in {row.name for row in before}]
    steps = _Steps(len(left) * (len(chosen) + 4) + 1, progress)
    run = _Run(options, threads, chosen, steps, resumed)
    rows: list[Row] = []
    result = None
    interrupted = False
    try:
        steps.next("the machine's peaks")
        result = run.result((), before)
        for case in left:
            rows.append(run.row(case))
            result = run.result(rows, before, complete=case is left[-1])
            if on_row is not None:
                on_row(result)
    except KeyboardInterrupt:
        if result is None:
            raise
        interrupted = True
    return run.result(rows, before, complete=not interrupted)


def _check(
    cases: Sequence[Case], resumed: BenchResult | None, threads: int, peers: Sequence[Peer]
) -> None:
    if not cases:
        raise ConfigError("nothing to measure: no model was given")
    if resumed is None:
        return
    names = tuple(peer.name for peer in peers)
    if resumed.peers != names:
        raise ConfigError(
            f"the result to resume has the peers {', '.join(resumed.peers)}, not {', '.join(names)}"
        )
    if resumed.peaks.threads != threads:
        raise ConfigError(
            f"the result to resume was taken with {resumed.peaks.threads} threads, not {threads}"
        )


class _Steps:
    """Progress as the benchmark goes: steps of unequal length, the time left by their mean."""

    def __init__(self, total: int, report: Progress | None) -> None:
        self.total, self.report, self.done = total, report, 0
        self.start = time.monotonic()

    def next(self, message: str) -> None:
        if self.report is not None:
            spent = time.monotonic() - self.start
            left = spent / self.done * (self.total - self.done) if self.done else 0.0
            self.report(self.done, self.total, left, message)
        self.done += 1

    def skip_to(self, done: int) -> None:
        self.done = done


class _Run:
    """One benchmark: the machine's peaks, and a row for each case."""

    def __init__(
        self,
        options: Options,
        threads: int,
        peers: Sequence[Peer],
        steps: _Steps,
        resumed: BenchResult | None = None,
    ) -> None:
        self.options, self.threads, self.peers, self.steps = options, threads, peers, steps
        self.resumed = resumed
        self._peaks: tuple[Peaks, Peaks] | None = None

    def result(
        self, rows: Sequence[Row], before: Sequence[Row], complete: bool = False
    ) -> BenchResult:
        peaks, one = self._measured_peaks()
        return BenchResult(
            rows=merged(before, rows),
            peers=tuple(peer.name for peer in self.peers),
            peaks=peaks,
            one=one,
            machine=_machine(self.threads),
            settings={"rounds": self.options.rounds, "recipe": self.options.config.to_toml()},
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            complete=complete,
        )

    def _measured_peaks(self) -> tuple[Peaks, Peaks]:
        if self._peaks is None:
            seconds = self.options.peak_seconds
            with self.options.quiet():
                one = measure_peaks(1, seconds)
                every = measure_peaks(self.threads, seconds) if self.threads > 1 else one
            keep_peaks(one)
            keep_peaks(every)
            if self.resumed is not None:
                one, every = one.best_of(self.resumed.one), every.best_of(self.resumed.peaks)
            self._peaks = every, one
        return self._peaks

    def row(self, case: Case) -> Row:
        """Load, compile and time one case (rules 1 to 4)."""
        import torch

        first = self.steps.done
        torch.set_num_threads(self.threads)
        self.steps.next(f"{case.name}: loading")
        model, inputs = case.load()
        with _as_module(model) as module:
            work = count_work(module, inputs)
            with torch.inference_mode():
                reference = module(*inputs)
        failures: dict[str, str] = {}
        with (
            tempfile.TemporaryDirectory(prefix="burnish-bench-") as folder,
            MeasureService(self.threads, timeout=PEER_TIMEOUT_S) as service,
        ):
            self.steps.next(f"{case.name}: compiling")
            runners, compile_s = self._runners(model, inputs, Path(folder), failures)
            errors: dict[str, float] = {}
            ready: dict[str, Runner] = {}
            for name, make in runners.items():
                self.steps.next(f"{case.name}: {name}")
                try:
                    runner = make()
                    service.open({name: runner}, inputs)
                    errors[name] = _error(service.outputs(name, inputs), reference)
                except BurnishError as error:
                    failures[name] = _first_line(error)
                else:
                    ready[name] = runner
            self.steps.skip_to(first + 3 + len(self.peers))
            self.steps.next(f"{case.name}: timing")
            times, void, attempts = self._timed(service, ready, inputs)
        return Row(
            **{key: getattr(case, key) for key in ("name", "title", "group", "kind")},
            work=work,
            times=times,
            errors=errors,
            failures=failures,
            void=void,
            attempts=attempts,
            compile_s=compile_s,
        )

    def _runners(
        self, model: Any, inputs: Sequence[Any], folder: Path, failures: dict[str, str]
    ) -> tuple[dict[str, Callable[[], Runner]], float]:
        """How to make each runtime's runner, ours first; our failure is noted."""
        subject = Subject(model, inputs, folder)
        runners: dict[str, Callable[[], Runner]] = {}
        start = time.perf_counter()
        try:
            path = folder / "model.burnish"
            compiled = driver.compile(model, tuple(inputs), config=self._config(), cache=False)
            seconds = time.perf_counter() - start
            compiled.save(path)
            runners[OURS] = lambda: ArtifactRunner(str(path))
        except BurnishError as error:
            seconds = 0.0
            failures[OURS] = _first_line(error)
        for peer in self.peers:
            runners[peer.name] = lambda peer=peer: peer.runner(subject)  # type: ignore[misc]
        return runners, seconds

    def _config(self) -> CompileConfig:
        return self.options.config.overridden(threads=self.threads)

    def _timed(
        self, service: MeasureService, runners: Mapping[str, Runner], inputs: Sequence[Any]
    ) -> tuple[dict[str, Timing], tuple[str, ...], int]:
        """Times, what stayed void (rule 3), and the attempts it took."""
        if not runners:
            return {}, (), 0
        found = []
        for _ in range(ATTEMPTS):
            with self.options.quiet():
                times = service.take_turns(
                    runners,
                    inputs,
                    rounds=self.options.rounds,
                    budget_s=self.options.budget_s,
                )
            void = tuple(n for n, t in times.items() if t.best > ALONE_LIMIT * t.alone_ms)
            found.append((times, void))
            if not void:
                break
        times, void = min(found, key=lambda attempt: len(attempt[1]))
        return times, void, len(found)


def _machine(threads: int) -> dict[str, Any]:
    cpu = host()
    caches = {"l1": cpu.l1, "l2": cpu.l2, "l3": cpu.l3}
    return {**describe_machine(threads), "caches": caches, "lanes": cpu.lanes}


@contextmanager
def _as_module(model: Any) -> Iterator[Any]:
    """The model as a module that can be called, in eval mode; ConfigError where there is none."""
    import torch

    if isinstance(model, torch.export.ExportedProgram):
        yield model.module()
    elif isinstance(model, torch.nn.Module):
        with evaluating(model):
            yield model
    else:
        raise ConfigError(
            f"the benchmark needs a torch model, for eager is a peer; got a {type(model).__name__}"
        )


def _error(outputs: Any, reference: Any) -> float:
    """max|y - eager| / max|eager| over the outputs, in order; MeasureError above TOLERANCE."""
    found, expected = _flat(outputs), _flat(reference)
    worst = parity(found, expected).rel
    if not worst <= TOLERANCE:
        raise MeasureError(f"its outputs are {worst:.2g} from eager's, over max|eager|")
    return worst


def _flat(tree: Any) -> tuple[Any, ...]:
    return tuple(value for _, value in leaves(tree))


def _first_line(error: BurnishError) -> str:
    """The first line, with the next where it only announces one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = lines[:2] if lines and lines[0].endswith(":") else lines[:1]
    return " ".join(told)[:300] or type(error).__name__
