"""What it costs to move a tensor between the host's memory and a device's: measured, and kept."""

from __future__ import annotations

import os
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from burnish.compiler.artifact import cache_folder
from burnish.compiler.cache_key import versions
from burnish.compiler.measure import MeasureService, describe_machine
from burnish.compiler.measure.cache import TimingCache
from burnish.compiler.measure.runners import Bind, Runner
from burnish.compiler.measure.timing import summarize
from burnish.compiler.placement.overheads import turn_seconds
from burnish.compiler.placement.problem import Link
from burnish.targets.hetero import HOST, HeteroTarget

SIZES = (4 << 10, 64 << 10, 1 << 20, 16 << 20)
SAMPLES = 9
SAMPLE_S = 2e-3


@dataclass(eq=False)
class CopyRunner(Runner):
    """Copies of :data:`SIZES` bytes from the host to a device of TVM (``there``), and back.

    A call gives ``[2, sizes, samples]`` seconds.
    """

    kind: str
    index: int
    runtime: ClassVar[str] = "tvm"
    imports: ClassVar[tuple[str, ...]] = ("tvm",)

    def identity(self) -> Hashable:
        return (self.kind, self.index)

    def open(self) -> Bind:
        import tvm

        if self.kind == "opencl":
            from burnish.targets.opencl import runtime

            runtime.ensure()
        device = tvm.device(self.kind, self.index)
        return lambda _inputs: (
            lambda: [
                np.array([_copies(size, device, back) for size in SIZES]) for back in (False, True)
            ]
        )


def _copies(size: int, device: Any, back: bool) -> list[float]:
    import tvm

    here = tvm.runtime.tensor(np.zeros(size, np.uint8))
    there = here.copyto(device)
    source, target = (there, here) if back else (here, there)

    def run(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            target.copyfrom(source)
            device.sync()
        return (time.perf_counter() - start) / count

    once = run(1)
    once = min(once, run(1))
    count = max(1, round(SAMPLE_S / max(once, 1e-7)))
    return [run(count) for _ in range(SAMPLES)]


def fitted(seconds: Sequence[float]) -> tuple[float, float]:
    """Latency in seconds and bytes a second, of times for :data:`SIZES`.

    A line through the times, each weighted by its own size, so that small copies count as much as
    large ones; the latency is at least a tenth of the smallest copy's time.
    """
    sizes, times = np.array(SIZES, float), np.array(seconds, float)
    design = np.stack([np.ones_like(sizes), sizes], axis=1) / times[:, None]
    latency, each = np.linalg.lstsq(design, np.ones_like(times), rcond=None)[0]
    each = max(each, 1e-13)
    return float(max(latency, times[0] / 10)), float(1 / each)


def measured_links(
    target: HeteroTarget, *, cache_dir: str | os.PathLike[str] | None = None
) -> tuple[Link, ...]:
    """The links between a target's devices and its host, by name of the devices.

    Devices that share the host's memory have links without cost, and cores that work at the same
    time those of a turn (:func:`~.overheads.turn_seconds`). Measured in a process of its own where
    they are not known yet; raises MeasureError where a copy fails.
    """
    cache = TimingCache(cache_dir or cache_folder() / "links")
    places = target.places
    host = host_of(target)
    found: list[Link] = []
    for place in places:
        if place.name == host:
            continue
        if place.there is not None:
            # It is built on the costs of operators, which this is a part of.
            from burnish.compiler.remote.costs import link_to

            latency, out, home = link_to(place.address, cache_dir=cache_dir)
            there, back = (latency, out), (latency, home)
        elif place.target.kind == "cpu":
            shared = place.memory == HOST
            latency = turn_seconds() if target.concurrent else 1e-9
            there = back = (latency, 1e15) if shared else _fit(cache, "cpu", place.index)[0]
        else:
            there, back = _fit(cache, place.target.kind, place.index)
        found += [Link(host, place.name, *there), Link(place.name, host, *back)]
    return tuple(found)


def host_of(target: HeteroTarget) -> str:
    """The device whose memory inputs and outputs are in; where there is none, that memory."""
    here = (one for one in target.places if one.memory == HOST and one.there is None)
    return next((one.name for one in here), HOST)


def _fit(cache: TimingCache, kind: str, index: int) -> list[tuple[float, float]]:
    ways = []
    for way in ("there", "back"):
        parts = {
            "link": f"{kind}:{index}",
            "way": way,
            "cpu": describe_machine()["cpu"],
            "versions": versions(),
        }
        ways.append((TimingCache.key(**parts), parts))
    if any(cache.get(f"{key}-{size}") is None for key, _ in ways for size in SIZES):
        with MeasureService(1) as service:
            service.open({"link": CopyRunner(kind, index)}, ())
            samples = service.outputs("link", ())
        cache.put_all(
            {
                f"{key}-{size}": {
                    **parts,
                    "bytes": size,
                    "timing": summarize([[1e3 * float(s) for s in taken]]).to_dict(),
                }
                for (key, parts), rows in zip(ways, samples, strict=True)
                for size, taken in zip(SIZES, rows, strict=True)
            }
        )
    fits = []
    for key, _ in ways:
        timings = [cache.get(f"{key}-{size}") for size in SIZES]
        fits.append(fitted([timing.p50 / 1e3 for timing in timings if timing is not None]))
    return fits
