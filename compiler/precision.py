"""What floats are computed in: the settings, and which targets they need."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from burnish.compiler.errors import ConfigError

if TYPE_CHECKING:
    from burnish.targets.choose import Target

STORED: dict[str, str | None] = {
    "fp32": None,
    "tf32": None,
    "bf16": "bfloat16",
    "fp16": "float16",
}
"""Precision -> the type that weights are stored in, where it is not their own.

``fp32``  exact float32.
``tf32``  products on a GPU's tensor cores read 19 of the 32 bits of a float32, sums are float32.
``bf16``  weights and what they are multiplied by are bfloat16, sums and all else float32.
``fp16``  weights are stored as float16 and computed with as float32.
"""
_CONVERTS_FLOAT16 = {"f16c", "avx512f", "neon", "fullfp16"}


def in_precision(precision: str, target: Target) -> Target:
    """``target`` that computes in a precision it was checked for."""
    from burnish.targets.cuda.target import CudaTarget
    from burnish.targets.hetero import HeteroTarget, Single

    def single(one: Single) -> Single:
        return replace(one, tf32=precision == "tf32") if isinstance(one, CudaTarget) else one

    return target.with_targets(single) if isinstance(target, HeteroTarget) else single(target)


def check_precision(precision: str, target: Target) -> None:
    """Raise :class:`ConfigError` where ``target`` lacks the instructions of a precision.

    Of several devices one of the precision's kind is enough: the others compute in the model's
    own types.
    """
    from burnish.targets.cpu import dots
    from burnish.targets.cuda.target import CudaTarget
    from burnish.targets.hetero import HeteroTarget
    from burnish.targets.target import CpuTarget

    if isinstance(target, HeteroTarget) and precision != "fp32":
        kind = CudaTarget if precision == "tf32" else CpuTarget
        own = [
            one.runs
            for one in target.places
            if isinstance(one.runs, kind) and (one.there or not one.backend)
        ]
        if not own:
            what = "a GPU of CUDA" if kind is CudaTarget else "a CPU"
            raise ConfigError(
                f"precision={precision!r} is for {what}, and the devices of {target.name!r} are "
                "others, which compute in the model's own types: leave precision out, or give the "
                "model in two bytes, as model.half()"
            )
        for one in own:
            check_precision(precision, one)
        return
    if precision == "tf32":
        if not isinstance(target, CudaTarget) or target.capability < 80:
            raise ConfigError(
                'precision="tf32" needs tensor cores of sm_80 or later, which the target '
                f'{target.name!r} need not have: target="cuda:sm_80" has them'
            )
        return
    if not isinstance(target, CpuTarget):
        if precision != "fp32":
            raise ConfigError(
                f"precision={precision!r} is for CPUs; the target {target.name!r} computes in the "
                "model's own types, with sums in float32: give it the model in two bytes, as "
                "model.half() or model.bfloat16()"
            )
        return
    if precision == "bf16" and not any(
        known.left == known.right == "bfloat16" for known in dots.instructions_of(target)
    ):
        raise ConfigError(
            f'precision="bf16" needs a CPU with AVX512-BF16, which the target {target.name!r} '
            f'({target.mcpu}) has not; precision="fp16" halves the weights on any CPU with F16C '
            "or NEON"
        )
    if precision == "fp16" and not _CONVERTS_FLOAT16.intersection(target.isa()):
        raise ConfigError(
            f'precision="fp16" needs a CPU with F16C or NEON, which the target {target.name!r} '
            f'({target.mcpu}) has not; quantize="int8" makes weights smaller on any CPU'
        )
