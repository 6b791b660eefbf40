"""Instruction sets and caches of CPUs by name: what LLVM's feature lists do not say.

LLVM describes a CPU by features. Some are hints for tuning, some are instructions that only
intrinsics reach and no kernel here uses; neither can stop code from running elsewhere. The rest
are what :func:`instruction_sets` keeps.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable

from burnish.runtime.isa import FLAGS, host_flags, machine_name, portable_targets

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


def caches(mcpu: str) -> tuple[int, int, int]:
    """Bytes of the L1 data, L2 and L3 cache of a CPU by LLVM's name for it; small if unknown."""
    return next((sizes for name, sizes in _CACHES if re.fullmatch(name, mcpu)), _SMALLEST)


def corrections(features: Iterable[str], flags: frozenset[str], *, known: bool) -> tuple[str, ...]:
    """``-mattr`` that makes LLVM's ``features`` of this CPU's model what the machine has.

    A hypervisor may hide what the model has. Where LLVM does not know the model (``known``), the
    flags say what is there.
    """
    if not flags:
        return ()
    table = FLAGS.get(machine_name(platform.machine()), {})
    believed = set(features)
    hidden = [f"-{f}" for f, flag in table.items() if f in believed and flag not in flags]
    found = [f"+{f}" for f, flag in table.items() if f not in believed and flag in flags]
    return tuple(hidden if known else [*hidden, *found])


__all__ = [
    "caches",
    "corrections",
    "host_flags",
    "instruction_sets",
    "machine_name",
    "portable_targets",
]
