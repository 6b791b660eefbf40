"""The written-out functions against float64, to the bounds their docstring states."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_support import Case, build
from tvm import relax
from tvm.ir import Call

from burnish.targets.cpu.stages import walk

op = relax.op
TINY = np.float64(2.0**-149)
"""The smallest float32: what a result this small is rounded to."""
INFINITE = (np.inf, -np.inf, np.nan, -np.nan)
SUBNORMAL = (0.0, -0.0, 2.0**-149, -(2.0**-149), 2.0**-126, -(2.0**-126))
EDGES = (88.72283, 88.72284, -87.33654, -103.97207, -103.97208, -103.2789, 0.625, -0.625, 4, -4)
LARGE = (3.4028235e38, -3.4028235e38, 9, -9, 10, -10, 1, -1, 0.70710677, 0.7071068)
SPECIAL = np.array([*INFINITE, *SUBNORMAL, *EDGES, *LARGE], np.float32)
FUNCTIONS = {
    "exp": (op.exp, torch.exp, "relative", 2e-7),
    "log": (op.log, torch.log, "either", 3e-7),
    "tanh": (op.tanh, torch.tanh, "relative", 3e-7),
    "sigmoid": (op.sigmoid, torch.sigmoid, "normal", 3e-7),
    "erf": (op.erf, torch.erf, "absolute", 5e-7),
}


def bit_patterns(step: int) -> np.ndarray:
    """Every ``step``-th float32 there is, NaNs too, between the special ones."""
    patterns = np.arange(0, 2**32, step, dtype=np.uint32).view(np.float32)
    near = np.linspace(-12, 12, 200_003, dtype=np.float32)
    return np.concatenate(
        [SPECIAL, near, np.linspace(-110, 100, 100_003, dtype=np.float32), patterns]
    )


def agrees(name: str, step: int) -> None:
    ours, theirs, kind, bound = FUNCTIONS[name]
    x = bit_patterns(step)
    built = build(Case(ours, theirs, {"x": x}))
    (kernel,) = built.kernels
    left = {call.op.name for call in walk(kernel.body, Call) if hasattr(call.op, "name")}
    assert f"tirx.{name}" not in left
    (y,) = built(x)
    with np.errstate(all="ignore"):
        want = theirs(torch.from_numpy(x.astype(np.float64))).numpy()
        rounded = want.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(rounded))
    kept = ~np.isnan(rounded)
    # Where float32 has no finite value for the result, infinity is the result.
    beyond = kept & np.isinf(rounded)
    np.testing.assert_array_equal(y[beyond], rounded[beyond])
    finite = kept & ~beyond
    error = np.abs(y[finite].astype(np.float64) - want[finite])
    size = np.abs(want[finite])
    allowed = {
        "relative": bound * size + TINY,
        "normal": bound * size + 2.0**-126,
        "absolute": np.full_like(size, bound),
        "either": np.maximum(bound * size, bound),
    }[kind]
    worst = np.argmax(error / allowed)
    assert error[worst] <= allowed[worst], (x[finite][worst], y[finite][worst], want[finite][worst])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_keeps_its_bound_over_all_of_float32(name):
    agrees(name, 8191)


@pytest.mark.heavy
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_keeps_its_bound_on_every_67th_float32(name):
    agrees(name, 67)


@pytest.mark.parametrize("exponent", [2.0, 3.0])
def test_small_powers_are_products(exponent):
    x = np.concatenate([SPECIAL[np.abs(SPECIAL) < 1e12], np.linspace(-5, 5, 1001, dtype="f4")])
    case = Case(
        lambda x: op.power(x, relax.const(exponent, "float32")), lambda x: x**exponent, {"x": x}
    )
    built = build(case)
    calls = walk(built.kernels[0].body, Call)
    assert not [call for call in calls if getattr(call.op, "name", "") == "tirx.pow"]
    np.testing.assert_allclose(built(x)[0], x**exponent, rtol=3e-7)


def test_other_powers_and_other_dtypes_stay_with_the_library():
    x = np.linspace(0.1, 4, 37).astype("float32")
    case = Case(lambda x: op.power(x, relax.const(2.5, "float32")), lambda x: x**2.5, {"x": x})
    np.testing.assert_allclose(build(case)(x)[0], x.astype("float64") ** 2.5, rtol=1e-6)
    wide = x.astype("float64")
    exact = build(Case(op.exp, torch.exp, {"x": wide}))(wide)[0]
    np.testing.assert_allclose(exact, np.exp(wide), rtol=1e-14)
