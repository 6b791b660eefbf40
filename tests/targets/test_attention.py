"""Attention of any size: blocks of keys, shared keys, rows that decode, memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kernel_cases import attention_reference, repeated
from kernel_support import Case, build, check, compare, normal, reference
from tvm import relax, tirx
from tvm.tirx import AllocBuffer

from burnish.targets.cpu import loops
from burnish.targets.cpu.attention.plan import FEW_ROWS
from burnish.targets.cpu.stages import simplified, walk

op = relax.op


def heads(
    b: int, m: int, n: int, h: int = 2, kv: int = 2, d: int = 16, e: int = 16
) -> dict[str, np.ndarray]:
    return {
        "q": normal(0, b, m, h, d),
        "k": normal(1, b, n, kv, d),
        "v": normal(2, b, n, kv, e),
    }


def case(inputs: dict[str, np.ndarray], causal: str | None = None, **more: object) -> Case:
    group = inputs["q"].shape[2] // inputs["k"].shape[2]

    def expected(q, k, v, bias=None):
        k, v = (x.repeat_interleave(group, 2) for x in (k, v))
        return attention_reference(q, k, v, bias, causal)

    return Case(
        lambda q, k, v, bias=None: op.nn.attention(
            q, repeated(k, group), repeated(v, group), bias, None, causal
        ),
        expected,
        inputs,
        **more,
    )


@pytest.mark.parametrize("causal", [None, "TopLeft", "BottomRight"])
@pytest.mark.parametrize(
    "n",
    [770, *(pytest.param(n, marks=pytest.mark.heavy) for n in (384, 385, 512, 768, 1030, 4100))],
)
def test_rows_longer_than_a_block_of_keys(n, causal):
    m = 40 if causal != "TopLeft" else 530
    check(case(heads(1, m, n, 1, 1), causal))


def test_a_larger_score_in_a_later_block_rescales_what_came_before():
    inputs = heads(1, 30, 1000)
    inputs["k"][:, 600:] *= 30
    inputs["v"][:, :600] += 100
    check(case(inputs))
    bias = np.full((1, 1, 1, 1000), np.finfo("float32").min, "float32")
    bias[..., 900:] = 0
    check(case({**inputs, "bias": bias}))


def test_blocks_of_keys_that_are_all_masked():
    inputs = heads(1, 9, 1000)
    bias = np.zeros((1, 1, 9, 1000), "float32")
    bias[..., :300] = -np.inf
    bias[..., 3, :] = -np.inf
    bias[..., 4, :] = np.finfo("float32").min
    (y,) = build(case({**inputs, "bias": bias}))(*inputs.values(), bias)
    np.testing.assert_array_equal(y[0, 3], 0)
    np.testing.assert_allclose(y[0, 4], inputs["v"][0].mean(0), rtol=1e-4, atol=1e-5)
    (want,) = reference(case({**inputs, "bias": bias}))
    seen = [r for r in range(9) if r not in (3, 4)]
    compare([y[:, seen]], [want[:, seen]], 2e-5)


def test_a_score_that_is_no_number_spoils_its_row_only():
    inputs = heads(1, 10, 40)
    inputs["q"][0, 4, 1, 3] = np.nan
    (y,) = build(case(inputs))(*inputs.values())
    assert np.isnan(y[0, 4, 1]).all()
    assert np.isnan(y).sum() == y.shape[3]


@pytest.mark.parametrize("m", [1, 2, FEW_ROWS // 2, FEW_ROWS, FEW_ROWS + 1])
@pytest.mark.parametrize("biased", [False, True])
def test_a_few_rows_read_keys_where_they_are(m, biased):
    inputs = heads(2, m, 333, 6, 3, 48, 40)
    if biased:
        inputs["bias"] = normal(5, 2, 6, m, 333)
    built = check(case(inputs))
    packs = any("keys" in str(a.buffer.name) for a in allocations(built.kernels[0]))
    assert packs == (m * 2 > FEW_ROWS)


@pytest.mark.parametrize("causal", [None, "TopLeft"])
def test_queries_that_share_keys_with_open_sizes(causal):
    def inputs(b: int, m: int, n: int) -> dict[str, np.ndarray]:
        return heads(b, m, n, 6, 2, 32, 24)

    shapes = {"q": ["b", "m", 6, 32], "k": ["b", "n", 2, 32], "v": ["b", "n", 2, 24]}
    example = case(inputs(2, 7, 9), causal, shapes=shapes)
    built = build(example)
    for b, m, n in ((2, 7, 9), (1, 1, 1), (1, 1, 700), (3, 33, 64), (1, 129, 300), (0, 5, 6)):
        sizes = inputs(b, m, n)
        compare(built(*sizes.values()), reference(example, sizes), 2e-5)


def test_repeated_keys_are_not_repeated_in_memory():
    inputs = heads(1, 40, 50, 6, 2)
    built = check(case(inputs))
    assert len(built.kernels) == 1


# -- memory --------------------------------------------------------------------------------------


def allocations(kernel: tirx.PrimFunc) -> list[AllocBuffer]:
    return walk(kernel.body, AllocBuffer)


LONG = 4096


def test_memory_of_a_long_sequence_is_a_small_part_of_its_scores():
    """Also with open sizes, and as the process sees it."""
    inputs = heads(1, LONG, LONG, 4, 4, 32, 32)
    shapes = {name: ["b", "t", 4, 32] for name in inputs}
    scores = 4 * LONG * LONG * 4
    for example in (case(inputs), case(inputs, shapes=shapes)):
        built = build(example)
        (kernel,) = built.kernels
        assert peak_allocated(kernel, {"b": 1, "t": LONG}) < scores / 8
        before = high_water(reset=True)
        built(*inputs.values())
        assert high_water() - before < scores / 4


THREADS = 4


def peak_allocated(kernel: tirx.PrimFunc, sizes: dict[str, int]) -> int:
    """Bytes of all buffers of a kernel, as if each of a few threads had its own."""
    elements = 0
    for allocation in allocations(kernel):
        count = 1
        for extent in allocation.buffer.shape:
            symbols = {v: loops.const(sizes[v.name]) for v in walk(extent, tirx.Var)}
            value = loops.as_int(simplified(loops.substitute(extent, symbols)))
            assert value is not None
            count *= value
        elements += count
    return THREADS * elements * 4


def high_water(*, reset: bool = False) -> int:
    """Most bytes of memory this process has held since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in s)
    return int(line.split()[1]) * 1024
