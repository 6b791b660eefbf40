"""Instruction sets and caches of CPUs by name: what LLVM's feature lists do not say.

LLVM describes a CPU by features. Some are hints for tuning, some are instructions that only
intrinsics reach and no kernel here uses; neither can stop code from running elsewhere. The rest
are what :func:`instruction_sets` keeps.
"""

from __future__ import annotations

import functools
import platform
import re
from collections.abc import Iterable

_RELEVANT = re.compile(
    "|".join(
        # x86: what LLVM selects by itself; AES, AMX and the like come from intrinsics only.
        (
            *("sse", r"sse[234][.\da]*", "ssse3", "avx(?!512vp2intersect).*", "fma4?", "f16c"),
            *("bmi2?", "lzcnt", "popcnt", "movbe", "gfni", "xop", "tbm"),
            *("egpr", "ndd", "nf", "ccmp", "ppx", "push2pop2", "zu"),
            # ARM
            *("neon", "fp-armv8", "fullfp16", "fp16fml", "dotprod", "i8mm", "bf16", "rdm"),
            *("complxnum", "sve.*", "flagm", "altnzcv"),
        )
    )
)

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
_FLAGS = {"x86_64": _X86_FLAGS, "aarch64": _ARM_FLAGS}

_KIB, _MIB = 1024, 1024 * 1024
# Bytes of the L1 data, L2 and L3 cache, the first two per core, from the makers' manuals; the
# smallest L3 in which the CPU is sold.
_CACHES: tuple[tuple[str, tuple[int, int, int]], ...] = (
    (r"znver[123]|bdver\d", (32 * _KIB, 512 * _KIB, 8 * _MIB)),
    (r"znver4", (32 * _KIB, _MIB, 16 * _MIB)),
    (r"znver\d", (48 * _KIB, _MIB, 16 * _MIB)),
    (r"skylake-avx512|cascadelake|cooperlake", (32 * _KIB, _MIB, 11 * _MIB)),
    (r"icelake-server", (48 * _KIB, 1280 * _KIB, 12 * _MIB)),
    (r"(sapphire|emerald|granite|diamond)rapids", (48 * _KIB, 2 * _MIB, 24 * _MIB)),
    (r"icelake-client|tigerlake|rocketlake", (48 * _KIB, 512 * _KIB, 8 * _MIB)),
    (r"(alder|raptor|meteor|arrow|lunar|panther)lake.*", (48 * _KIB, 1280 * _KIB, 12 * _MIB)),
    (r"nehalem|westmere|corei7.*|core-avx.*", (32 * _KIB, 256 * _KIB, 4 * _MIB)),
    (r"sandybridge|ivybridge|haswell|broadwell|skylake", (32 * _KIB, 256 * _KIB, 4 * _MIB)),
    (r"x86-64.*", (32 * _KIB, 256 * _KIB, 4 * _MIB)),
    (r"cortex-a(53|55|510|520)", (32 * _KIB, 128 * _KIB, 512 * _KIB)),
    (r"cortex-a7[235]", (32 * _KIB, 256 * _KIB, _MIB)),
    (r"cortex-(a7[678]|a71\d|a72\d|x\d).*", (64 * _KIB, 256 * _KIB, 2 * _MIB)),
    (r"neoverse-(n1|n2|v1|e1|512tvb)", (64 * _KIB, _MIB, 16 * _MIB)),
    (r"neoverse-.*", (64 * _KIB, 2 * _MIB, 16 * _MIB)),
    (r"ampere1.*", (64 * _KIB, 2 * _MIB, 16 * _MIB)),
    (r"apple-.*", (128 * _KIB, 2 * _MIB, 8 * _MIB)),
    (r"a64fx", (64 * _KIB, 512 * _KIB, 8 * _MIB)),
)
_SMALLEST = (32 * _KIB, 256 * _KIB, 2 * _MIB)


def instruction_sets(features: Iterable[str]) -> tuple[str, ...]:
    """Those of LLVM's ``features`` without which code may die on an illegal instruction, sorted."""
    return tuple(sorted(feature for feature in features if _RELEVANT.fullmatch(feature)))


def machine_name(triple: str) -> str:
    """The architecture of a triple or of ``platform.machine()``: ``x86_64``, ``aarch64``, ..."""
    name = triple.lower().partition("-")[0]
    return {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}.get(name, name)


def caches(mcpu: str) -> tuple[int, int, int]:
    """Bytes of the L1 data, L2 and L3 cache of a CPU by LLVM's name for it; small if unknown."""
    return next((sizes for name, sizes in _CACHES if re.fullmatch(name, mcpu)), _SMALLEST)


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


def corrections(features: Iterable[str], flags: frozenset[str], *, known: bool) -> tuple[str, ...]:
    """``-mattr`` that makes LLVM's ``features`` of this CPU's model what the machine has.

    A hypervisor may hide what the model has. Where LLVM does not know the model (``known``), the
    flags say what is there.
    """
    if not flags:
        return ()
    table = _FLAGS.get(machine_name(platform.machine()), {})
    believed = set(features)
    hidden = [f"-{f}" for f, flag in table.items() if f in believed and flag not in flags]
    found = [f"+{f}" for f, flag in table.items() if f not in believed and flag in flags]
    return tuple(hidden if known else [*hidden, *found])


def portable_targets(machine: str) -> str:
    """Targets whose code runs on most machines of an architecture, for error messages."""
    return {
        "x86_64": "'llvm -mcpu=x86-64-v3' (AVX2) or 'llvm -mcpu=x86-64-v2' (SSE4.2)",
        "aarch64": "'llvm -mtriple=aarch64-linux-gnu -mcpu=generic' (NEON)",
    }.get(machine, "an llvm target for it")


__all__ = [
    "caches",
    "corrections",
    "host_flags",
    "instruction_sets",
    "machine_name",
    "portable_targets",
]
