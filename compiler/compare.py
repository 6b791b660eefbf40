"""A compiled model beside its baseline: time, error, size, memory, accuracy, and what it cost."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from burnish.compiler.baseline import Baseline, find_baseline
from burnish.compiler.errors import MeasureError
from burnish.compiler.measure import ArtifactRunner, MeasureService, Timing, faster
from burnish.compiler.parity import Parity, parity, worst

SCHEMA = "burnish.comparison/1"
BASELINE, COMPILED = "baseline", "compiled"

Evaluate = Callable[[Callable[..., Any]], float]


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Latencies are of one call, in milliseconds; bytes are of the weights as stored and of the
    saved artifact; ``accuracy`` is the baseline's and the compiled model's, where it was
    evaluated; ``compile_s`` leaves tuning out, and is None for a saved artifact, which keeps no
    times.
    """

    baseline: str
    timings: Mapping[str, Timing]
    parity: Parity
    inputs: int
    params_bytes: int
    baseline_params_bytes: int | None
    artifact_bytes: int
    accuracy: tuple[float, float] | None
    compile_s: float | None
    tune_s: float
    passes: Sequence[Mapping[str, Any]] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def speedup(self) -> float:
        """Median time of the baseline over the compiled model's.

        Where either timing is noisy, the smaller of the ratios of medians and of best times: a
        busy machine can slow one runtime many times more than the other.
        """
        base, ours = self.timings[BASELINE], self.timings[COMPILED]
        medians, bests = base.p50 / ours.p50, base.best / ours.best
        return min(medians, bests) if base.noisy or ours.noisy else medians

    @property
    def verdict(self) -> str:
        """``faster``, ``slower``, or ``within noise``: only what the samples support."""
        found = faster(self.timings[COMPILED], self.timings[BASELINE])
        return {True: "faster", False: "slower", None: "within noise"}[found]

    @property
    def break_even(self) -> int | None:
        """Inferences after which compiling and tuning have paid; None when it is not faster,
        or where it is not known what they took."""
        saved_ms = (self.speedup - 1) * self.timings[COMPILED].p50
        if self.verdict != "faster" or saved_ms <= 0 or self.compile_s is None:
            return None
        return math.ceil((self.compile_s + self.tune_s) * 1e3 / saved_ms)

    def to_dict(self) -> dict[str, Any]:
        """Plain data. Times in ms or s as the keys say, sizes in bytes, throughput in calls/s."""
        accuracy = None
        if self.accuracy is not None:
            accuracy = dict(zip((BASELINE, COMPILED), self.accuracy, strict=True))
        latency: dict[str, Any] = {
            side: {**timing.to_dict(), "throughput": timing.per_second}
            for side, timing in self.timings.items()
        }
        return {
            "schema": SCHEMA,
            "baseline": self.baseline,
            "latency_ms": {**latency, "verdict": self.verdict},
            "speedup": self.speedup,
            "error": {**self.parity.to_dict(), "inputs": self.inputs},
            "bytes": {
                "params": self.params_bytes,
                "artifact": self.artifact_bytes,
                "params_baseline": self.baseline_params_bytes,
            },
            "peak_memory": {
                side: timing.peak_memory_bytes for side, timing in self.timings.items()
            },
            "accuracy": accuracy,
            "compile_s": self.compile_s,
            "tune_s": self.tune_s,
            "break_even": self.break_even,
            "passes": [dict(row) for row in self.passes],
            "machine": dict(self.machine),
        }

    def labelled(self, model: str, variant: str) -> dict[str, Any]:
        """:meth:`to_dict` with the two labels by which reports of several models sort."""
        return {"model": model, "variant": variant, **self.to_dict()}

    def table(self) -> None:
        """Print the comparison, and the passes' waterfall, as tables."""
        from burnish.compiler.report import print_comparison

        print_comparison(self.to_dict())

    def save(self, path: str | Path) -> None:
        """Write a report: JSON for ``.json``, a self-contained page for ``.html``."""
        from burnish.compiler.report import write_report

        write_report(path, [self.to_dict()])


def compare(
    model: Any,
    compiled: Any,
    inputs: Any,
    evaluate: Evaluate | None = None,
    *,
    baseline: Any = None,
    rounds: int | None = None,
    threads: int | None = None,
    budget_s: float = 20.0,
    timeout: float = 300.0,
) -> Comparison:
    """Set ``compiled`` beside its baseline: the runtime that ``model`` is from
    (:func:`~burnish.compiler.baseline.find_baseline`).

    ``inputs`` is one tuple of inputs, or a list of tuples: the first is timed, all are compared.
    ``baseline`` replaces the model as baseline (the PyTorch model of an ONNX file, a
    :class:`~burnish.compiler.measure.Runner` of another runtime). Each side runs in a process of
    its own with ``threads`` threads (the compiled model's own setting by default) and they
    take turns for ``rounds`` rounds or ``budget_s`` seconds. ``evaluate(fn) -> float`` is called
    twice in this process, with the baseline's and the compiled model's function.

    Raises MeasureError when a side fails, dies or exceeds ``timeout`` seconds for one answer,
    ParityError when the outputs differ in structure or shape.
    """
    many = input_tuples(inputs)
    base = find_baseline(model if baseline is None else baseline)
    threads = threads or getattr(compiled.target, "threads", None)
    with ExitStack() as stack:
        path = _saved(compiled, stack)
        service = stack.enter_context(MeasureService(threads, timeout=timeout))
        runners = {BASELINE: base.runner, COMPILED: ArtifactRunner(str(path))}
        service.open(runners, many[0])
        error = worst(
            parity(service.outputs(COMPILED, one), service.outputs(BASELINE, one)) for one in many
        )
        timings = service.take_turns(runners, many[0], rounds=rounds, budget_s=budget_s)
        accuracy = _accuracy(evaluate, base, compiled, service) if evaluate else None
        seconds = dict(compiled.report.seconds)
        return Comparison(
            baseline=base.name,
            timings=timings,
            parity=error,
            inputs=len(many),
            params_bytes=int(compiled.params_bytes),
            baseline_params_bytes=base.params_bytes,
            artifact_bytes=path.stat().st_size,
            accuracy=accuracy,
            compile_s=sum(s for stage, s in seconds.items() if stage != "tune")
            if seconds
            else None,
            tune_s=seconds.get("tune", 0.0),
            passes=compiled.report.to_dict()["rows"],
            machine=service.machine(),
        )


def input_tuples(inputs: Any) -> list[tuple[Any, ...]]:
    """One tuple of inputs, or a list of tuples, as a list of tuples.

    A lone array is a tuple of one. MeasureError when there are none.
    """
    if isinstance(inputs, list) and all(isinstance(one, tuple | list) for one in inputs):
        many = [tuple(one) for one in inputs]
    elif isinstance(inputs, tuple | list):
        many = [tuple(inputs)]
    else:
        many = [(inputs,)]
    if not many:
        raise MeasureError("no inputs were given: expected a tuple of inputs, or a list of tuples")
    return many


def _saved(compiled: Any, stack: ExitStack) -> Path:
    known = compiled.path
    if known is not None and Path(known).is_file():
        return Path(known)
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="burnish-compare-"))
    path = Path(folder) / "compiled.burnish"
    compiled.save(path)
    compiled.path = known  # the temporary file goes with this comparison
    return path


def _accuracy(
    evaluate: Evaluate, base: Baseline, compiled: Any, service: MeasureService
) -> tuple[float, float]:
    with base.callable(service.threads) as function:
        if function is None:

            def function(*inputs: Any) -> Any:
                return service.outputs(BASELINE, inputs)

        of_baseline = float(evaluate(function))
    return of_baseline, float(evaluate(compiled))
