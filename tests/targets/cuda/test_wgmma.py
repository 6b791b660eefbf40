"""Products by warp groups: the kernels' own CUDA C++, run on an emulation of their instructions."""

from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tvm
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tvm import s_tir, tirx

from burnish.targets.cuda import nvrtc, products, sass, wgmma
from burnish.targets.cuda.resources import resources
from burnish.targets.cuda.schedule import RULE, schedule
from burnish.targets.cuda.source import prepared
from burnish.targets.cuda.target import parse_cuda
from burnish.targets.cuda.warpgroup import Group
from burnish.targets.cuda.wgmma import Tile
from burnish.targets.device_lowering import PIPELINE
from cuda_products import convolution, product
from cuda_support import require_compiler
from gpu_emulator import EmulationError, Kernel

TARGET = parse_cuda("cuda:sm_90a")
PORTABLE = parse_cuda("cuda:sm_90")
TILES = [Tile(128, 128, 3), Tile(64, 128, 4), Tile(64, 64, 4)]
SERIALIZED = re.compile(r"C75\d\d|serialized")
"""Of the assembler's notes: that it waits for products one by one, or moves their registers."""


def laid_out(func: tirx.PrimFunc, tile: Tile) -> tuple[tirx.PrimFunc, products.Form]:
    """The kernel in tiles of a size that the rule would not choose for one so small."""
    sch = s_tir.Schedule(func)
    found = products.find(sch, TARGET)
    assert found is not None
    main, form = found
    return wgmma.laid_out(sch, main, form, tile).with_attr("global_symbol", "product"), form


def source_of(func: tirx.PrimFunc) -> str:
    config = {"tirx.use_async_copy": True}
    with TARGET.tvm(), tvm.transform.PassContext(config=config):
        built = tirx.build(tvm.IRModule({"product": func}), target=TARGET.tvm(), pipeline=PIPELINE)
    return prepared(built.imports[0].inspect_source("cuda"))


def operands(func: tirx.PrimFunc, seed: int = 0) -> dict[str, np.ndarray]:
    """Small whole numbers, of which float32 sums exactly, by name, the result last."""
    rng = np.random.default_rng(seed)
    found = {}
    for param in func.params:
        dtype: Any = str(param.dtype)
        dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
        found[param.name] = rng.integers(-9, 9, [int(n) for n in param.shape]).astype(dtype)
    return found


def run(
    kernel: Kernel, given: dict[str, np.ndarray], form: products.Form, tile: Tile, **how: bool
) -> np.ndarray:
    *_, last = given
    out = np.zeros_like(given[last])
    kernel({**given, last: out}, [tile.count(form.sizes)], [32, 4, tile.groups], **how)
    return out


def check_product(m, n, k, turned, dtype, tile, seed=0):
    func = product(m, n, k, turned=turned, dtype=dtype)
    laid, form = laid_out(func, tile)
    kernel, given = Kernel(source_of(laid)), operands(func, seed)
    a, b, bias, _ = [x.astype(np.float64) for x in given.values()]
    expected = a @ (b.T if turned else b) + bias
    for late in (False, True):
        for backward in (False, True):
            got = run(kernel, given, form, tile, late=late, backward=backward)
            np.testing.assert_array_equal(got, expected, f"{late=} {backward=}")


def heavy(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.heavy)


@pytest.mark.parametrize(
    ("shape", "turned", "dtype", "tile"),
    [
        ((100, 136, 520), True, "float16", TILES[0]),
        ((130, 72, 200), False, "bfloat16", TILES[1]),
        heavy((64, 64, 64), True, "bfloat16", TILES[2]),
        heavy((70, 264, 328), False, "float16", TILES[0]),
        heavy((200, 328, 208), True, "int8", TILES[2]),
        heavy((128, 128, 1024), True, "int8", TILES[0]),
    ],
)
def test_emulated_products_are_exact(shape, turned, dtype, tile):
    check_product(*shape, turned, dtype, tile)


@pytest.mark.heavy
@settings(max_examples=5, phases=[Phase.generate])
@given(
    m=st.integers(2, 200),
    n=st.integers(2, 30),
    k=st.integers(4, 40),
    turned=st.booleans(),
    dtype=st.sampled_from(["float16", "bfloat16"]),
    tile=st.sampled_from(TILES),
    seed=st.integers(0, 99),
)
def test_emulated_products_of_any_size_are_exact(m, n, k, turned, dtype, tile, seed):
    n = n if turned else 8 * n
    k = 8 * k
    check_product(m, n, k, turned, dtype, tile, seed)


@pytest.mark.heavy
@pytest.mark.parametrize(("window", "stride", "dtype"), [(1, 1, "float16"), (3, 2, "bfloat16")])
def test_emulated_convolutions_are_exact(window, stride, dtype):
    func = convolution(24, 72, 15, window, stride, dtype)
    laid, form = laid_out(func, TILES[1])
    kernel, given = Kernel(source_of(laid)), operands(func)
    a, w, _ = [x.astype(np.float64) for x in given.values()]
    pad = window // 2
    wide = np.pad(a, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    views = np.lib.stride_tricks.sliding_window_view(wide, (window, window), axis=(1, 2))
    expected = np.einsum("nyxcij,ijco->nyxo", views[:, ::stride, ::stride], w)
    for late in (False, True):
        got = run(kernel, given, form, TILES[1], late=late)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("what", "wrong", "right"),
    [
        ("an atom's offset", "0x4000004000010000ULL", "0x4000002000010000ULL"),
        heavy("pieces not exchanged", "0x4000004000010000ULL", "0x0000004000010000ULL"),
        heavy("a step of k", "from_b + 2 * step", "from_b + 4 * step"),
        heavy("a barrier", "__syncthreads();\n    for (int", "for (int"),
        heavy("a wait for copies", "cp.async.wait_group 2;", "cp.async.wait_group 3;"),
        heavy("a wait for products", "wait_group.sync.aligned 0", "wait_group.sync.aligned 1"),
        heavy("a fence of registers", "wgmma.fence.sync.aligned;", "cp.async.commit_group;"),
        heavy("a fence of memory", "fence.proxy.async.shared::cta;", "cp.async.wait_group 7;"),
        heavy("alignment", "__align__(1024)", "__align__(128)"),
    ],
)
def test_the_emulation_tells_a_wrong_kernel(what, wrong, right):
    func = product(128, 128, 512)
    laid, form = laid_out(func, TILES[0])
    source = source_of(laid)
    assert wrong in source
    kernel, given = Kernel(source.replace(wrong, right)), operands(func)
    a, b, bias, _ = [x.astype(np.float64) for x in given.values()]
    for late in (False, True):
        try:
            got = run(kernel, given, form, TILES[0], late=late)
        except EmulationError:
            return
        if not np.array_equal(got, a @ b.T + bias):
            return
    pytest.fail(f"not noticed: {what}")


SHAPES = {
    "resnet50 1x1": ((3136, 256, 64), False),
    "resnet50 3x3, batch 8": ((6272, 128, 1152), False),
    "bert feed-forward": ((128, 3072, 768), True),
    "llama, 512 tokens": ((512, 2048, 512), True),
}
"""Products of networks of the zoo, as matrices."""


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("bert feed-forward", "bfloat16"),
        *[
            heavy(name, dtype)
            for name in SHAPES
            for dtype in ("float16", "bfloat16")
            if (name, dtype) != ("bert feed-forward", "bfloat16")
        ],
        heavy("llama, 512 tokens", "int8"),
    ],
)
def test_products_of_networks_are_hgmma_and_wait_for_no_single_one(name, dtype):
    require_compiler()
    shape, turned = SHAPES[name]
    func = schedule(product(*shape, turned=turned or dtype == "int8", dtype=dtype), TARGET)
    assert func.attrs[RULE] == "warp-group"
    code = nvrtc.compile_source(source_of(func.with_attr("global_symbol", "product")), "sm_90a")
    assert not SERIALIZED.search(code.log)
    (kernel,) = sass.kernels(code.cubin).values()
    opcode = "IGMMA" if dtype == "int8" else "HGMMA"
    assert kernel.count(opcode) >= 4
    assert kernel.count("HMMA", "IMMA", *sass.SPILLS) == 0
    loops = kernel.main_loops(opcode)
    assert all(not any(one.opcode in sass.SPILLS for one in loop) for loop in loops)
    assert kernel.count("LDGSTS") > 0 or shape[2] <= 64
    (found,) = resources(code.cubin)
    assert found.local == 0
    assert 256 * found.registers * 2 <= 65536, "two blocks fit a multiprocessor"


@pytest.mark.heavy
def test_the_assembler_tells_of_products_that_wait_for_each_other():
    require_compiler()
    func, _ = laid_out(product(256, 256, 512), TILES[0])
    end = 'asm volatile("wgmma.commit_group'
    source = source_of(func).replace(end, f"c[3] += 1.0f; {end}")
    assert SERIALIZED.search(nvrtc.compile_source(source, "sm_90a").log)


@pytest.mark.parametrize(
    ("func", "target", "rule"),
    [
        (product(1024, 1024, 512), TARGET, "warp-group"),
        (product(1024, 1024, 512), PORTABLE, "tensor-core"),
        (product(128, 128, 512), TARGET, "tensor-core"),
        (product(1024, 1024, 515), TARGET, "tensor-core"),
        (product(8, 16384, 512), TARGET, "tensor-core"),
    ],
    ids=["large", "sm_90", "few tiles", "rows not of 16 bytes", "mostly padding"],
)
def test_which_products_go_to_warp_groups(func, target, rule):
    assert schedule(func, target).attrs[RULE] == rule


def test_operands_that_groups_do_not_take_are_refused():
    with pytest.raises(ValueError, match="multiply float16, bfloat16, int8, not float32"):
        Group("float32", 128, False)
    with pytest.raises(ValueError, match="int8 cannot be turned"):
        Group("int8", 128, True)
    with pytest.raises(ValueError, match="64, 128 or 256 columns, not 96"):
        Group("int8", 96, False)
