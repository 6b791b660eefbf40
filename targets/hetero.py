"""Several devices as one target: the operators of a model are shared out among them."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import tvm

from burnish.targets.core_sets import MOST_CORES, parse_cores, usable
from burnish.targets.cuda.target import CudaTarget, parse_cuda
from burnish.targets.described import described, of_fields
from burnish.targets.opencl import runtime as opencl_runtime
from burnish.targets.opencl.target import OpenclTarget, parse_opencl
from burnish.targets.remote import allowed
from burnish.targets.remote.address import PREFIX as RPC
from burnish.targets.remote.address import Address, parse_remote
from burnish.targets.remote.devices import device_there
from burnish.targets.target import CpuTarget, parse_target

Single: TypeAlias = CpuTarget | CudaTarget | OpenclTarget

PREFIX = "hetero:"
HOST = "cpu:0"
"""The memory that a model's inputs and outputs are in."""
SYNTAX = (
    "hetero:DEVICE,DEVICE... with devices cpu, cpu:1, cuda:0, cuda:sm_90:0, opencl:0, "
    "opencl:mali:0, rpc://HOST:PORT/cpu on another machine, or sets of cores that work at the same "
    "time: cpu@0,cpu@1 or cpu@0-3,cpu@4+6"
)
KINDS: Mapping[str, type[Single]] = {"cpu": CpuTarget, "cuda": CudaTarget, "opencl": OpenclTarget}
MOST = 64
"""Devices of a kind."""
REMOTE = "remote"
"""The backend of devices of another machine."""
external: dict[str, str] = {}
"""Devices that are code generators of their own, by name, and the device whose memory they use."""


@dataclass(frozen=True)
class Place:
    """A device of a model: its ``name`` as the user wrote it, and the memory that it works in.

    ``target`` is what code is made for there, ``index`` which one of its kind. ``backend`` names
    the code generator of a device that is external, and is empty for others. ``cores`` are the
    cores of the machine that a set of them (``cpu@0-3``) is bound to, with a thread each.
    ``there`` is of a device of another machine (``rpc://HOST:PORT/cpu``): what code is made for
    there; its values come from this machine's memory and go back to it, so that ``target`` is the
    host.
    """

    name: str
    target: Single
    index: int = 0
    backend: str = ""
    cores: tuple[int, ...] = ()
    there: Single | None = None

    @property
    def runs(self) -> Single:
        """What its operators are compiled for and timed on, wherever that is."""
        return self.there or self.target

    @property
    def address(self) -> Address:
        """Where the server of a device of another machine listens."""
        return parse_remote(self.name)[0]

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
        if not usable().issuperset(self.cores):
            return f"the cores that this process may run on are {sorted(usable())}"
        found = _count(self.target)
        if found is not None and self.index >= found:
            return f"this machine has {found} of its kind, counted from 0"
        return ""


@dataclass(frozen=True)
class HeteroTarget:
    """Devices in the order in which they are preferred, and the host that starts all of them.

    ``devices`` are their names, ``described`` the fields of each one's target as JSON; ``threads``
    is of the host and of CPUs among them, but for sets of cores, which have a thread a core.
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
        """Whether its devices are sets of cores that work at the same time; others take turns."""
        return any(one.cores for one in self.places)

    @property
    def remote(self) -> tuple[Place, ...]:
        """The devices of other machines."""
        return tuple(one for one in self.places if one.there is not None)

    @property
    def queued(self) -> dict[str, str]:
        """Devices that work while the host goes on, and their kind: those that have a queue."""
        return {one.name: one.target.kind for one in self.places if one.target.kind != "cpu"}

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
        own = [one.target for one in self.places if not one.there]
        return [one for one in own if isinstance(one, CpuTarget)]

    def check(self) -> None:
        """Raise ``ValueError`` or ``KeyError`` where the fields do not describe devices."""
        if not self.devices or len(self.devices) != len(self.described):
            raise ValueError("its target has other devices than it describes")
        sets = [one.cores for one in self.places if one.cores]
        cores = [core for one in sets for core in one]
        if sets and (len(sets) < len(self.places) or len(set(cores)) < len(cores)):
            raise ValueError("its target has cores among devices that take turns, or one twice")
        if any(one.cores and one.target.threads != len(one.cores) for one in self.places):
            raise ValueError("its target has a set of cores with other than a thread a core")

    def why_not_here(self) -> str:
        """Why this machine cannot run the model, each missing device; empty where it can."""
        missing = [(one.name, one.why_not_here()) for one in self.places]
        return "; ".join(f"no device {name}: {why}" for name, why in missing if why)

    def with_threads(self, threads: int | None) -> HeteroTarget:
        """The same devices with a host of this many threads; ``None`` keeps them.

        ``ValueError`` where devices are sets of cores, for other threads than theirs.
        """
        if threads is None or (self.concurrent and threads == self.threads):
            return self
        if self.concurrent:
            raise ValueError(
                f"the devices of {self.name!r} are cores, and each runs one thread: leave threads "
                "out, or name other cores"
            )
        made = self.with_targets(lambda one: one.with_threads(threads))
        return replace(made, threads=threads)

    def with_targets(self, changed: Callable[[Single], Single]) -> HeteroTarget:
        """The same devices, the target of each ``changed``."""
        made = [replace(one, target=changed(one.target)) for one in self.places]
        return replace(self, described=tuple(map(_described, made)))


def parse_hetero(text: str) -> HeteroTarget:
    """``hetero:opencl:0,cpu`` -> the target; ``ValueError`` says what cannot be read."""
    names = tuple(part.strip() for part in text.strip().removeprefix(PREFIX).split(","))
    if not all(names):
        raise ValueError(f"target {text!r} is not of the form {SYNTAX}")
    numbers = [name for name in names if re.fullmatch(r"\d+(-\d+)?", name)]
    if numbers:
        raise ValueError(
            f"target {text!r}: {numbers[0]} is no device; cores of one set are joined by +, as in "
            "cpu@0+2"
        )
    places = _with_host([parse_place(name) for name in names])
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"target {text!r} names {', '.join(sorted(twice))} twice")
    apart = [one.name for one in places if not one.cores]
    if apart and len(apart) < len(places):
        raise ValueError(
            f"target {text!r}: cores, as cpu@0, work at the same time, and {', '.join(apart)} "
            "would take turns with them: name cores alone, or none"
        )
    cores = [core for one in places for core in one.cores]
    shared = sorted({core for core in cores if cores.count(core) > 1})
    if shared:
        both = [one.name for one in places if shared[0] in one.cores]
        raise ValueError(
            f"target {text!r} names core {shared[0]} twice, in {' and in '.join(both)}: sets that "
            "work at the same time have no core in common"
        )
    cpus = {one.target for one in places if isinstance(one.target, CpuTarget) and not one.cores}
    if len({replace(cpu, name="") for cpu in cpus}) > 1:
        raise ValueError(
            f"target {text!r}: CPUs of one executable must be alike, as cpu and cpu:1 are"
        )
    threads = places[0].target.threads if cores else max(one.target.threads for one in places)
    made = tuple(map(_described, places))
    return HeteroTarget(PREFIX + ",".join(names), names, made, threads)


def _with_host(places: list[Place]) -> list[Place]:
    """Devices of another machine read and write the memory of the CPU that is the host here."""
    own = next((p.target for p in places if not p.there and isinstance(p.target, CpuTarget)), None)
    return [replace(one, target=own) if one.there and own else one for one in places]


_PARSERS: Mapping[str, Callable[[str], Single]] = {"cuda": parse_cuda, "opencl": parse_opencl}


def parse_place(name: str) -> Place:
    """``opencl:0``, ``cuda:sm_90:1``, ``cpu`` or an external device -> where it is."""
    if name in external:
        return replace(parse_place(external[name]), name=name, backend=name)
    if name.startswith(RPC):
        address, device = parse_remote(name)
        allowed.allow(address)
        return Place(name, parse_target("cpu"), backend=REMOTE, there=device_there(address, device))
    if "@" in name:
        cores = parse_cores(name)
        return Place(name, parse_target("cpu").with_threads(len(cores)), cores=cores)
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
    kind = _kind(name, fields)
    index, backend, cores = fields["index"], fields["backend"], fields.get("cores", [])
    there = fields.get("there")
    if {isinstance(there, dict), backend == REMOTE, name.startswith(RPC)} not in ({True}, {False}):
        raise ValueError(f"the device {name!r:.80} of its target is half of another machine")
    if type(index) is not int or not 0 <= index < MOST or not isinstance(backend, str):
        raise ValueError(f"the device {name!r:.80} of its target has no index or backend")
    known = isinstance(cores, list) and all(type(n) is int and 0 <= n < MOST_CORES for n in cores)
    if not known or (cores and (index or kind is not CpuTarget)):
        raise ValueError(f"the device {name!r:.80} of its target is on no cores")
    elsewhere = _described_there(name, there)
    return Place(name, of_fields(kind, fields), index, backend, tuple(cores), elsewhere)


def _described_there(name: str, fields: Mapping[str, object] | None) -> Single | None:
    if fields is None:
        return None
    parse_remote(name)
    return of_fields(_kind(name, fields), fields)


def _kind(name: str, fields: object) -> type[Single]:
    kind = KINDS.get(str(fields["kind"])) if isinstance(fields, Mapping) else None
    if kind is None:
        raise ValueError(f"the device {name!r:.80} of its target is of no known kind")
    return kind


def _described(place: Place) -> str:
    fields = {**described(place.target), "index": place.index, "backend": place.backend}
    if place.cores:
        fields["cores"] = list(place.cores)
    if place.there is not None:
        fields["there"] = described(place.there)
    return json.dumps(fields, sort_keys=True)


def _count(target: Single) -> int | None:
    """How many devices of its kind there are here; ``None`` where any number can be counted."""
    if isinstance(target, OpenclTarget):
        return len(opencl_runtime.devices())
    if isinstance(target, CudaTarget):
        return sum(1 for _ in itertools.takewhile(lambda at: tvm.cuda(at).exist, range(MOST)))
    return None
