"""Keys and values repeated for grouped queries are read once, however they were repeated."""

from __future__ import annotations

import pytest
from kernel_cases import attention_reference
from kernel_support import Case, compare, module, normal, reference
from tvm import relax

from burnish.passes.lower_attention import LowerAttention
from relax_support import apply, op_names, run

op = relax.op
B, N, KV, GROUP, D = 2, 7, 2, 3, 8


def joined_behind(x):
    """``[B, N, KV, D]``, the heads' axis widened where it is."""
    wide = op.broadcast_to(op.expand_dims(x, [3]), [B, N, KV, GROUP, D])
    return op.reshape(wide, [B, N, KV * GROUP, D])


def joined_in_front(x):
    """By way of ``[B, KV, N, D]``, as in Llama."""
    x = op.permute_dims(op.expand_dims(x, [4]), [0, 2, 4, 1, 3])
    wide = op.broadcast_to(x, [B, KV, GROUP, N, D])
    return op.permute_dims(op.reshape(wide, [B, KV * GROUP, N, D]), [0, 2, 1, 3])


def viewed(x):
    x = op.reshape(op.permute_dims(x, [0, 2, 1, 3]), [B, KV, 1, N, D])
    wide = op.broadcast_to(x, [B, KV, GROUP, N, D])
    return op.permute_dims(op.reshape(wide, [B, KV * GROUP, N, D]), [0, 2, 1, 3])


def repeat(x):
    return op.repeat(x, GROUP, 2)


def tiled(x):
    """Heads in another order: ``0, 1, 0, 1``; nothing to see through."""
    wide = op.broadcast_to(op.expand_dims(x, [2]), [B, N, GROUP, KV, D])
    return op.reshape(wide, [B, N, GROUP * KV, D])


def example(make, order) -> Case:
    def expected(q, k, v):
        k, v = (order(x) for x in (k, v))
        return attention_reference(q, k, v)

    inputs = {
        "q": normal(0, B, 5, KV * GROUP, D),
        "k": normal(1, B, N, KV, D),
        "v": normal(2, B, N, KV, D),
    }
    return Case(lambda q, k, v: op.nn.attention(q, make(k), make(v)), expected, inputs)


@pytest.mark.parametrize("make", [joined_behind, joined_in_front, viewed, repeat])
def test_repeated_heads_are_read_where_they_are(make):
    case = example(make, lambda x: x.repeat_interleave(GROUP, 2))
    after = apply(LowerAttention(), module(case))
    names = op_names(after)
    assert names == ["call_tir"]
    compare(run(after, *case.inputs.values()), reference(case), 1e-5)


def test_another_order_of_heads_is_left_alone():
    case = example(tiled, lambda x: x.repeat(1, 1, GROUP, 1))
    after = apply(LowerAttention(), module(case))
    assert "broadcast_to" in op_names(after)
    compare(run(after, *case.inputs.values()), reference(case), 1e-5)


def test_only_keys_repeated_is_left_alone():
    def make(q, k, v):
        return op.nn.attention(q, repeat(k), v)

    inputs = {
        "q": normal(0, B, 5, KV * GROUP, D),
        "k": normal(1, B, N, KV, D),
        "v": normal(2, B, N, KV * GROUP, D),
    }
    case = Case(
        make, lambda q, k, v: attention_reference(q, k.repeat_interleave(GROUP, 2), v), inputs
    )
    after = apply(LowerAttention(), module(case))
    assert "repeat" in op_names(after)
    compare(run(after, *case.inputs.values()), reference(case), 1e-5)
