"""Several devices as one target: the operators of a model are shared out among them."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import tvm

from burnish.targets.cuda.target import CudaTarget, parse_cuda
from burnish.targets.described import described, of_fields
from burnish.targets.opencl import runtime as opencl_runtime
from burnish.targets.opencl.target import OpenclTarget, parse_opencl
from burnish.targets.target import CpuTarget, parse_target

Single: TypeAlias = CpuTarget | CudaTarget | OpenclTarget

PREFIX = "hetero:"
HOST = "cpu:0"
"""The memory that a model's inputs and outputs are in."""
SYNTAX = (
    "hetero:DEVICE,DEVICE... with devices cpu, cpu:1, cuda:0, cuda:sm_90:0, opencl:0, "
    "opencl:mali:0, or cores that work at the same time: cpu@0,cpu@1"
)
KINDS: Mapping[str, type[Single]] = {"cpu": CpuTarget, "cuda": CudaTarget, "opencl": OpenclTarget}
MOST = 64
"""Devices of a kind."""
MOST_CORES = 4096
external: dict[str, str] = {}
"""Devices that are code generators of their own, by name, and the device whose memory they use."""


@dataclass(frozen=True)
class Place:
    """A device of a model: its ``name`` as the user wrote it, and the memory that it works in.

    ``target`` is what code is made for there, ``index`` which one of its kind. ``backend`` names
    the code generator of a device that is external, and is empty for others. ``core`` is the core
    of the machine that a device of one core (``cpu@0``) is bound to.
    """

    name: str
    target: Single
    index: int = 0
    backend: str = ""
    core: int | None = None

    @property
    def memory(self) -> str:
        """The memory its values are in, ``opencl:0``; several devices may share one."""
        return f"{self.target.kind}:{self.index}"

    def device(self) -> tvm.runtime.Device:
        return tvm.device(self.target.kind, self.index)

    def why_not_here(self) -> str:
        """Why this machine has no such device; empty where it has."""
        why = self.target.why_not_here()
        if why:
            return why
        known = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        if self.core is not None and self.core not in known:
            return f"the cores that this process may run on are {sorted(known)}"
        found = _count(self.target)
        if found is not None and self.index >= found:
            return f"this machine has {found} of its kind, counted from 0"
        return ""


@dataclass(frozen=True)
class HeteroTarget:
    """Devices in the order in which they are preferred, and the host that starts all of them.

    ``devices`` are their names, ``described`` the fields of each one's target as JSON; ``threads``
    is of the host and of CPUs among them.
    """

    name: str = "hetero:cpu"
    devices: tuple[str, ...] = ("cpu",)
    described: tuple[str, ...] = ()
    threads: int = 1

    kind = "hetero"
    mtriple = None

    @property
    def places(self) -> tuple[Place, ...]:
        """The devices, in order."""
        return _places(self)

    def place(self, name: str) -> Place:
        """The device of this name; ``KeyError`` for another."""
        return next(one for one in self.places if one.name == name)

    @property
    def memories(self) -> tuple[Place, ...]:
        """A device for each memory, the host's first: there the machine keeps its constants."""
        found = {one.memory: one for one in self.places}
        host = found.pop(HOST, Place("cpu", self.host))
        return (host, *found.values())

    @property
    def host(self) -> CpuTarget:
        """The CPU that starts kernels: the first among the devices, else this machine's."""
        cpus = self._cpus()
        return cpus[0] if cpus else self.places[0].target.host

    @property
    def concurrent(self) -> bool:
        """Whether its devices are cores that work at the same time; others take turns."""
        return any(one.core is not None for one in self.places)

    @property
    def machine(self) -> str:
        """The host's architecture."""
        return self.host.machine

    def tvm(self) -> tvm.target.Target:
        """The host as a TVM target; each device has its own."""
        return self.host.tvm()

    def isa(self) -> tuple[str, ...]:
        """Instruction sets that code on the host may use."""
        return tuple(sorted({f for one in (self.host, *self._cpus()) for f in one.isa()}))

    def _cpus(self) -> list[CpuTarget]:
        return [one.target for one in self.places if isinstance(one.target, CpuTarget)]

    def check(self) -> None:
        """Raise ``ValueError`` or ``KeyError`` where the fields do not describe devices."""
        if not self.devices or len(self.devices) != len(self.described):
            raise ValueError("its target has other devices than it describes")
        cores = [one.core for one in self.places]
        if None in cores and len(set(cores)) > 1:
            raise ValueError("its target has cores among devices that take turns")

    def why_not_here(self) -> str:
        """Why this machine cannot run the model, each missing device; empty where it can."""
        missing = [(one.name, one.why_not_here()) for one in self.places]
        return "; ".join(f"no device {name}: {why}" for name, why in missing if why)

    def with_threads(self, threads: int | None) -> HeteroTarget:
        """The same devices with a host of this many threads; ``None`` keeps them.

        ``ValueError`` where each device is a core, for other than one thread.
        """
        if threads is None:
            return self
        if self.concurrent and threads != 1:
            raise ValueError(
                f"the devices of {self.name!r} are cores, and each runs one thread: leave threads "
                "out, or name more cores"
            )
        made = [replace(one, target=one.target.with_threads(threads)) for one in self.places]
        return replace(self, described=tuple(map(_described, made)), threads=threads)


def parse_hetero(text: str) -> HeteroTarget:
    """``hetero:opencl:0,cpu`` -> the target; ``ValueError`` says what cannot be read."""
    names = tuple(part.strip() for part in text.strip().removeprefix(PREFIX).split(","))
    if not all(names):
        raise ValueError(f"target {text!r} is not of the form {SYNTAX}")
    places = [parse_place(name) for name in names]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"target {text!r} names {', '.join(sorted(twice))} twice")
    apart = [one.name for one in places if one.core is None]
    if apart and len(apart) < len(places):
        raise ValueError(
            f"target {text!r}: cores, as cpu@0, work at the same time, and {', '.join(apart)} "
            "would take turns with them: name cores alone, or none"
        )
    cores = [one.core for one in places if one.core is not None]
    if len(set(cores)) < len(cores):
        raise ValueError(f"target {text!r} names a core twice")
    cpus = {one.target for one in places if isinstance(one.target, CpuTarget)}
    if len({replace(cpu, name="") for cpu in cpus}) > 1:
        raise ValueError(
            f"target {text!r}: CPUs of one executable must be alike, as cpu and cpu:1 are"
        )
    threads = max(one.target.threads for one in places)
    made = tuple(map(_described, places))
    return HeteroTarget(PREFIX + ",".join(names), names, made, threads)


_PARSERS: Mapping[str, Callable[[str], Single]] = {"cuda": parse_cuda, "opencl": parse_opencl}


def parse_place(name: str) -> Place:
    """``opencl:0``, ``cuda:sm_90:1``, ``cpu`` or an external device -> where it is."""
    if name in external:
        return replace(parse_place(external[name]), name=name, backend=name)
    if "@" in name:
        core = re.fullmatch(r"cpu@(\d+)", name)
        if core is None or int(core[1]) >= MOST_CORES:
            raise ValueError(
                f"device {name!r}: in one model each core is a device of its own, cpu@0,cpu@1; "
                "sets of several cores are devices of a pipeline's stages"
            )
        return Place(name, parse_target("cpu").with_threads(1), core=int(core[1]))
    match = re.fullmatch(r"(.*?)(?::(\d+))?", name)
    if match is None:
        raise ValueError(f"device {name!r} is not of the form {SYNTAX}")
    kind, index = match[1], int(match[2] or 0)
    parse = _PARSERS.get(kind.partition(":")[0])
    try:
        target = parse(kind) if parse is not None else parse_target(kind)
    except ValueError as error:
        known = ", ".join(["cpu", "cuda:0", "opencl:0", *sorted(external)])
        raise ValueError(f"device {name!r}: {error}; devices are {known}") from error
    return Place(name, target, index)


@functools.lru_cache(maxsize=64)
def _places(target: HeteroTarget) -> tuple[Place, ...]:
    if not target.described:
        return tuple(map(parse_place, target.devices))
    return tuple(map(_described_place, target.devices, target.described))


def _described_place(name: str, text: str) -> Place:
    """The device that :func:`_described` wrote; raises as :func:`of_fields` does."""
    fields = json.loads(text)
    kind = KINDS.get(str(fields["kind"])) if isinstance(fields, dict) else None
    if kind is None:
        raise ValueError(f"the device {name!r:.80} of its target is of no known kind")
    index, backend, core = fields["index"], fields["backend"], fields.get("core")
    if type(index) is not int or not 0 <= index < MOST or not isinstance(backend, str):
        raise ValueError(f"the device {name!r:.80} of its target has no index or backend")
    if core is not None and (type(core) is not int or not 0 <= core < MOST_CORES or index):
        raise ValueError(f"the device {name!r:.80} of its target is on no core")
    return Place(name, of_fields(kind, fields), index, backend, core)


def _described(place: Place) -> str:
    fields = {**described(place.target), "index": place.index, "backend": place.backend}
    if place.core is not None:
        fields["core"] = place.core
    return json.dumps(fields, sort_keys=True)


def _count(target: Single) -> int | None:
    """How many devices of its kind there are here; ``None`` where any number can be counted."""
    if isinstance(target, OpenclTarget):
        return len(opencl_runtime.devices())
    if isinstance(target, CudaTarget):
        return sum(1 for _ in itertools.takewhile(lambda at: tvm.cuda(at).exist, range(MOST)))
    return None
