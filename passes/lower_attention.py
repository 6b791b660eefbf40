"""Lower attention to one kernel that never writes the score matrix out whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax, te, tirx
from tvm.ir import Expr
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.repeated_heads import repeated_heads
from burnish.passes.rewrite import rewritten
from burnish.targets.attention_form import ATTENTION, as_float32

_OPAQUE = 8
_WIDENED = {"float16", "bfloat16"}
_CAUSAL = {"": 0, "None": 0, "TopLeft": 1, "BottomRight": 2}


@tvm.transform.module_pass(opt_level=0, name="LowerAttention")
@dataclass(frozen=True)
class LowerAttention:
    """Replace ``R.nn.attention`` and ``R.nn.attention_bias`` by one kernel each, in float32.

    The kernel's body is the plain definition (scores, softmax, weighted sum), which any target
    can schedule; its attribute tells a target with a fused form what it is. Keys and values that
    were repeated for grouped queries are read where they are. Half and bfloat16 are widened for
    it, and its result narrowed. Windowed attention is left alone.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        return relax.transform.DeadCodeElimination()(rewritten(mod, _Rewriter))


@mutator
class _Rewriter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        name = call.op.name if isinstance(call.op, tvm.ir.Op) else ""
        if name not in ("relax.nn.attention", "relax.nn.attention_bias"):
            return call
        attrs = call.attrs
        causal = _CAUSAL.get(str(attrs.causal_mask) if attrs.causal_mask is not None else "")
        if causal is None or attrs.window_size is not None:
            return call
        dtypes = {str(arg.ty.dtype) for arg in call.args}
        if len(dtypes) > 1 or not dtypes < {"float32", *_WIDENED}:
            return call
        depth = call.args[0].ty.shape[3]
        scale = attrs.scale.value if attrs.scale is not None else 1 / math.sqrt(int(depth))
        given = self._arguments(call)
        (dtype,) = dtypes
        if dtype in _WIDENED:
            given = [self.builder_.emit(relax.op.astype(arg, "float32")) for arg in given]
        made = attention_call(self.builder_, float(scale), causal, given)
        if dtype not in _WIDENED:
            return made
        return relax.op.astype(self.builder_.emit(made), dtype)

    def _arguments(self, call: relax.Call) -> list[relax.Expr]:
        """Those of ``call``, but heads of keys and values that were repeated for it only once."""
        q, k, v, *bias = call.args
        keys = repeated_heads(k, self.lookup_binding)
        values = repeated_heads(v, self.lookup_binding)
        if keys is None or values is None or keys.times != values.times:
            return list(call.args)
        emit = self.builder_.emit
        once = [heads.once() for heads in (keys, values)]
        return [q, *(x if isinstance(x, relax.Var) else emit(x) for x in once), *bias]


def attention_call(
    builder: relax.BlockBuilder, scale: float, causal: int, given: list[relax.Expr]
) -> relax.Call:
    """One kernel of queries, keys, values, and perhaps a bias; its attribute says what it is."""
    info = {"scale": scale, "causal": causal, "bias": int(len(given) == 4)}
    return builder.call_te(
        attention(scale, causal),
        *given,
        primfunc_name_hint="attention",
        primfunc_attrs={"op_pattern": _OPAQUE, ATTENTION: info},
    )


def attention(scale: float, causal: int) -> Any:
    """``q [B, M, H, D], k [B, N, KV, D], v [B, N, KV, E] -> [B, M, H, E]``, perhaps with a bias
    that broadcasts to ``[B, H, M, N]``; queries of head ``h`` read keys of ``h // (H / KV)``.

    All between is float32; the result is of the type of ``q``.
    """

    def make(q: te.Tensor, k: te.Tensor, v: te.Tensor, *bias: te.Tensor) -> te.Tensor:
        b, m, h, d = q.shape
        n = k.shape[1]
        group = 1 if _same(h, k.shape[2]) else tirx.floordiv(h, k.shape[2])

        def shared(j: Any) -> Any:
            return j if isinstance(group, int) else tirx.floordiv(j, group)

        step = te.reduce_axis((0, d), "d")
        dots = te.compute(
            (b, h, m, n),
            lambda i, j, y, x: te.sum(
                as_float32(q(i, y, j, step)) * as_float32(k(i, x, shared(j), step)), axis=step
            ),
            name="dots",
        )

        def score(i: Any, j: Any, y: Any, x: Any) -> Expr:
            value = dots(i, j, y, x) * tirx.const(scale, "float32")
            if bias:
                value = value + as_float32(bias[0](*broadcast(bias[0].shape, (i, j, y, x))))
            if causal:
                last = y if causal == 1 else y + (n - m)
                value = tirx.Select(x <= last, value, tirx.min_value("float32"))
            return value

        scores = te.compute((b, h, m, n), score, name="scores")
        t = te.reduce_axis((0, n), "t")
        top = te.compute((b, h, m), lambda i, j, y: te.max(scores(i, j, y, t), axis=t), name="top")
        power = te.compute(
            (b, h, m, n),
            lambda i, j, y, x: tirx.exp(scores(i, j, y, x) - top(i, j, y)),
            name="power",
        )
        s = te.reduce_axis((0, n), "s")
        total = te.compute(
            (b, h, m), lambda i, j, y: te.sum(power(i, j, y, s), axis=s), name="total"
        )
        u = te.reduce_axis((0, n), "u")
        mixed = te.compute(
            (b, m, h, v.shape[3]),
            lambda i, y, j, e: te.sum(
                power(i, j, y, u) * as_float32(v(i, u, shared(j), e)), axis=u
            ),
            name="mixed",
        )
        return te.compute(
            mixed.shape,
            lambda i, y, j, e: (mixed(i, y, j, e) / total(i, j, y)).astype(str(q.dtype)),
            name="attention",
        )

    return make


def broadcast(shape: Any, at: tuple[Any, ...]) -> list[Any]:
    """Indices into ``shape`` for an element ``at`` of what it is broadcast to."""
    return [0 if _is_one(extent) else index for extent, index in zip(shape, at, strict=True)]


def _same(a: Any, b: Any) -> bool:
    return bool(tvm.sym.Analyzer().can_prove_equal(a, b))


def _is_one(extent: Any) -> bool:
    return isinstance(extent, tirx.IntImm) and int(extent.value) == 1
