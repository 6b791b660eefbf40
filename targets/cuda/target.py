"""What a CUDA GPU is to the compiler, by the architectures a model is built for."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass, replace

import tvm

from burnish.runtime.cuda import device_capability
from burnish.targets import isa
from burnish.targets.target import CpuTarget, host_threads

KNOWN_ARCHITECTURES = (
    "sm_75",
    "sm_80",
    "sm_86",
    "sm_89",
    "sm_90",
    "sm_90a",
    "sm_100",
    "sm_120",
)
"""Of the GPUs since 2018; CUDA 13 compiles for no older ones. ``sm_90a`` is ``sm_90`` with
instructions that no other has, the products of warp groups among them."""
DEFAULT_ARCHITECTURES = ("sm_80", "sm_90")
SYNTAX = "cuda[:sm_NN[,sm_NN...]]"
_SHARED = {75: 64, 80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
"""KiB of shared memory that one block may have."""
_MULTIPROCESSORS = {75: 40, 80: 108, 86: 72, 89: 58, 90: 114, 100: 148, 120: 110}


@dataclass(frozen=True)
class CudaTarget:
    """NVIDIA GPUs of the given architectures, oldest first, and the x86-64 or ARM host beside them.

    Kernels are scheduled for the oldest architecture, so that they run on each of them, and
    compiled to machine code for each; PTX of the newest runs on later ones. ``threads`` is of the
    host, whose code only launches. ``tf32`` lets products of float32 run on tensor cores, which
    read 19 of the 32 bits. ``graphs`` has the model record CUDA graphs of its kernels.
    """

    name: str = "cuda"
    arches: tuple[str, ...] = DEFAULT_ARCHITECTURES
    threads: int = 1
    tf32: bool = False
    graphs: bool = False

    kind = "cuda"
    mtriple = None

    @property
    def capability(self) -> int:
        """Of the oldest architecture: 75 for ``sm_75``."""
        return capability(self.arches[0])

    @property
    def warp_groups(self) -> bool:
        """Whether four warps can multiply together, from shared memory."""
        return self.arches == ("sm_90a",)

    @property
    def shared_memory(self) -> int:
        """Bytes of shared memory a block may have on each of the architectures."""
        return min(_SHARED[capability(arch)] for arch in self.arches) * 1024

    @property
    def multiprocessors(self) -> int:
        """Of a GPU of data centres with the fewest of them; desktops have fewer yet."""
        return min(_MULTIPROCESSORS[capability(arch)] for arch in self.arches)

    @property
    def host(self) -> CpuTarget:
        """The CPU that launches: any of this machine's kind."""
        mcpu = "x86-64-v2" if self.machine == "x86_64" else "generic"
        return CpuTarget(name=f"llvm -mcpu={mcpu}", mcpu=mcpu, threads=self.threads)

    @property
    def machine(self) -> str:
        """The host's architecture: ``x86_64`` or ``aarch64``."""
        return isa.machine_name(platform.machine())

    def tvm(self) -> tvm.target.Target:
        """The same as a TVM target, for the oldest architecture."""
        return tvm.target.Target(
            {
                "kind": "cuda",
                "arch": self.arches[0],
                "max_threads_per_block": 1024,
                "max_num_threads": 1024,
                "max_shared_memory_per_block": 48 * 1024,
                "thread_warp_size": 32,
            },
            host=self.host.tvm(),
        )

    def isa(self) -> tuple[str, ...]:
        """Instruction sets that the host's code may use."""
        return self.host.isa()

    def why_not_here(self) -> str:
        """Why this machine cannot run the model; empty where it can."""
        here = device_capability()
        if isinstance(here, str):
            return here
        built = ", ".join(self.arches)
        if here < self.capability or (is_specific(self.arches[0]) and here != self.capability):
            return f"it is built for {built}, and this machine's GPU is an sm_{here}"
        return ""

    def with_threads(self, threads: int | None) -> CudaTarget:
        """The same GPUs beside a host with this many threads; ``None`` keeps them."""
        return self if threads is None else replace(self, threads=threads)


def capability(arch: str) -> int:
    """``sm_90`` and ``sm_90a`` -> 90."""
    return int(arch.removeprefix("sm_").rstrip("a"))


def is_specific(arch: str) -> bool:
    """Whether its code runs on GPUs of this very capability alone."""
    return arch.endswith("a")


def parse_cuda(text: str) -> CudaTarget:
    """``cuda``, ``cuda:sm_90`` or ``cuda:sm_80,sm_90`` -> the target.

    Raises ``ValueError`` listing the known architectures.
    """
    name, _, listed = text.strip().partition(":")
    if name != "cuda":
        raise ValueError(f"target {text!r} is not of the form {SYNTAX}")
    if not listed:
        return CudaTarget(name="cuda", threads=host_threads())
    arches = [arch.strip() for arch in listed.split(",")]
    for arch in arches:
        if not re.fullmatch(r"sm_\d+a?", arch) or arch not in KNOWN_ARCHITECTURES:
            known = ", ".join(KNOWN_ARCHITECTURES)
            raise ValueError(f"target {text!r}: no architecture {arch!r}; known: {known}")
    if len(set(arches)) > 1 and any(map(is_specific, arches)):
        raise ValueError(
            f"target {text!r}: sm_90a is built for alone, as its kernels run on GPUs of "
            "capability 9.0 only; cuda:sm_90 can be built with others"
        )
    ordered = tuple(sorted(set(arches), key=capability))
    return CudaTarget(f"cuda:{','.join(ordered)}", ordered, host_threads())
