"""Architectures and instruction sets: what this machine has, by the kernel's word for it.

Names of instruction sets are LLVM's.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Iterable

_X86_FLAGS = {
    **{name: name for name in ("sse2", "ssse3", "sse4a", "avx", "avx2", "fma", "fma4", "f16c")},
    **{name: name for name in ("bmi2", "popcnt", "movbe", "gfni", "xop", "tbm")},
    **{f"avx512{name}": f"avx512{name}" for name in ("f", "cd", "bw", "dq", "vl", "ifma", "vbmi")},
    **{f"avx512{name}": f"avx512_{name}" for name in ("vbmi2", "vnni", "bitalg", "vpopcntdq")},
    **{f"avx512{name}": f"avx512_{name}" for name in ("bf16", "fp16")},
    "sse3": "pni",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "bmi": "bmi1",
    "lzcnt": "abm",
    "avxvnni": "avx_vnni",
    "avxvnniint8": "avx_vnni_int8",
    "avxvnniint16": "avx_vnni_int16",
    "avxifma": "avx_ifma",
    "avxneconvert": "avx_ne_convert",
}
_ARM_FLAGS = {
    "neon": "asimd",
    "fp-armv8": "fp",
    "dotprod": "asimddp",
    "fullfp16": "asimdhp",
    "fp16fml": "asimdfhm",
    "rdm": "asimdrdm",
    "complxnum": "fcma",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
    "flagm": "flagm",
}
FLAGS = {"x86_64": _X86_FLAGS, "aarch64": _ARM_FLAGS}
"""By architecture, LLVM's name of an instruction set -> the flag of ``/proc/cpuinfo``."""


def machine_name(triple: str) -> str:
    """The architecture of a triple or of ``platform.machine()``: ``x86_64``, ``aarch64``, ..."""
    name = triple.lower().partition("-")[0]
    return {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}.get(name, name)


@functools.cache
def host_flags() -> frozenset[str]:
    """What the kernel says that this CPU can do; empty where it does not say."""
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() in ("flags", "Features"):
                    return frozenset(value.split())
    except OSError:
        pass
    return frozenset()


def portable_targets(machine: str) -> str:
    """Targets whose code runs on most machines of an architecture, for error messages."""
    return {
        "x86_64": "'llvm -mcpu=x86-64-v3' (AVX2) or 'llvm -mcpu=x86-64-v2' (SSE4.2)",
        "aarch64": "'llvm -mtriple=aarch64-linux-gnu -mcpu=generic' (NEON)",
    }.get(machine, "an llvm target for it")


_ONLY_CHECKED = {"altnzcv": "flagm2", "sve-bitperm": "svebitperm", "sve2-bitperm": "svebitperm"}


def missing(needed: Iterable[str]) -> list[str]:
    """Instruction sets of ``needed`` that this machine is not known to have, sorted."""
    table = _ONLY_CHECKED | FLAGS.get(machine_name(platform.machine()), {})
    flags = host_flags()
    return sorted(name for name in needed if table.get(name, name) not in flags)
