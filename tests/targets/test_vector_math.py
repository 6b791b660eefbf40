"""The written-out functions against float64, to the bounds their docstring states."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kernel_support import Case, build, check, normal, reference
from tvm import relax
from tvm.ir import Call
from tvm.ir.prim import Let

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
    "sin": (op.sin, torch.sin, "absolute", 2e-7),
    "cos": (op.cos, torch.cos, "absolute", 2e-7),
    "tan": (op.tan, torch.tan, "relative", 4e-7),
    "rsqrt": (op.rsqrt, torch.rsqrt, "relative", 2e-7),
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


ODD, EVEN = 16777215, 16777218
WHOLE = (1, 2, 3, -1, -2, -3, ODD, -ODD, EVEN, -EVEN, 1e30, -1e30)
BASES = np.array([*SPECIAL, *WHOLE, 0.5, -0.5, 2.5, -2.5, 1.0000001, 0.9999999], np.float32)


def test_sine_keeps_zero_its_sign_and_small_angles_their_digits():
    x = np.array([0.0, -0.0, 1e-30, -1e-30, 2.0**-149, 1e-3, 0.7853981, 0.7853982], np.float32)
    built = build(Case(lambda x: [op.sin(x), op.tan(x)], None, {"x": x}))
    for y, want in zip(built(x), (np.sin(x.astype("f8")), np.tan(x.astype("f8"))), strict=True):
        np.testing.assert_allclose(y, want, rtol=2e-7, atol=TINY)
        np.testing.assert_array_equal(np.signbit(y), np.signbit(x))


def powers(x: np.ndarray, y: np.ndarray) -> None:
    built = build(Case(op.power, None, {"x": x, "y": y}))
    calls = walk(built.kernels[0].body, Call)
    assert not [call for call in calls if getattr(call.op, "name", "") == "tirx.pow"]
    (z,) = built(x, y)
    with np.errstate(all="ignore"):
        want = np.power(x.astype(np.float64), y.astype(np.float64))
        rounded = want.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(z), np.isnan(rounded))
    beyond = np.isinf(rounded)
    np.testing.assert_array_equal(z[beyond], rounded[beyond])
    zero = rounded == 0
    np.testing.assert_array_equal(np.signbit(z[zero]), np.signbit(rounded[zero]))
    finite = np.isfinite(rounded)
    np.testing.assert_allclose(z[finite], want[finite], rtol=2e-7, atol=TINY)


def test_every_pair_of_special_values_has_the_power_that_c_gives_it():
    x, y = np.meshgrid(BASES, BASES)
    powers(x.ravel(), y.ravel())


def pairs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Any bit patterns, and pairs whose power is within float32, near 1 too."""
    rng = np.random.default_rng(seed)
    any_x, any_y = rng.integers(0, 2**32, (2, count), dtype=np.uint32).view(np.float32)
    wide = np.exp(rng.uniform(-87, 87, count)).astype(np.float32)
    near = (1 + rng.uniform(-0.01, 0.01, count)).astype(np.float32)
    x = np.concatenate([wide, near[near != 1]])
    y = rng.uniform(-103, 88, len(x)) / np.log(x.astype(np.float64))
    return np.concatenate([any_x, x]), np.concatenate([any_y, y.astype(np.float32)])


def test_powers_of_any_pair_keep_their_bound():
    powers(*pairs(1 << 17, 0))


@pytest.mark.heavy
def test_powers_of_many_pairs_keep_their_bound():
    powers(*pairs(1 << 23, 1))


def test_functions_of_functions_compile_in_proportion():
    """TVM's analyses would look at each use of each binding of each other."""
    x = normal(0, 500)
    functions = [
        (lambda x: op.cos(op.cos(op.cos(x))), lambda x: x.cos().cos().cos()),
        (lambda x: op.power(op.exp(x), op.cos(x)), lambda x: x.exp() ** x.cos()),
        (lambda x: op.tanh(op.nn.gelu(op.sigmoid(x))), lambda x: F.gelu(x.sigmoid()).tanh()),
    ]
    case = Case(
        lambda x: [ours(x) for ours, _ in functions],
        lambda x: [theirs(x) for _, theirs in functions],
        {"x": x},
    )
    for kernel in check(case).kernels:
        assert walk(kernel.body, Let) == []


EXPONENTS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 2.5, -3.0, 0.3125)


def test_constant_exponents_give_what_torch_gives():
    edges = SPECIAL[~np.isfinite(SPECIAL) | (np.abs(SPECIAL) < 1e9)]
    x = np.concatenate([edges[np.abs(edges) >= 2.0**-126], np.linspace(-5, 5, 1001, dtype="f4")])
    x = np.concatenate([x, np.array([np.nan, 0.0], np.float32)])
    case = Case(
        lambda x: [op.power(x, relax.const(e, "float32")) for e in EXPONENTS],
        lambda x: [x**e for e in EXPONENTS],
        {"x": x},
    )
    built = build(case)
    for kernel in built.kernels:
        names = [getattr(call.op, "name", "") for call in walk(kernel.body, Call)]
        assert "tirx.pow" not in names
    for z, want in zip(built(x), reference(case), strict=True):
        with np.errstate(over="ignore"):
            rounded = want.astype(np.float32)
        finite = np.isfinite(rounded)
        np.testing.assert_array_equal(z[~finite], rounded[~finite])
        np.testing.assert_allclose(z[finite], want[finite], rtol=4e-7, atol=TINY)


def test_other_dtypes_stay_with_the_library():
    wide = np.linspace(0.1, 4, 37)
    functions = {op.exp: np.exp, op.sin: np.sin, op.log: np.log}
    built = build(Case(lambda x: [ours(x) for ours in functions], None, {"x": wide}))
    for exact, theirs in zip(built(wide), functions.values(), strict=True):
        np.testing.assert_allclose(exact, theirs(wide), rtol=1e-14)
