"""Whether a case's outputs are right: shapes, dtypes, and values within the suite's tolerances."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx.backend.test.runner import Runner

from onnx_suite.cases import Case

DRAWS = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform")

NOISE: dict[str, tuple[float, float, str]] = {
    **dict.fromkeys(
        ("test_dft_inverse", "test_dft_inverse_opset19"),
        (0.0, float(np.finfo(np.float32).eps), "the expected values hold float32 noise of an FFT"),
    ),
    "test_attention_4d_causal_fp16_expanded": (
        2**-9,
        0.0,
        "expected values rounded to float16 at each step are further from float64 than ours",
    ),
}
"""Cases that fail by the suite's tolerances because their expected values are the less exact ones:
rtol, atol over the largest expected value, why. Such a case is ``inexact``, not a pass."""


def is_random(case: Case) -> bool:
    """Whether the outputs are drawn: no two runtimes give the same values."""
    model = onnx.ModelProto.FromString(case.model)
    ops = {node.op_type for node in model.graph.node}
    ops |= {node.op_type for function in model.functions for node in function.node}
    drawn = bool(ops & {*DRAWS, "RandomUniformLike"})
    return drawn or (case.name.startswith("test_training_dropout") and "zero" not in case.name)


def compare(case: Case, want: list[Any], got: list[Any]) -> str:
    """Why the case is inexact, or "" where it is right by the suite's own tolerances.

    Raises AssertionError, with what differs, where it is neither.
    """
    _same_kind(want, got)
    # The suite's own walk of sequences stops at elements of rank 0.
    want, got = _flat(want), _flat(got)
    try:
        Runner.assert_similar_outputs(want, got, rtol=case.rtol, atol=case.atol)
    except AssertionError:
        if case.name not in NOISE:
            raise
        rtol, of_largest, why = NOISE[case.name]
        atol = max(case.atol, of_largest * float(np.abs(want[0]).max()))
        Runner.assert_similar_outputs(want, got, rtol=max(case.rtol, rtol), atol=atol)
        return why
    return ""


def _flat(values: list[Any]) -> list[Any]:
    """The arrays of nested sequences, in order; nesting is compared before."""
    flat = [_flat(v) if isinstance(v, (list, tuple)) else [v] for v in values]
    return [array for part in flat for array in part if array is not None]


def _same_kind(want: Any, got: Any) -> None:
    """Stricter than the suite: nesting, absent values, dtypes of scalars."""
    if isinstance(want, (list, tuple)):
        assert isinstance(got, (list, tuple)), f"{type(got).__name__} for a sequence"
        assert len(want) == len(got), f"{len(got)} values, wanted {len(want)}"
        for a, b in zip(want, got, strict=True):
            _same_kind(a, b)
    elif want is None:
        assert got is None, "a value where none is wanted"
    else:
        assert isinstance(got, np.ndarray), f"{type(got).__name__} is no array"
        want = np.asarray(want)
        assert got.dtype == want.dtype, f"dtype {got.dtype}, wanted {want.dtype}"
        assert got.shape == want.shape, f"shape {got.shape}, wanted {want.shape}"


def compare_random(case: Case, inputs: list[Any], runs: list[list[Any]]) -> None:
    """Shapes and dtypes of drawn outputs, that calls differ, and that their mean is right.

    The mean over all runs may be off by five standard errors.
    """
    want = [np.asarray(value) for value in case.data[0][1]]
    for run in runs:
        _same_kind(want, run)
    first = np.stack([np.asarray(run[0], np.float64) for run in runs])
    if len(runs) > 1 and "seed" not in case.name:
        assert np.ptp(first, axis=0).any(), "every call draws the same"
    data = np.asarray(inputs[0], np.float64)
    if "dropout" in case.name:
        ratio = float(inputs[1]) if len(inputs) > 1 else 0.5
        kept = first != 0
        np.testing.assert_allclose(
            first[kept], np.broadcast_to(data / (1 - ratio), first.shape)[kept], rtol=1e-5
        )
        chance = np.full(first.shape, 1 - ratio)
        if len(want) > 1:
            mask = np.stack([run[1] for run in runs])
            assert (mask == kept).all(), "the mask does not say what was dropped"
    else:
        assert np.isin(first, (0, 1)).all(), "values other than 0 and 1"
        # The body that Bernoulli's schema gives compares the other way round.
        chance = 1 - data if case.name.endswith("_expanded") else data
        kept, chance = first != 0, np.broadcast_to(chance, first.shape)
    error = kept.mean() - chance.mean()
    allowed = 5 * np.sqrt((chance * (1 - chance)).sum()) / chance.size
    assert abs(error) <= allowed, f"{kept.mean():.4f} ones, expected {chance.mean():.4f}"
