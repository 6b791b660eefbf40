"""Lower matmul and attention to kernels whose sums are float32, for targets with matrix units."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax, te, tirx
from tvm.ir import Expr
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.dequantize import CodeLayout, dequantized_value
from burnish.passes.graph import op_name, without_turn
from burnish.passes.lower_attention import attention_call, broadcast
from burnish.passes.quantize import quantized_layout
from burnish.passes.repeated_heads import repeated_heads
from burnish.passes.rewrite import rewritten
from burnish.targets.attention_form import Sizes, sizes_of
from burnish.targets.gpu.matvec import ROWS

FLOATS = ("float32", "float16", "bfloat16")
_CAUSAL = {"": 0, "None": 0, "TopLeft": 1, "BottomRight": 2}


@tvm.transform.module_pass(opt_level=0, name="LowerContractions")
@dataclass(frozen=True)
class LowerContractions:
    """Lower products of floats so that their sums are float32, rounded once at the end.

    1. ``matmul`` becomes a kernel; where an operand is a transpose of its last two axes, the
       kernel reads what was transposed. Where few rows meet a quantized weight, it reads the codes.
    2. ``conv2d`` of two-byte floats sums in float32.
    3. ``attention`` becomes one kernel where ``fuses`` says that the target has one for its sizes,
       else two such products with a softmax between them; keys and values that were repeated for
       grouped queries are read where they are. Windowed attention is left alone.
    """

    fuses: Callable[[Sizes], bool] = lambda _sizes: False

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        made = rewritten(mod, lambda mod: _Rewriter(mod, self.fuses))
        return relax.transform.DeadCodeElimination()(made)


@mutator
class _Rewriter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, fuses: Callable[[Sizes], bool]) -> None:
        super().__init__(mod)
        self.mod, self.fuses = mod, fuses

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        name = op_name(call)
        if name == "relax.matmul":
            return self._matmul(call)
        if name == "relax.nn.conv2d":
            return self._conv2d(call)
        if name in ("relax.nn.attention", "relax.nn.attention_bias"):
            return self._attention(call)
        return call

    def _matmul(self, call: relax.Call) -> relax.Expr:
        a, b = call.args
        dtypes = {str(arg.ty.dtype) for arg in (a, b)}
        if len(dtypes) != 1 or dtypes.isdisjoint(FLOATS) or min(_rank(a), _rank(b)) < 2:
            return call
        dtype = str(call.attrs.out_dtype or "") or dtypes.pop()
        (a, a_turned), (b, b_turned) = (without_turn(x, self.lookup_binding) for x in (a, b))
        codes = None if a_turned else self._codes(a, b)
        if codes is not None:
            layout, stored = codes
            make = matmul_of_codes(b_turned, dtype, layout)
            return self.builder_.call_te(make, a, *stored, primfunc_name_hint="matmul")
        return self.builder_.call_te(
            matmul(a_turned, b_turned, dtype), a, b, primfunc_name_hint="matmul"
        )

    def _codes(self, a: relax.Expr, b: relax.Expr) -> tuple[CodeLayout, list[relax.Expr]] | None:
        """The codes of a weight ``b`` that each is decoded for few rows only, and their layout."""
        made = self.lookup_binding(b) if isinstance(b, relax.Var) else None
        layout = quantized_layout(self.mod, made) if made is not None else None
        if layout is None or made is None or len(layout.shape) != 2 or not _is_few(a):
            return None
        return layout, list(made.args[1].fields)

    def _conv2d(self, call: relax.Call) -> relax.Expr:
        attrs, dtype = call.attrs, str(call.ty.dtype)
        if dtype not in ("float16", "bfloat16") or str(call.args[0].ty.dtype) != dtype:
            return call
        wide = relax.op.nn.conv2d(
            *call.args,
            strides=list(attrs.strides),
            padding=list(attrs.padding),
            dilation=list(attrs.dilation),
            groups=int(attrs.groups),
            data_layout=str(attrs.data_layout),
            kernel_layout=str(attrs.kernel_layout),
            out_layout=str(attrs.out_layout),
            out_dtype="float32",
        )
        return relax.op.astype(self.builder_.emit(wide), dtype)

    def _attention(self, call: relax.Call) -> relax.Expr:
        attrs = call.attrs
        causal = _CAUSAL.get(str(attrs.causal_mask) if attrs.causal_mask is not None else "")
        dtype = str(call.ty.dtype)
        if causal is None or attrs.window_size is not None or dtype not in FLOATS:
            return call
        emit = self.builder_.emit
        q, k, v, *bias = call.args
        keys = repeated_heads(k, self.lookup_binding)
        values = repeated_heads(v, self.lookup_binding)
        if keys is not None and values is not None and keys.times == values.times:
            once = [heads.once() for heads in (keys, values)]
            k, v = (x if isinstance(x, relax.Var) else emit(x) for x in once)
        scale = attrs.scale.value if attrs.scale is not None else None
        if scale is None:
            scale = 1 / math.sqrt(int(q.ty.shape[3]))
        sizes = sizes_of(q.ty, k.ty, v.ty)
        same = {str(x.ty.dtype) for x in (q, k, v, *bias)} == {dtype}
        if sizes is not None and same and self.fuses(sizes):
            return attention_call(self.builder_, float(scale), causal, [q, k, v, *bias])
        scores = emit(
            self.builder_.call_te(
                attention_scores(float(scale), causal), q, k, *bias, primfunc_name_hint="scores"
            )
        )
        shares = emit(relax.op.nn.softmax(scores, axis=-1))
        if dtype != "float32":
            shares = emit(relax.op.astype(shares, dtype))
        return self.builder_.call_te(attention_mix(dtype), shares, v, primfunc_name_hint="mix")


def _is_few(a: relax.Expr) -> bool:
    """Whether ``a [..., M, K]`` has no more rows than share each weight in a kernel."""
    outer = list(a.ty.shape.values)[:-1]
    return all(isinstance(n, tirx.IntImm) for n in outer) and math.prod(map(int, outer)) <= ROWS


def _rank(operand: relax.Expr) -> int:
    return int(operand.ty.ndim)


def _wide(value: Expr) -> Expr:
    return value if str(value.ty.dtype) == "float32" else value.astype("float32")


def rounded(total: te.Tensor, dtype: str) -> te.Tensor:
    """``total`` in ``dtype``, by a stage of its own where that is another type."""
    if str(total.dtype) == dtype:
        return total
    return te.compute(total.shape, lambda *at: total(*at).astype(dtype), name="rounded")


def matmul(a_turned: bool, b_turned: bool, dtype: str) -> Callable[..., te.Tensor]:
    """``a [..., M, K], b [..., K, N] -> [..., M, N]``, outer axes broadcast.

    An operand that is ``turned`` has its last two axes the other way round.
    """

    def make(a: te.Tensor, b: te.Tensor) -> te.Tensor:
        rows, depth = (a.shape[-1], a.shape[-2]) if a_turned else (a.shape[-2], a.shape[-1])
        columns = b.shape[-2] if b_turned else b.shape[-1]
        outer = _broadcast_shape(a.shape[:-2], b.shape[:-2])
        k = te.reduce_axis((0, depth), "k")

        def term(*at: Any) -> Expr:
            *batch, m, n = at
            left = broadcast(a.shape[:-2], tuple(batch[len(batch) - len(a.shape) + 2 :]))
            right = broadcast(b.shape[:-2], tuple(batch[len(batch) - len(b.shape) + 2 :]))
            x = a(*left, k, m) if a_turned else a(*left, m, k)
            y = b(*right, n, k) if b_turned else b(*right, k, n)
            return te.sum(_wide(x) * _wide(y), axis=k)

        total = te.compute((*outer, rows, columns), term, name="contract")
        return rounded(total, dtype)

    return make


def matmul_of_codes(b_turned: bool, dtype: str, layout: CodeLayout) -> Callable[..., te.Tensor]:
    """As :func:`matmul`, with ``(codes, scale[, zero_point])`` in the place of ``b``."""

    def make(a: te.Tensor, *stored: te.Tensor) -> te.Tensor:
        sides = [tirx.IntImm("int64", n) for n in layout.shape]
        b = te.compute(sides, lambda *at: dequantized_value(layout, stored, at), name="dequantize")
        return matmul(False, b_turned, dtype)(a, b)

    return make


def _broadcast_shape(a: Sequence[Any], b: Sequence[Any]) -> list[Any]:
    length = max(len(a), len(b))
    left, right = [1] * (length - len(a)) + list(a), [1] * (length - len(b)) + list(b)
    return [y if _is_one(x) else x for x, y in zip(left, right, strict=True)]


def _is_one(extent: Any) -> bool:
    return (
        extent == 1
        if isinstance(extent, int)
        else isinstance(extent, tirx.IntImm) and int(extent.value) == 1
    )


def attention_scores(scale: float, causal: int) -> Callable[..., te.Tensor]:
    """``q [B, M, H, D], k [B, N, KV, D] -> [B, H, M, N]`` in float32, perhaps with a bias.

    ``causal`` 1 hides keys after the query's own place, 2 counts places from the end.
    """

    def make(q: te.Tensor, k: te.Tensor, *bias: te.Tensor) -> te.Tensor:
        b, m, h, d = q.shape
        n, heads = k.shape[1], k.shape[2]
        step = te.reduce_axis((0, d), "d")
        dots = te.compute(
            (b, h, m, n),
            lambda i, j, y, x: te.sum(
                _wide(q(i, y, j, step)) * _wide(k(i, x, _shared(j, h, heads), step)), axis=step
            ),
            name="dots",
        )

        def score(i: Any, j: Any, y: Any, x: Any) -> Expr:
            value = dots(i, j, y, x) * tirx.const(scale, "float32")
            if bias:
                value = value + _wide(bias[0](*broadcast(bias[0].shape, (i, j, y, x))))
            if causal:
                last = y if causal == 1 else y + (n - m)
                value = tirx.Select(x <= last, value, tirx.min_value("float32"))
            return value

        return te.compute((b, h, m, n), score, name="scores")

    return make


def attention_mix(dtype: str) -> Callable[..., te.Tensor]:
    """``shares [B, H, M, N], v [B, N, KV, E] -> [B, M, H, E]``."""

    def make(shares: te.Tensor, v: te.Tensor) -> te.Tensor:
        b, h, m, n = shares.shape
        heads = v.shape[2]
        u = te.reduce_axis((0, n), "u")
        mixed = te.compute(
            (b, m, h, v.shape[3]),
            lambda i, y, j, e: te.sum(
                _wide(shares(i, j, y, u)) * _wide(v(i, u, _shared(j, h, heads), e)), axis=u
            ),
            name="mixed",
        )
        return rounded(mixed, dtype)

    return make


def _shared(head: Any, heads: Any, groups: Any) -> Any:
    """The key head that a query head reads."""
    if tvm.sym.Analyzer().can_prove_equal(heads, groups):
        return head
    return tirx.floordiv(head, tirx.floordiv(heads, groups))
