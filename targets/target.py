"""Targets: what a device is, as frozen values; attributes replace ladders of ``if kind``."""

from __future__ import annotations

import difflib
import functools
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import tvm
from tvm.target import codegen

KNOWN_TARGETS = ("cpu", "llvm [-mcpu=NAME] [-mattr=+a,+b] [-mtriple=T] [-num-cores=N]")


@dataclass(frozen=True)
class CpuTarget:
    """A CPU as the schedule rules see it.

    ``lanes`` are float32 lanes of a vector register, ``registers`` the vector registers;
    ``l1``, ``l2`` and ``l3`` are cache bytes (``l1`` data, ``l1`` and ``l2`` per core).
    """

    name: str = "cpu"
    mcpu: str = "x86-64"
    mattr: tuple[str, ...] = ()
    mtriple: str | None = None
    threads: int = 1
    lanes: int = 4
    registers: int = 16
    l1: int = 32 * 1024
    l2: int = 512 * 1024
    l3: int = 8 * 1024 * 1024

    @property
    def fmas(self) -> int:
        """Vector multiply-adds a cycle: two, but one where 512-bit registers are done in halves."""
        return 1 if self.lanes == 16 and self.mcpu == "znver4" else 2

    def tvm(self) -> tvm.target.Target:
        """The same as a TVM target."""
        return _tvm_target(self.mcpu, self.mattr, self.mtriple, self.threads)

    def isa(self) -> tuple[str, ...]:
        """Instruction-set features the generated code may use, sorted."""
        return tuple(sorted(str(f) for f in codegen.llvm_get_cpu_features(self.tvm())))

    def with_threads(self, threads: int | None) -> CpuTarget:
        """The same CPU with this many threads; ``None`` keeps them."""
        return self if threads is None else replace(self, threads=threads)


@functools.cache
def _tvm_target(
    mcpu: str, mattr: tuple[str, ...], mtriple: str | None, threads: int
) -> tvm.target.Target:
    spec: dict[str, object] = {"kind": "llvm", "mcpu": mcpu, "num-cores": threads}
    if mattr:
        spec["mattr"] = list(mattr)
    if mtriple:
        spec["mtriple"] = mtriple
    return tvm.target.Target(spec)


_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def host_threads() -> int:
    """Threads of a model that asks for none: ``$BURNISH_THREADS``, else :func:`usable_cores`.

    Raises ``ValueError`` for a variable that is no whole number of 1 or more.
    """
    given = os.environ.get("BURNISH_THREADS", "")
    if not given:
        return usable_cores()
    if not given.isdecimal() or int(given) == 0:
        raise ValueError(f"BURNISH_THREADS must be a whole number of 1 or more, got {given!r}")
    return int(given)


def usable_cores() -> int:
    """Cores this process may run on, as its affinity and its control group's quota say."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = _QUOTA.read_text().split()
        if quota != "max":
            cores = min(cores, -(-int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no control group, or one of the first version: the affinity alone counts
    return max(1, cores)


@functools.cache
def _host_caches() -> tuple[int, int, int]:
    """Bytes of the L1 data, L2 and L3 cache as the kernel reports them; 0 where it does not."""
    sizes = {1: 0, 2: 0, 3: 0}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        kind = (index / "type").read_text().strip()
        match = re.fullmatch(r"(\d+)([KM]?)", (index / "size").read_text().strip())
        if kind != "Instruction" and match:
            scale = {"": 1, "K": 1024, "M": 1024 * 1024}[match[2]]
            sizes[int((index / "level").read_text())] = int(match[1]) * scale
    return sizes[1], sizes[2], sizes[3]


def host() -> CpuTarget:
    """The CPU this process runs on."""
    return _host(host_threads())


@functools.cache
def _host(threads: int) -> CpuTarget:
    mcpu = str(codegen.llvm_get_system_cpu())
    target = _describe(CpuTarget(mcpu=mcpu, threads=threads))
    l1, l2, l3 = _host_caches()
    return replace(target, l1=l1 or target.l1, l2=l2 or target.l2, l3=l3 or target.l3)


def _describe(target: CpuTarget) -> CpuTarget:
    """Vector width and registers, from the features of ``target``."""
    features = set(target.isa())
    if "avx512f" in features:
        return replace(target, lanes=16, registers=32)
    if "avx" in features:
        return replace(target, lanes=8, registers=16)
    if "neon" in features or (target.mtriple or "").startswith("aarch64"):
        return replace(target, lanes=4, registers=32)
    return replace(target, lanes=4, registers=16)


def parse_target(text: str | CpuTarget) -> CpuTarget:
    """A target from its name: ``cpu`` (this machine) or an ``llvm`` string.

    Raises ``ValueError`` listing the known targets.
    """
    if isinstance(text, CpuTarget):
        return text
    words = text.split()
    if words == ["cpu"]:
        return host()
    if not words or words[0] != "llvm":
        near = difflib.get_close_matches(text, ["cpu", "llvm"], n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"unknown target {text!r}{hint}; known: {'; '.join(KNOWN_TARGETS)}")
    target = CpuTarget(name=text, mcpu="", threads=host_threads())
    for word in words[1:]:
        match = re.fullmatch(r"--?(mcpu|mattr|mtriple|num-cores)=(\S+)", word)
        if match is None:
            raise ValueError(
                f"target {text!r}: cannot read {word!r}; known: {'; '.join(KNOWN_TARGETS)}"
            )
        key, value = match[1], match[2]
        if key == "mcpu":
            target = replace(target, mcpu=value)
        elif key == "mattr":
            target = replace(target, mattr=tuple(value.split(",")))
        elif key == "mtriple":
            target = replace(target, mtriple=value)
        elif value.isdigit() and int(value) > 0:
            target = target.with_threads(int(value))
        else:
            raise ValueError(f"target {text!r}: num-cores must be a positive number, got {value!r}")
    if not target.mcpu:
        target = replace(target, mcpu="generic" if target.mtriple else host().mcpu)
    if not codegen.llvm_is_valid_cpu(
        target.mcpu, target.mtriple or codegen.llvm_get_system_triple()
    ):
        raise ValueError(f"target {text!r}: LLVM knows no CPU {target.mcpu!r}")
    return _describe(target)


def missing_features(isa: tuple[str, ...]) -> list[str]:
    """Features of ``isa`` that this machine lacks, counting only instruction sets."""
    have = set(host().isa())
    return [feature for feature in isa if feature not in have and _INSTRUCTION_SET.match(feature)]


_INSTRUCTION_SET = re.compile(
    r"avx|sse|ssse|fma|f16c|amx|bmi|popcnt|vaes|gfni|neon|sve|dotprod|i8mm|bf16|fullfp16"
)


def available_memory() -> int:
    """Bytes of memory this machine can still give."""
    return int(psutil.virtual_memory().available)
