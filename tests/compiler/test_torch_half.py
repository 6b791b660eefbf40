"""Whole models in half and bfloat16: as far from float64 as eager is, in and out in two bytes."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES

import burnish
from burnish.compiler.parity import leaves

WORSE = 2.0
"""Our error over eager's: the same numbers are rounded, at the ends of other sums."""
UNIT = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


def arrays(outputs: Any) -> list[np.ndarray]:
    return [np.asarray(value, np.float64) for _, value in leaves(outputs)]


def cast(inputs: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}


@pytest.mark.heavy
@pytest.mark.parametrize("dtype", UNIT, ids=str)
@pytest.mark.parametrize("name", ["llama", "bert", "vit", "resnet", "whisper"])
def test_as_far_from_float64_as_eager(name: str, dtype: torch.dtype) -> None:
    (case,) = (case for case in ARCHITECTURES if case.model_type == name)
    base = case.model()
    model, exact = base.to(dtype), copy.deepcopy(base).to(dtype).double()
    inputs = cast(case.inputs(base), dtype)
    with torch.no_grad():
        eager, want = arrays(model(**inputs)), arrays(exact(**cast(inputs, torch.float64)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers, of its own sizes
        ready = burnish.compile(model, inputs, do_no_harm=False, threads=2)
    assert {spec.dtype for spec in ready.signature.outputs} == {str(dtype).removeprefix("torch.")}
    for ours, theirs, ref in zip(arrays(ready(**inputs)), eager, want, strict=True):
        error, allowed = (np.linalg.norm(x - ref) / np.linalg.norm(ref) for x in (ours, theirs))
        assert error <= max(WORSE * allowed, UNIT[dtype])
