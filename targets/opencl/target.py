"""What an OpenCL device is to the compiler: the limits that its kernels keep."""

from __future__ import annotations

import difflib
import platform
from dataclasses import dataclass, replace

import tvm

from burnish.targets import isa
from burnish.targets.opencl import runtime
from burnish.targets.target import CpuTarget, host_threads

KIB = 1024


@dataclass(frozen=True)
class OpenclTarget:
    """An OpenCL device, and the x86-64 or ARM host beside it.

    ``work_group`` is the most work items in one work group, ``local_memory`` the bytes of local
    memory it may have, ``half`` whether the device has the extension ``cl_khr_fp16``, ``vector``
    the floats that a work item reads, computes and writes at once. ``device``
    is what TVM's rules call it, who choose vectors by it, empty for any. ``threads`` is of the
    host, whose code only launches.
    """

    name: str = "opencl"
    device: str = ""
    work_group: int = 256
    local_memory: int = 32 * KIB
    half: bool = False
    vector: int = 1
    threads: int = 1

    kind = "opencl"
    mtriple = None

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
        """The same as a TVM target.

        Its warp is one work item: OpenCL promises no wider one, and steps of a reduction within a
        warp would go without a barrier.
        """
        spec: dict[str, object] = {
            "kind": "opencl",
            "max_threads_per_block": self.work_group,
            "max_num_threads": self.work_group,
            "max_shared_memory_per_block": self.local_memory,
            "thread_warp_size": 1,
        }
        if self.device:
            spec["device"] = self.device
        return tvm.target.Target(spec, host=self.host.tvm())

    def isa(self) -> tuple[str, ...]:
        """Instruction sets that the host's code may use."""
        return self.host.isa()

    def why_not_here(self) -> str:
        """Why this machine cannot run the model; empty where it can."""
        why = runtime.why_not()
        if why:
            return why
        here = runtime.devices()[0]
        lacks = []
        if here.max_work_group < self.work_group:
            lacks.append(f"work groups of {self.work_group}, not {here.max_work_group}")
        if here.local_bytes < self.local_memory:
            have = here.local_bytes // KIB
            lacks.append(f"{self.local_memory // KIB} KiB of local memory, not {have}")
        if not lacks:
            return ""
        return f"it needs {' and '.join(lacks)}, which the device here ({here.name}) has"

    def with_threads(self, threads: int | None) -> OpenclTarget:
        """The same device beside a host with this many threads; ``None`` keeps them."""
        return self if threads is None else replace(self, threads=threads)


PRESETS = {
    "": OpenclTarget("opencl"),
    "adreno": OpenclTarget("opencl:adreno", "adreno", 1024, 32 * KIB, half=True, vector=4),
    "mali": OpenclTarget("opencl:mali", "mali", 256, 32 * KIB, half=True, vector=4),
    "intel": OpenclTarget("opencl:intel", "intel_graphics", 256, 64 * KIB, half=True, vector=4),
    "amd": OpenclTarget("opencl:amd", "", 256, 64 * KIB, half=True, vector=4),
    "nvidia": OpenclTarget("opencl:nvidia", "", 1024, 48 * KIB, vector=4),
    "cpu": OpenclTarget("opencl:cpu", "", 256, 32 * KIB, vector=16),
}
"""Limits as the vendors publish them, of the smallest device in use: Adreno 5xx and later, Mali
Bifrost and later, Intel Gen9 and later, AMD GCN and later, NVIDIA since Maxwell (whose OpenCL has
no half precision). The plain name is for any device: what OpenCL 1.2 promises of a full profile,
and 256 work items.

Vectors of GPUs are four floats: their widest load, 128 bits, is what the vendors' guides for OpenCL
ask for (Qualcomm's for Adreno, Arm's for Mali, Intel's, AMD's and NVIDIA's). Of CPUs, sixteen
measured best on PoCL with AVX-512; the plain name computes one by one."""
SYNTAX = f"opencl[:{'|'.join(name for name in PRESETS if name)}]"


def parse_opencl(text: str) -> OpenclTarget:
    """``opencl`` or ``opencl:mali`` -> the target.

    Raises ``ValueError`` with the nearest of the known devices.
    """
    name, _, device = text.strip().partition(":")
    if name != "opencl":
        raise ValueError(f"target {text!r} is not of the form {SYNTAX}")
    found = PRESETS.get(device.strip())
    if found is None:
        known = [preset for preset in PRESETS if preset]
        near = difflib.get_close_matches(device, known, n=2)
        hint = f" (did you mean {' or '.join(f'opencl:{one}' for one in near)}?)" if near else ""
        raise ValueError(
            f"target {text!r}: no OpenCL device {device!r}{hint}; known: "
            f"{', '.join(known)}, or plain 'opencl' for any"
        )
    return found.with_threads(host_threads())
