"""Taking a profile: a process of its own, calls in turns with and without an instrument."""

from __future__ import annotations

import datetime
import json
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from burnish.compiler.bench.peaks import Peaks, known_peaks
from burnish.compiler.compiled import Compiled
from burnish.compiler.errors import ConfigError, TargetError
from burnish.compiler.measure import MeasureService, describe_machine
from burnish.compiler.measure.load import LoadMeter
from burnish.compiler.profile.kernel import MOVES, Kernel, external, move
from burnish.compiler.profile.recorder import BUILTIN
from burnish.compiler.profile.result import Line, Profile, limit_of
from burnish.compiler.profile.runner import ProfileRunner
from burnish.passes.module_paths import module_paths
from burnish.targets.hetero import HeteroTarget
from burnish.targets.target import CpuTarget

NAME = "profile"


def profile(
    compiled: Compiled,
    inputs: Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    name: str = "model",
    threads: int | None = None,
    rounds: int = 15,
    budget_s: float = 20.0,
    peaks: Peaks | None = None,
) -> Profile:
    """Where the time of ``compiled(*inputs)`` goes, kernel by kernel.

    ``inputs`` are the example inputs it was compiled with by default. It runs in a process of its
    own, with ``threads`` threads (those it was built for by default), in ``rounds`` rounds that
    end early, never before the third, after ``budget_s`` seconds. ``peaks`` are the machine's,
    measured once and kept by default.

    Of a model over several devices each kernel says in which memory it works, and moves between
    memories are lines of their own.

    Raises TargetError for a model of one device that is no CPU, and for one whose devices work at
    the same time, ConfigError where there are no inputs or kernel records, MeasureError where
    there is no C compiler or the calls fail.
    """
    target = compiled.target
    several = isinstance(target, HeteroTarget)
    if isinstance(target, HeteroTarget) and target.concurrent:
        raise TargetError(
            f"the devices of {target.name!r} work at the same time, so that times of kernels add "
            "up to no call: profile the model built for 'cpu', or time it with compare",
            stage="profile",
        )
    if not several and not isinstance(target, CpuTarget):
        raise TargetError(
            f"a profile of one device is of kernels on the CPU, and the model is built for "
            f"{target.name!r}: profile it built for 'hetero:{target.kind}:0', or for 'cpu', or "
            "time it with compare",
            stage="profile",
        )
    why = target.why_not_here()
    if why:
        raise TargetError(f"a profile runs the model here, and {why}", stage="profile")
    given = _inputs(compiled, inputs)
    if not compiled.kernels:
        raise ConfigError("the model has no kernel records: compile it again with this version")
    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}; it must be 1 or more")
    count = threads or compiled.target.threads
    limits = peaks or known_peaks(count)
    with (
        tempfile.TemporaryDirectory(prefix="burnish-profile-") as folder,
        MeasureService(count) as service,
    ):
        path = _saved(compiled, Path(folder))
        runner = ProfileRunner(path, rounds=rounds, budget_s=budget_s)
        loaded = service.open({NAME: runner}, given)[NAME]
        meter = LoadMeter({loaded.worker.pid})
        found = service.outputs(NAME, given)
        load = meter.others()
    events = json.loads(found["events"].tobytes())
    stamps = np.asarray(found["stamps"])
    whole = np.asarray(found["whole"])
    spent = (stamps[:, :, 1] - stamps[:, :, 0]) / 1e6
    builtin = np.asarray([event[0].startswith(BUILTIN) for event in events], bool)
    leaves = np.asarray([not event[4] for event in events], bool)
    middle = _middle_half(spent[:, leaves].sum(axis=1))
    lines = _lines(compiled.kernels, events, spent, middle, limits, several)
    return Profile(
        model=name,
        calls=tuple(lines),
        whole_ms=float(np.median(whole)),
        whole_best_ms=float(whole.min()),
        machine_ms=float(spent[middle][:, builtin].sum(axis=1).mean()),
        io_bytes=_weight_bytes(compiled, events) + int(found["io_bytes"]),
        peaks=limits,
        machine=describe_machine(count),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        runs=len(stamps),
        other_load=load,
    )


def _inputs(compiled: Compiled, inputs: Any) -> tuple[Any, ...]:
    given = compiled.source.example_inputs if inputs is None else inputs
    if isinstance(given, Mapping):
        given = tuple(given[name] for name, _ in compiled.signature.arguments)
    if not given and compiled.signature.inputs:
        raise ConfigError("nothing to call the model with: give inputs")
    return tuple(given)


def _saved(compiled: Compiled, folder: Path) -> Path:
    if compiled.path is not None and compiled.path.is_file():
        return compiled.path
    kept = compiled.path
    path = compiled.save(folder / "model.burnish")
    compiled.path = kept
    return path


def _middle_half(spans: np.ndarray) -> np.ndarray:
    """Runs between the quartiles: their mean is as robust as a median, and it adds up."""
    order = np.argsort(spans)
    quarter = len(order) // 4
    return order[quarter : len(order) - quarter]


def _lines(
    kernels: Mapping[str, Kernel],
    events: Sequence[Any],
    spent: np.ndarray,
    middle: np.ndarray,
    peaks: Peaks,
    several: bool,
) -> Iterable[Line]:
    places = [
        place
        for place, (name, *_, inner) in enumerate(events)
        if not name.startswith(BUILTIN) and not inner
    ]
    paths = module_paths([_named(events[place]) for place in places])
    for place, path in zip(places, paths, strict=True):
        name, arguments, _, device, _ = events[place]
        kernel = kernels.get(name)
        if kernel is None:
            kernel = move(name, arguments) if " to " in name else external(name, arguments)
        work = kernel.work(arguments)
        limit, bound = limit_of(work, kernel.dtype, peaks)
        if several and (not device.startswith("cpu") or kernel.rule == MOVES):
            limit, bound = 0.0, ""
        yield Line(
            kernel=name,
            operators=kernel.operators,
            rule=kernel.rule,
            dtype=kernel.dtype,
            path=path,
            weights=_named(events[place]),
            shapes=tuple(tuple(shape) for shape in arguments if isinstance(shape, list)),
            calls=1,
            ms=float(spent[middle, place].mean()),
            best_ms=max(float(spent[:, place].min()), 1e-6),
            work=work,
            limit_ms=limit,
            bound=bound,
            device=device if several else "",
        )


def _named(event: Sequence[Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(weight for weight in event[2] if weight))


def _weight_bytes(compiled: Compiled, events: Sequence[Any]) -> int:
    """Bytes of the weights that a call reads: of tables, the rows looked up."""
    read: dict[str, int] = {}
    for name, arguments, weights, device, _ in events:
        if not device.startswith("cpu"):  # there is no limit of others
            continue
        kernel = compiled.kernels.get(name) if any(weights) else None
        for weight, count in zip(
            weights, kernel.read_of(arguments) if kernel else (), strict=False
        ):
            if weight:
                read[weight] = read.get(weight, 0) + count
    return sum(min(count, _size(compiled.params[name])) for name, count in read.items())


def _size(tensor: Any) -> int:
    return math.prod(map(int, tensor.shape)) * int(tvm.DataType(str(tensor.dtype)).itemsize)
