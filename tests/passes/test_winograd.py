"""Which convolutions take Winograd's form, and what becomes of their weights."""

from __future__ import annotations

import numpy as np
import pytest
import tvm_ffi
from kernel_support import Case, lowered, module, normal
from tvm import relax, tirx

from burnish.compiler.config import CompileConfig
from burnish.passes.configs import QuantizeConfig
from burnish.passes.pack_weights import PackWeights
from burnish.passes.params import get_params
from burnish.passes.quantize import QuantizeWeights
from burnish.passes.winograd import transformed
from burnish.targets.cpu.winograd_plan import Convolution, layout
from burnish.targets.target import CpuTarget
from burnish.targets.winograd import F2, F4
from relax_support import apply, op_names

op = relax.op
TARGET = CpuTarget(mcpu="znver4", threads=2, lanes=16, registers=32, l2=1 << 20)


def last(size: int = 28, depth: int = 32, out: int = 48, kernel: int = 3, **attrs: object) -> Case:
    """One convolution over NHWC data."""
    groups = int(attrs.get("groups", 1))
    return Case(
        lambda x, w: op.nn.conv2d(
            x, w, padding=1, data_layout="NHWC", kernel_layout="OHWI", **attrs
        ),
        lambda x, w: x,
        {"x": normal(0, 1, size, size, depth)},
        {"a.weight": normal(1, out, kernel, kernel, depth // groups)},
    )


def kernels(mod: object) -> list[str]:
    return [var.name_hint for var, f in mod.functions.items() if isinstance(f, tirx.PrimFunc)]


def test_a_weight_keeps_its_name_and_is_transformed():
    case = last()
    after = apply(PackWeights(TARGET), module(case))
    assert kernels(after) == ["winograd"]
    assert op_names(after).count("call_tir") == 1
    assert list(get_params(after)) == ["a.weight"]
    width = layout(Convolution(1, 28, 28, 32, 48, (1, 1, 1, 1)), F4, TARGET).nb
    assert tuple(get_params(after)["a.weight"].shape) == (-(-48 // width), 6, 6, 32, width)


@pytest.mark.parametrize("algorithm", [F2, F4])
def test_a_transformed_weight_is_rounded_once(algorithm):
    weight = normal(3, 20, 3, 3, 5)
    packed = transformed(weight, algorithm, 16)
    stored = packed.arrays[""]
    assert stored.shape == (2, algorithm.n, algorithm.n, 5, 16)
    g = algorithm.weight_matrix()
    want = np.float32(g @ weight[17, :, :, 2].astype("float64") @ g.T)
    np.testing.assert_allclose(stored[1, :, :, 2, 1], want, rtol=2e-7, atol=1e-9)
    assert not stored[1, :, :, :, 4:].any()


def test_again_changes_nothing():
    once = PackWeights(TARGET)(module(last()))
    twice = PackWeights(TARGET)(once)
    assert tvm_ffi.structural_equal(once["main"], twice["main"])
    assert list(get_params(once)) == list(get_params(twice))


@pytest.mark.parametrize(
    "case",
    [
        last(kernel=1),
        last(kernel=5),
        last(strides=2),
        last(dilation=2),
        last(out=64, groups=2),
        last(size=2, depth=128, out=128),
    ],
    ids=["1x1", "5x5", "strided", "dilated", "grouped", "too small to pay"],
)
def test_others_stay_direct(case):
    assert kernels(PackWeights(TARGET)(module(case))) == ["conv2d"]


def test_codes_stay_direct():
    codes = QuantizeWeights(QuantizeConfig(bits=8))(module(last()))
    assert kernels(PackWeights(TARGET)(codes)) == ["conv2d"]


def test_exact_convolutions_stay_direct():
    case = Case(
        lambda x, w: op.nn.conv2d(x, w, padding=1),
        lambda x, w: x,
        {"x": normal(0, 1, 32, 28, 28)},
        {"a.weight": normal(1, 48, 32, 3, 3)},
    )
    fast = kernels(lowered(module(case), TARGET))
    exact = kernels(lowered(module(case), TARGET, CompileConfig(exact_conv=True)))
    assert "winograd" in fast
    assert "conv2d" not in fast
    assert "conv2d" in exact
    assert "winograd" not in exact
    direct = PackWeights(TARGET, exact_conv=True)(module(last()))
    assert kernels(direct) == ["conv2d"]
