"""The devices of this machine: what each does in a second, its link to the host, its memory."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import psutil
import tvm
from tvm import relax

from burnish.compiler.artifact import cache_folder
from burnish.compiler.bench.peaks import SOURCE, measure_peaks
from burnish.compiler.cache_key import source_digest, versions
from burnish.compiler.config import CompileConfig
from burnish.compiler.errors import BurnishError, MeasureError
from burnish.compiler.measure import describe_machine
from burnish.compiler.measure.cache import TimingCache
from burnish.compiler.optimizer import lowered
from burnish.compiler.pipeline import graph_phases
from burnish.compiler.placement.costs import CostModel
from burnish.compiler.placement.links import measured_links
from burnish.compiler.placement.operators import operators_of
from burnish.runtime.cores import usable_cores
from burnish.targets.cuda.target import device_capability
from burnish.targets.hetero import Place, parse_hetero, parse_place
from burnish.targets.opencl import runtime as opencl_runtime

SIDE = 1024
"""Rows and columns of the product that a GPU's rate is told by."""
STREAM = 1 << 24
"""Floats of the sum that the rate of its memory is told by."""
CORE_S = 0.1
"""Seconds for each rate of one core."""
CORE_LIMIT_S = 120.0
"""The longest that all rates of one core are waited for."""
NO_GPU = "models for it are compiled here, and run on a machine with an NVIDIA GPU and its driver"


@dataclass(frozen=True)
class DeviceRates:
    """A device by the name that targets have it by, ``cpu``, ``cpu@0``, ``cuda:0``, ``opencl:0``.

    ``gflops`` are multiply-adds of float32, each counted as two, and ``gbytes`` the GB/s of its
    memory: on CPUs the highest that a program reaches, elsewhere those of our own kernels (a
    product of 1024 x 1024, a sum of 64 MB). ``latency_s`` and ``link_gbytes`` are of a copy from
    the host. What cannot be used has ``reason`` and ``remedy``, and no rates.
    """

    name: str
    what: str
    gflops: float | None = None
    gbytes: float | None = None
    memory_bytes: int | None = None
    latency_s: float | None = None
    link_gbytes: float | None = None
    reason: str = ""
    remedy: str = ""

    @property
    def usable(self) -> bool:
        """Whether models run on it here."""
        return not self.reason

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {**asdict(self), "usable": self.usable}


Measure = Callable[[DeviceRates, Path | None], DeviceRates]
"""A device with its rates; the folder is where times are kept, in the place of the usual ones."""
Progress = Callable[[str], object]


def devices(
    target: str | None = None,
    *,
    again: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = lambda doing: None,
) -> tuple[DeviceRates, ...]:
    """Every device of this machine; rates are measured once and kept, ``again`` measures anew.

    With a ``target`` (``hetero:cpu,rpc://HOST:PORT/cpu``) its devices, those of other machines too.
    A device that is found and fails when it is measured has the failure for its ``reason``.
    Raises TargetError for a target that cannot be read.
    """
    if target is not None:
        # It is built on what is measured here.
        from burnish.compiler.remote.rates import target_devices

        return target_devices(target, again=again, cache_dir=cache_dir, progress=progress)
    return rated(present(), measured, again=again, cache_dir=cache_dir, progress=progress)


def rated(
    found: tuple[DeviceRates, ...],
    measure: Measure,
    *,
    again: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = lambda doing: None,
) -> tuple[DeviceRates, ...]:
    """``found`` with rates, kept ones or those of ``measure``."""
    file = Path(cache_dir or cache_folder() / "devices") / "devices.json"
    kept = _read(file)
    done: list[DeviceRates] = []
    for one in found:
        key = _key(one)
        if not one.usable:
            done.append(one)
            continue
        if key in kept and not again:
            done.append(kept[key])
            continue
        progress(f"measuring {one.name}")
        with tempfile.TemporaryDirectory(prefix="burnish-devices-") as folder:
            try:
                new = measure(one, Path(folder) if again else None)
            except (BurnishError, RuntimeError, ValueError, OSError) as error:
                said = str(error).strip() or type(error).__name__
                remedy = "burnish doctor tries a kernel on it; then burnish devices --again"
                done.append(replace(one, reason=f"measuring failed: {said}", remedy=remedy))
                continue
        done.append(new)
        kept[key] = new
        _write(file, kept)
    return tuple(done)


def present() -> tuple[DeviceRates, ...]:
    """What there is, without rates; kinds of which there is none with the reason."""
    return (*_cpus(), *_cuda(), *_opencl())


def _cpus() -> list[DeviceRates]:
    total = int(psutil.virtual_memory().total)
    name = str(describe_machine()["cpu"])
    whole = DeviceRates("cpu", f"{name}, {usable_cores()} cores", memory_bytes=total)
    if not hasattr(os, "sched_getaffinity"):
        reason = "this system binds no thread to a core"
        return [whole, DeviceRates("cpu@0", "a core", reason=reason, remedy="Linux does")]
    cores = sorted(os.sched_getaffinity(0))
    return [whole, *(DeviceRates(f"cpu@{n}", f"core {n}", memory_bytes=total) for n in cores)]


def _cuda() -> list[DeviceRates]:
    here = device_capability()
    if isinstance(here, str):
        return [DeviceRates("cuda:0", "NVIDIA GPU", reason=here, remedy=NO_GPU)]
    found: list[DeviceRates] = []
    while (device := tvm.cuda(len(found))).exist:
        size = device.total_global_memory
        known = int(size) if size else None
        name = str(device.device_name)
        found.append(DeviceRates(f"cuda:{len(found)}", name, memory_bytes=known))
    return found


def _opencl() -> list[DeviceRates]:
    reason, remedy = opencl_runtime.absence()
    if reason:
        return [DeviceRates("opencl:0", "OpenCL device", reason=reason, remedy=remedy)]
    return [
        DeviceRates(
            f"opencl:{one.index}",
            f"{one.name}, {one.kind} of {one.platform}",
            memory_bytes=one.global_bytes,
        )
        for one in opencl_runtime.devices()
    ]


def measured(one: DeviceRates, folder: Path | None) -> DeviceRates:
    """``one`` with its rates; raises MeasureError where they cannot be taken."""
    if one.name.startswith("cpu"):
        core = one.name.partition("@")[2]
        peaks = _on_core(int(core)) if core else measure_peaks(usable_cores())
        return replace(one, gflops=peaks.fp32, gbytes=peaks.read)
    place = parse_place(one.name)
    product, summed = _kernel_seconds(place, folder)
    links = measured_links(
        parse_hetero(f"hetero:{one.name},cpu"), cache_dir=folder and folder / "links"
    )
    there = next(link for link in links if link.target == one.name)
    return replace(
        one,
        gflops=2 * SIDE**3 / product / 1e9,
        gbytes=2 * 4 * STREAM / summed / 1e9,
        latency_s=there.latency_seconds,
        link_gbytes=there.bytes_per_second / 1e9,
    )


def _on_core(core: int) -> Any:
    """Peaks of a core: a program started from a thread that is bound to it is so too."""
    found: list[Any] = []

    def measure() -> None:
        try:
            os.sched_setaffinity(0, {core})
            found.append(measure_peaks(1, CORE_S))
        except (BurnishError, OSError) as error:
            found.append(error)

    thread = threading.Thread(target=measure, daemon=True)
    thread.start()
    thread.join(CORE_LIMIT_S)
    if not found:
        raise MeasureError(f"the rates of core {core} were not there after {CORE_LIMIT_S:g} s")
    if isinstance(found[0], Exception):
        raise MeasureError(str(found[0])) from found[0]
    return found[0]


def _kernel_seconds(place: Place, folder: Path | None) -> tuple[float, float]:
    """Seconds of a product of squares, and of x + x over :data:`STREAM` floats, on a device."""
    costs = CostModel(folder and folder / "operators")
    phases = graph_phases(place.target, CompileConfig())
    seconds = []
    for mod in (_product(), _sum()):
        calls = operators_of(lowered(mod, place.target, phases)).calls
        costs.measure([one for one, _ in calls], place.target)
        times = costs.times([one for one, _ in calls], place.target)[0]
        seconds.append(sum(count * times[one.signature].memory for one, count in calls))
    return seconds[0], seconds[1]


def _module(shapes: list[tuple[int, ...]], body: Callable[..., relax.Expr]) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    given = [
        relax.Var(f"x{at}", relax.TensorType(shape, "float32")) for at, shape in enumerate(shapes)
    ]
    with builder.function("main", given, {"num_input": len(given)}):
        with builder.dataflow():
            out = builder.emit_output(relax.Tuple([builder.emit(body(*given))]))
        builder.emit_func_output(out)
    return builder.finalize()


def _product() -> tvm.IRModule:
    return _module([(SIDE, SIDE)] * 2, relax.op.matmul)


def _sum() -> tvm.IRModule:
    return _module([(STREAM,)], lambda x: relax.op.add(x, x))


def _key(one: DeviceRates) -> str:
    machine = describe_machine()
    parts = {name: machine[name] for name in ("cpu", "arch", "isa", "cores")}
    return TimingCache.key(
        device=[one.name, one.what, one.memory_bytes],
        machine=parts,
        program=SOURCE.read_text(),
        sources=source_digest(("targets",)),
        versions=versions(),
    )


def _read(file: Path) -> dict[str, DeviceRates]:
    names = [field.name for field in fields(DeviceRates)]
    try:
        data: Mapping[str, Any] = json.loads(file.read_text())
        return {key: DeviceRates(**{n: one[n] for n in names}) for key, one in data.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # none yet, or damaged: measured again


def _write(file: Path, kept: Mapping[str, DeviceRates]) -> None:
    """Whole or not at all; a folder that cannot be written keeps nothing."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=file.parent, suffix=".part")
        with os.fdopen(handle, "w") as out:
            json.dump({key: asdict(one) for key, one in kept.items()}, out, indent=1)
        os.replace(partial, file)
    except OSError:
        return


__all__ = ["DeviceRates", "devices", "measured", "present", "rated"]
