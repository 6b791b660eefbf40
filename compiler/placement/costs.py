"""What operators cost on a device: measured once, kept, and looked up by signature."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm import relax

from burnish.compiler.artifact import cache_folder
from burnish.compiler.build import build_library
from burnish.compiler.cache_key import source_digest, versions
from burnish.compiler.errors import MeasureError, wrap_errors
from burnish.compiler.measure import MeasureService, describe_machine
from burnish.compiler.measure.cache import TimingCache
from burnish.compiler.measure.timing import summarize
from burnish.compiler.placement.operator_runner import OperatorRunner
from burnish.compiler.placement.operators import Operator
from burnish.targets.choose import Target
from burnish.targets.hetero import Place
from burnish.targets.remote.address import Address
from burnish.targets.remote.machine import machine_at
from burnish.targets.target import CpuTarget

NEAR, FAR = "cache", "memory"
TOGETHER = 12
"""Operators timed by one question to the worker, so that progress can be told."""
Progress = Callable[[int, int, str], object]
"""Steps done, steps in all, what is being done."""


@dataclass(frozen=True)
class OperatorTime:
    """Seconds of one call: with its weights in ``memory``, and in the last ``cache``.

    ``error`` is the share by which the time may be off: the quartile spread of the samples, or
    for one that was estimated from others, what such an estimate was off by among those known.
    """

    memory: float
    cache: float
    error: float
    estimated: bool = False

    def seconds(self, held: int, cache: int) -> float:
        """In a model of ``held`` bytes on a device whose last cache has ``cache`` bytes.

        What goes around in more than the cache finds nothing there (it is evicted just before
        it is used again); what fits well finds all. Between, in proportion.
        """
        if cache <= 0:
            return self.memory
        far = min(1.0, max(0.0, (held / cache - 0.5) / 0.5))
        return far * self.memory + (1 - far) * self.cache


class CostModel:
    """Operator times on this machine's devices, kept in ``cache_dir`` between runs.

    By default in the folder ``operators`` of Burnish's cache. With ``server``, of the machine
    there, whose device server times them; kept here, under what the server says of its machine.
    """

    def __init__(
        self,
        cache_dir: str | os.PathLike[str] | None = None,
        *,
        server: Address | None = None,
    ) -> None:
        self._folder = cache_dir
        self._cache = TimingCache(cache_dir or cache_folder() / "operators")
        self._server = server
        if server is None:
            self._cpu = str(describe_machine()["cpu"])
        else:
            with wrap_errors(MeasureError):
                self._cpu = machine_at(server).identity

    def of(self, place: Place) -> CostModel:
        """The costs of a device: its own, or where it is on another machine, those there."""
        if place.there is None or self._server is not None:
            return self
        return CostModel(self._folder, server=place.address)

    def known(self, operator: Operator, target: Target) -> OperatorTime | None:
        """The measured time, if there is one."""
        found = [self._cache.get(self._key(operator, target, ring)[0]) for ring in (FAR, NEAR)]
        if None in found:
            return None
        far, near = (timing for timing in found if timing is not None)
        spread = max(far.spread, near.spread)
        return OperatorTime(far.p50 / 1e3, near.p50 / 1e3, spread)

    def start_seconds(self) -> float:
        """What starting a kernel takes where a virtual machine does it."""
        from burnish.compiler.placement.overheads import dispatch_seconds

        return dispatch_seconds()

    def missing(self, operators: Iterable[Operator], target: Target) -> list[Operator]:
        """Those that have not been measured on this device."""
        distinct = {operator.signature: operator for operator in operators}
        return [each for each in distinct.values() if self.known(each, target) is None]

    def measure(
        self,
        operators: Iterable[Operator],
        target: Target,
        *,
        progress: Progress = lambda done, total, doing: None,
        timeout: float = 300.0,
    ) -> int:
        """Time those that are not known yet; how many there were.

        Each runs alone, in a process of its own, with the threads of ``target``. A time taken
        stays when the rest is broken off.
        """
        left = self.missing(operators, target)
        if not left:
            return 0
        threads = target.threads if isinstance(target, CpuTarget) else 1
        parts = [(at, min(at + TOGETHER, len(left))) for at in range(0, len(left), TOGETHER)]
        with tempfile.TemporaryDirectory(prefix="burnish-operators-") as folder:
            progress(0, len(left), f"building {len(left)} operators")
            runner = _built(left, target, Path(folder))
            if self._server is None:
                taken = _timed_here(runner, threads, parts, timeout)
            else:
                # It is built on the machinery of the compiler that places.
                from burnish.compiler.remote.costs import timed_there

                taken = timed_there(self._server, runner, threads, parts, timeout)
            with closing(taken):
                for first, last in parts:
                    progress(first, len(left), left[first].name)
                    self._keep(left[first:last], target, next(taken))
            progress(len(left), len(left), "done")
        return len(left)

    def _keep(self, operators: Sequence[Operator], target: Target, samples: Sequence[Any]) -> None:
        entries: dict[str, Any] = {}
        for operator, rings in zip(operators, samples, strict=True):
            for ring, taken in zip((FAR, NEAR), rings, strict=True):
                key, parts = self._key(operator, target, ring)
                timing = summarize([[1e3 * float(s) for s in taken]])
                entries[key] = {**parts, **_work(operator), "timing": timing.to_dict()}
        self._cache.put_all(entries)

    def _key(self, operator: Operator, target: Target, ring: str) -> tuple[str, dict[str, Any]]:
        parts = {
            "signature": operator.signature,
            "weights": ring,
            "target": dataclasses.asdict(target),
            "cpu": self._cpu,
            "sources": source_digest(("targets",)),
            "versions": versions(),
        }
        return TimingCache.key(**parts), parts

    def estimate(self, operator: Operator, target: Target) -> OperatorTime | None:
        """From operators of the same kind that were measured on this device: see :mod:`.nearby`.

        None where there is no such operator.
        """
        from burnish.compiler.placement.nearby import estimated

        parts = self._key(operator, target, FAR)[1]
        alike = ("target", "cpu", "sources", "versions")
        known = [
            entry
            for entry in self._cache.entries.values()
            if all(entry.get(name) == parts[name] for name in alike)
        ]
        return estimated(_work(operator), known)

    def times(
        self, operators: Iterable[Operator], target: Target
    ) -> tuple[dict[str, OperatorTime], list[Operator]]:
        """Measured times, else estimated ones, by signature; and operators that have neither."""
        found: dict[str, OperatorTime] = {}
        left = []
        for operator in operators:
            time = self.known(operator, target) or self.estimate(operator, target)
            if time is None:
                left.append(operator)
            else:
                found[operator.signature] = time
        return found, left


def _timed_here(
    runner: OperatorRunner, threads: int, parts: Sequence[tuple[int, int]], timeout: float
) -> Generator[Any]:
    with MeasureService(threads, timeout=timeout) as service:
        service.open({"operators": runner}, (0, 0))
        for part in parts:
            yield service.outputs("operators", part)


def _work(operator: Operator) -> dict[str, Any]:
    """What an operator does, as numbers by which others are like it."""
    record = operator.record()
    return {
        "operators": list(record.operators),
        "dtype": record.dtype,
        "flops": int(record.flops or 0),
        "elementwise": int(record.elementwise or 0),
        "transcendental": int(record.transcendental or 0),
        "bytes": sum(map(int, record.reads)) + int(record.written),
    }


def _built(operators: Sequence[Operator], target: Target, folder: Path) -> OperatorRunner:
    """The operators as one library, and how to time them."""
    names = [f"operator{place}" for place in range(len(operators))]
    builder = relax.BlockBuilder()
    given = relax.Var("x", relax.TensorType((1,), "float32"))
    with builder.function("main", [given], {"num_input": 1}):
        builder.emit_func_output(relax.Tuple([given]))
    functions: dict[Any, Any] = dict(builder.get().functions)
    for name, operator in zip(names, operators, strict=True):
        functions[tvm.ir.GlobalVar(name)] = operator.func.with_attr("global_symbol", name)
    built = build_library(tvm.IRModule(functions), target, folder)
    cache = target.l3 if isinstance(target, CpuTarget) else 0
    private = target.l2 * target.threads if isinstance(target, CpuTarget) else 0
    near = max(2 * private, min(cache // 4, 4 * private))
    return OperatorRunner(
        str(built.path),
        target.kind,
        tuple(names),
        tuple(operator.arguments for operator in operators),
        tuple(operator.weights for operator in operators),
        (2 * cache, near) if cache else (64 << 20, 1 << 20),
    )


__all__ = ["CostModel", "OperatorTime"]
