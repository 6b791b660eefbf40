"""The exponential of a softmax over its whole range."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import te

from burnish.targets.cpu.schedule import schedule
from burnish.targets.cpu.softmax import power
from burnish.targets.target import host


def powers(x: np.ndarray) -> np.ndarray:
    a = te.placeholder(x.shape, "float32", "a")
    func = te.create_prim_func([a, te.compute(x.shape, lambda i: power(a(i)))])
    target = host()
    with target.tvm():
        ready = schedule(func, target).with_attr("global_symbol", "powers")
        built = tvm.build(tvm.IRModule({"powers": ready}), target=target.tvm())
    out = tvm.runtime.tensor(np.empty_like(x))
    built["powers"](tvm.runtime.tensor(x), out)
    return out.numpy()


def test_within_its_bound_of_float64():
    rng = np.random.default_rng(0)
    x = np.concatenate([-rng.exponential(3, 100_000), -rng.uniform(0, 87, 100_000), [0, -87]])
    x = x.astype("float32")
    want = np.exp(x.astype("float64"))
    error = np.abs(powers(x) - want) / want
    assert (error < 2e-7 + 1.4e-8 * np.abs(x)).all()


def test_special_values():
    odd = np.uint32(0x7FC00001).view("float32")
    x = np.array([-np.inf, -1e38, -88, 0, np.nan, odd, -0.0, -104], "float32")
    np.testing.assert_array_equal(powers(x), [0, 0, 0, 1, np.nan, np.nan, 1, 0])
