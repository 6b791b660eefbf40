"""Targets: what a device is, as frozen values; attributes replace ladders of ``if kind``."""

from __future__ import annotations

import difflib
import functools
import json
import platform
import re
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import tvm
from tvm.target import codegen

from burnish.runtime.cores import host_threads as host_threads
from burnish.runtime.cores import usable_cores as usable_cores
from burnish.targets import isa

ARCHITECTURES = ("x86_64", "aarch64")
KNOWN_TARGETS = (
    "cpu",
    "llvm [-mcpu=NAME] [-mattr=+a,+b] [-mtriple=T] [-num-cores=N]",
    "cuda[:sm_NN[,sm_NN...]]",
    "opencl[:adreno|mali|intel|amd|nvidia|cpu]",
)


@dataclass(frozen=True)
class CpuTarget:
    """A CPU as the schedule rules see it.

    ``lanes`` are float32 lanes of a vector register, ``registers`` the vector registers;
    ``l1``, ``l2`` and ``l3`` are cache bytes (``l1`` data, ``l1`` and ``l2`` per core);
    ``bandwidth`` is the bytes of main memory that all cores together read in a cycle.
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
    bandwidth: float = 11.0

    kind = "cpu"

    @property
    def host(self) -> CpuTarget:
        """The CPU whose code starts the kernels: itself."""
        return self

    @property
    def fmas(self) -> int:
        """Vector multiply-adds a cycle: two, but one where 512-bit registers are done in halves."""
        return 1 if self.lanes == 16 and self.mcpu == "znver4" else 2

    def tvm(self) -> tvm.target.Target:
        """The same as a TVM target."""
        return _tvm_target(self.mcpu, self.mattr, self.mtriple, self.threads)

    @property
    def machine(self) -> str:
        """The architecture: ``x86_64`` or ``aarch64``."""
        return isa.machine_name(self.mtriple or platform.machine())

    def features(self) -> frozenset[str]:
        """All that LLVM knows of this CPU, hints for tuning included."""
        return frozenset(str(f) for f in codegen.llvm_get_cpu_features(self.tvm()))

    def isa(self) -> tuple[str, ...]:
        """Instruction sets the generated code may use, by LLVM's names, sorted."""
        return isa.instruction_sets(self.features())

    def why_not_here(self) -> str:
        """Why this machine cannot run code for this CPU; empty where it can."""
        here = isa.machine_name(platform.machine())
        if self.machine != here:
            return f"it is for {self.machine}, and this machine is {here}"
        missing = missing_features(self.isa())
        return f"it needs {', '.join(missing)}, which this CPU has not" if missing else ""

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
    named = CpuTarget(mcpu=mcpu, threads=threads)
    known = mcpu not in ("generic", "x86-64")
    mattr = isa.corrections(named.features(), isa.host_flags(), known=known)
    target = _described(replace(named, mattr=mattr))
    l1, l2, l3 = _host_caches()
    return replace(target, l1=l1 or target.l1, l2=l2 or target.l2, l3=l3 or target.l3)


def _described(target: CpuTarget) -> CpuTarget:
    """``target`` with vectors and registers from its features, and caches from its name.

    ARM's scalable vectors are not used: their width is unknown at compile time, so that those
    CPUs run NEON's 128 bits.
    """
    l1, l2, l3 = isa.caches(target.mcpu)
    target = replace(target, lanes=4, registers=16, l1=l1, l2=l2, l3=l3)
    if target.machine == "aarch64":
        return replace(target, registers=32)
    features = target.features()
    if "avx512f" in features:
        return replace(target, lanes=16, registers=32)
    return replace(target, lanes=8) if "avx" in features else target


def parse_target(text: str | CpuTarget) -> CpuTarget:
    """A target from its name: ``cpu`` (this machine) or an ``llvm`` string.

    TVM's own spellings of an LLVM target are read too: ``llvm -keys=cpu ...`` and JSON. What an
    ``llvm`` string names comes from LLVM and not from this machine: only where it names neither a
    CPU nor a triple, or ``-mcpu=native``, it is this machine's CPU.

    Raises ``ValueError`` listing the known targets.
    """
    if isinstance(text, CpuTarget):
        return text
    if text.split() == ["cpu"]:
        return host()
    options = _json_options(text) if text.lstrip().startswith("{") else _word_options(text)
    mcpu, mtriple = options.get("mcpu", ""), options.get("mtriple") or None
    mattr = tuple(filter(None, options.get("mattr", "").split(",")))
    cores = options.get("num-cores", "")
    threads = host_threads()
    if cores:
        if not cores.isdecimal() or int(cores) == 0:
            raise ValueError(f"target {text!r}: num-cores must be a positive number, got {cores!r}")
        threads = int(cores)
    if mcpu == "native" or not (mcpu or mtriple):
        if mtriple and isa.machine_name(mtriple) != isa.machine_name(platform.machine()):
            raise ValueError(f"target {text!r}: -mcpu=native is this machine, the triple is not")
        here = replace(host(), name=text, threads=threads)
        return here if not mattr else _changed(here, mattr)
    target = CpuTarget(name=text, mcpu=mcpu or "generic", mtriple=mtriple, threads=threads)
    _check(target)
    return _changed(_described(target), mattr)


def _changed(target: CpuTarget, mattr: tuple[str, ...]) -> CpuTarget:
    """``target`` with features added or taken away; its caches are kept."""
    for change in mattr:
        probe = replace(target, mattr=(f"+{change[1:]}",))
        if change[0] not in "+-" or change[1:] not in probe.features():
            raise ValueError(
                f"target {target.name!r}: -mattr takes +FEATURE or -FEATURE by LLVM's names for "
                f"{target.machine}, got {change!r}"
            )
    new = _described(replace(target, mattr=(*target.mattr, *mattr)))
    return replace(new, l1=target.l1, l2=target.l2, l3=target.l3)


_OPTION = re.compile(r"--?(mcpu|mattr|mtriple|num-cores|keys)=(\S+)")


def _word_options(text: str) -> dict[str, str]:
    """``llvm -mcpu=a -mattr=+b`` -> {"mcpu": "a", "mattr": "+b"}."""
    words = text.split()
    known = "; ".join(KNOWN_TARGETS)
    if not words or words[0] != "llvm":
        near = difflib.get_close_matches(text, ["cpu", "llvm", "cuda", "opencl"], n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"unknown target {text!r}{hint}; known: {known}")
    options = {}
    for word in words[1:]:
        match = _OPTION.fullmatch(word)
        if match is None:
            raise ValueError(f"target {text!r}: cannot read {word!r}; known: {known}")
        options[match[1]] = match[2]
    return options


def _json_options(text: str) -> dict[str, str]:
    """TVM's JSON form of an LLVM target: {"kind": "llvm", "mcpu": ...}."""
    known = "; ".join(KNOWN_TARGETS)
    try:
        spec = dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise ValueError(f"target {text!r} is no JSON object ({error}); known: {known}") from error
    options = {}
    for key, value in spec.items():
        if key in ("kind", "tag", "keys"):
            continue
        if f"-{key}=" not in KNOWN_TARGETS[1]:
            raise ValueError(f"target {text!r}: cannot read {key!r}; known: {known}")
        options[key] = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    if spec.get("kind") != "llvm":
        raise ValueError(f"target {text!r} is of kind {spec.get('kind')!r}; known: {known}")
    return options


def _check(target: CpuTarget) -> None:
    """Refuse an architecture that no rule knows, and a CPU that LLVM does not know."""
    if target.machine not in ARCHITECTURES:
        raise ValueError(
            f"target {target.name!r}: no schedule rules for {target.machine}; known: "
            f"{', '.join(ARCHITECTURES)}: give -mtriple of one of these, or run the model on "
            f"{target.machine} with its own framework"
        )
    triple = target.mtriple or codegen.llvm_get_system_triple()
    if not codegen.llvm_is_valid_cpu(target.mcpu, triple):
        others = [name for name in ARCHITECTURES if name != target.machine]
        elsewhere = [
            name for name in others if codegen.llvm_is_valid_cpu(target.mcpu, f"{name}-linux-gnu")
        ]
        hint = f"; it is of {elsewhere[0]}: -mtriple={elsewhere[0]}-linux-gnu" if elsewhere else ""
        raise ValueError(
            f"target {target.name!r}: LLVM knows no CPU {target.mcpu!r} of {target.machine}{hint}"
        )


def missing_features(needed: tuple[str, ...]) -> list[str]:
    """Instruction sets of ``needed`` that this machine lacks."""
    have = host().features()
    return [feature for feature in isa.instruction_sets(needed) if feature not in have]


def available_memory() -> int:
    """Bytes of memory this machine can still give."""
    return int(psutil.virtual_memory().available)
