"""Lower operators whose own kernels the schedule rules cannot read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax, te, tirx
from tvm.ir import Expr
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.graph import op_name
from burnish.passes.rewrite import rewritten
from burnish.passes.scan import OPAQUE, lower_scan
from burnish.passes.take_runs import lower_take
from burnish.targets.cpu import loops
from burnish.targets.cpu.extremes import is_number

Lower = Callable[[relax.BlockBuilder, relax.Call, Any], relax.Expr | None]
"""A call, its arguments lowered, and its type, to a kernel; ``None`` to leave it alone."""


def arg_reduction(x: te.Tensor, axis: int, keep: bool, largest: bool, dtype: str) -> te.Tensor:
    """``x -> place of the first of its largest (smallest) along axis``; NaN is above all.

    Two reductions: the value, and the least of the places where it is. A NaN makes the value
    NaN, which equals nothing, so that the places of NaN are all that is left.
    """
    size = x.shape[axis]
    shape = [n for place, n in enumerate(x.shape) if place != axis]
    fold = te.max if largest else te.min
    index = "int32"

    def at(where: Sequence[Any], k: Any) -> list[Any]:
        return [*where[:axis], k, *where[axis:]]

    def value(*where: Any) -> Expr:
        k = te.reduce_axis((0, size), "k")
        return fold(x(*at(where, k)), axis=k)

    best = te.compute(shape, value, name="best")

    def place(*where: Any) -> Expr:
        k = te.reduce_axis((0, size), "k")
        item = x(*at(where, k))
        here = item == best(*where)
        k_here = k.var.astype(index)
        found = tirx.Select(here, k_here, tirx.const(2**31 - 1, index))
        if "float" in str(item.ty.dtype):
            # Not by negation: TVM takes "not less" for "greater or equal".
            found = tirx.Select(is_number(item), found, k_here)
        return te.min(found, axis=k)

    places = te.compute(shape, place, name="place")

    def final(*where: Any) -> Expr:
        return places(*[w for p, w in enumerate(where) if not keep or p != axis]).astype(dtype)

    kept = [*x.shape[:axis], 1, *x.shape[axis + 1 :]] if keep else shape
    return te.compute(kept, final, name="arg")


def _arg(largest: bool) -> Lower:
    def lower(builder: relax.BlockBuilder, call: relax.Call, out: Any) -> relax.Expr:
        x, attrs = call.args[0], call.attrs
        rank = int(x.ty.ndim)
        keep = bool(attrs.keepdims)
        axis = None if attrs.axis is None else int(attrs.axis) % max(rank, 1)
        whole = axis is None
        if axis is None:
            total = tirx.const(1, "int64")
            for extent in x.ty.shape:
                total = total * extent
            # One row: the rule for rows wants an axis that is not reduced.
            x, axis = builder.emit(relax.op.reshape(x, relax.ShapeExpr([1, total]))), 1
        made = builder.call_te(
            lambda t: arg_reduction(t, axis, keep and not whole, largest, str(out.dtype)),
            x,
            primfunc_name_hint="argmax" if largest else "argmin",
        )
        if whole:
            shape = relax.ShapeExpr([1] * rank if keep else [])
            made = relax.op.reshape(builder.emit(made), shape)
        return made

    return lower


def _topk(builder: relax.BlockBuilder, call: relax.Call, _out: Any) -> relax.Expr | None:
    """The first alone is a maximum and its place."""
    x, attrs = call.args[0], call.attrs
    if int(attrs.k) != 1:
        return None
    axis = int(attrs.axis) % int(x.ty.ndim)
    largest, kind = bool(attrs.largest), str(attrs.ret_type)
    fold = relax.op.max if largest else relax.op.min
    parts: list[relax.Expr] = []
    if kind in ("both", "values"):
        parts.append(builder.emit(fold(x, [axis], True)))
    if kind in ("both", "indices"):
        dtype = str(attrs.dtype)
        made = builder.call_te(
            lambda t: arg_reduction(t, axis, True, largest, dtype),
            x,
            primfunc_name_hint="argmax" if largest else "argmin",
        )
        parts.append(builder.emit(made))
    return relax.Tuple(parts) if len(parts) > 1 else parts[0]


def group_norm(groups: int, epsilon: float, center: bool, scale: bool) -> Callable[..., te.Tensor]:
    """``x [N, C, *S], gamma [C], beta [C] -> [N, C, *S]``, normalized over ``C / groups`` and S."""

    def make(x: te.Tensor, gamma: te.Tensor, beta: te.Tensor) -> te.Tensor:
        batch, channels, *space = x.shape
        each = tirx.floordiv(channels, groups)
        count: Any = each
        for extent in space:
            count = count * extent
        axes = [each, *space]

        def over(term: Callable[[Any, Any, list[Any]], Expr], name: str) -> te.Tensor:
            def total(n: Any, g: Any) -> Expr:
                at = [te.reduce_axis((0, extent), "k") for extent in axes]
                return te.sum(term(n, g, at), axis=at)

            return te.compute((batch, groups), total, name=name)

        def read(n: Any, g: Any, at: list[Any]) -> Expr:
            return x(n, g * each + at[0], *at[1:]).astype("float32")

        size = tirx.Cast("float32", count)
        sums = over(read, "sum")
        mean = te.compute((batch, groups), lambda n, g: sums(n, g) / size, name="mean")

        def squared(n: Any, g: Any, at: list[Any]) -> Expr:
            off = read(n, g, at) - mean(n, g)
            return off * off

        squares = over(squared, "squares")
        factor = te.compute(
            (batch, groups),
            lambda n, g: tirx.rsqrt(squares(n, g) / size + tirx.const(epsilon, "float32")),
            name="factor",
        )

        def final(n: Any, c: Any, *at: Any) -> Expr:
            g = tirx.floordiv(c, each)
            y = (x(n, c, *at).astype("float32") - mean(n, g)) * factor(n, g)
            y = y * gamma(c).astype("float32") if scale else y
            y = y + beta(c).astype("float32") if center else y
            return y.astype(x.dtype)

        return te.compute(x.shape, final, name="norm")

    return make


def _group_norm(builder: relax.BlockBuilder, call: relax.Call, _out: Any) -> relax.Expr | None:
    attrs = call.attrs
    rank = int(call.args[0].ty.ndim)
    axes = sorted(int(axis) % rank for axis in attrs.axes)
    if int(attrs.channel_axis) % rank != 1 or axes != list(range(2, rank)):
        return None
    make = group_norm(
        int(attrs.num_groups), float(attrs.epsilon), bool(attrs.center), bool(attrs.scale)
    )
    return builder.call_te(make, *call.args, primfunc_name_hint="group_norm")


def _instance_norm(builder: relax.BlockBuilder, call: relax.Call, _out: Any) -> relax.Expr | None:
    """Each channel is a group of its own, of one picture or of a batch of one."""
    x, attrs = call.args[0], call.attrs
    rank = int(x.ty.ndim)
    axes = sorted(int(axis) % rank for axis in attrs.axes)
    batch, channels = list(x.ty.shape)[:2]
    if isinstance(batch, tirx.IntImm) and int(batch) == 1 and axes[:1] == [0]:
        axes = axes[1:]
    if int(attrs.channel_axis) % rank != 1 or axes != list(range(2, rank)):
        return None
    if not isinstance(channels, tirx.IntImm):
        return None
    make = group_norm(int(channels), float(attrs.epsilon), bool(attrs.center), bool(attrs.scale))
    return builder.call_te(make, *call.args, primfunc_name_hint="instance_norm")


def adaptive_average(size: Sequence[int], last: bool) -> Callable[..., te.Tensor]:
    """``x -> means over windows [floor(i H / OH), ceil((i + 1) H / OH))``, of any two axes."""

    def make(x: te.Tensor) -> te.Tensor:
        first = 1 if last else 2
        extents = [int(n) for n in x.shape[first : first + 2]]
        most = [
            max(-(-(i + 1) * n // out) - i * n // out for i in range(out))
            for n, out in zip(extents, size, strict=True)
        ]

        def bounds(axis: int, i: Any) -> tuple[Any, Any]:
            n, out = extents[axis], size[axis]
            if n % out == 0:
                return i * (n // out), None
            low = tirx.floordiv(i * n, out)
            return low, tirx.floordiv((i + 1) * n + out - 1, out) - low

        def term(*place: Any) -> Expr:
            at = list(place)
            ks = [te.reduce_axis((0, reach), f"k{axis}") for axis, reach in enumerate(most)]
            inside: list[Any] = []
            for axis, k in enumerate(ks):
                low, length = bounds(axis, at[first + axis])
                at[first + axis] = low + k
                if length is not None:
                    at[first + axis] = tirx.min(low + k, extents[axis] - 1)
                    inside.append(k < length)
            value = x(*at)
            if inside:
                zero = tirx.const(0, x.dtype)
                value = tirx.Select(tirx.all(*inside), value, zero)
            return te.sum(value, axis=ks)

        shape = list(x.shape)
        shape[first : first + 2] = size
        sums = te.compute(shape, term, name="sum")

        def mean(*at: Any) -> Expr:
            count: Any = tirx.const(1, "int64")
            for axis in range(2):
                length = bounds(axis, at[first + axis])[1]
                count = count * (most[axis] if length is None else length)
            return sums(*at) / count.astype(x.dtype)

        return te.compute(shape, mean, name="mean")

    return make


def _adaptive(builder: relax.BlockBuilder, call: relax.Call, _out: Any) -> relax.Expr | None:
    x, attrs = call.args[0], call.attrs
    layout = str(attrs.layout)
    if layout not in ("NCHW", "NHWC") or str(attrs.out_layout) not in ("", layout):
        return None
    first = layout.index("H")
    extents = list(x.ty.shape)[first : first + 2]
    if not all(isinstance(n, tirx.IntImm) for n in extents) or "float" not in str(x.ty.dtype):
        return None
    size = [int(n) for n in (attrs.output_size if attrs.output_size is not None else extents)]
    make = adaptive_average(size * (2 // len(size)), layout == "NHWC")
    return builder.call_te(make, x, primfunc_name_hint="adaptive_avg_pool2d")


def _sizes(builder: relax.BlockBuilder, call: relax.Call, _out: Any) -> relax.Expr | None:
    """Sizes as a tensor, by a kernel that stays alone: TVM cannot fuse one that takes scalars."""
    shape = call.args[0]
    if not isinstance(shape, relax.ShapeExpr):
        return None
    sizes = list(shape.values)
    symbols = list(relax.analysis.free_symbolic_vars(shape))
    if not symbols:
        return relax.const([int(size) for size in sizes], "int64")
    own = [tirx.Var(var.name, "int64") for var in symbols]
    sizes = [loops.substitute(size, dict(zip(symbols, own, strict=True))) for size in sizes]

    def chosen(i: Any) -> Expr:
        value = sizes[-1]
        for place in range(len(sizes) - 2, -1, -1):
            value = tirx.Select(i == place, sizes[place], value)
        return value

    made = te.compute((len(sizes),), chosen, name="sizes")
    kernel = te.create_prim_func([*own, made]).without_attr("global_symbol")
    return relax.call_tir(
        builder.add_func(kernel.with_attr("op_pattern", OPAQUE), "sizes"),
        relax.Tuple(symbols),
        relax.TensorType([len(sizes)], "int64"),
    )


LOWERED: dict[str, Lower] = {
    "relax.cumsum": lambda builder, call, out: lower_scan(builder, call, "sum", out),
    "relax.cumprod": lambda builder, call, out: lower_scan(builder, call, "prod", out),
    "relax.argmax": _arg(True),
    "relax.argmin": _arg(False),
    "relax.take": lower_take,
    "relax.topk": _topk,
    "relax.nn.group_norm": _group_norm,
    "relax.nn.instance_norm": _instance_norm,
    "relax.nn.adaptive_avg_pool2d": _adaptive,
    "relax.shape_to_tensor": _sizes,
}


SCANS = frozenset(("relax.cumsum", "relax.cumprod"))


@tvm.transform.module_pass(opt_level=0, name="LowerOperators")
@dataclass(frozen=True)
class LowerOperators:
    """Lower the operators of ``LOWERED`` to kernels that the schedule rules can read.

    TVM writes argmax, and the norms that need a mean and a variance, as reductions of pairs,
    and scans and the first of a sorted row as loops of their own; here they are plain
    reductions one after the other, or kernels that say what they are. Without ``scans``, running
    sums and products stay TVM's.
    """

    scans: bool = True

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        left = frozenset[str]() if self.scans else SCANS
        return rewritten(mod, lambda old: _Rewriter(old, left))


@mutator
class _Rewriter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, left: frozenset[str]) -> None:
        super().__init__(mod)
        self.left = left

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        out = call.ty
        call = super().visit_call_(call)
        lower = None if op_name(call) in self.left else LOWERED.get(op_name(call))
        made = lower(self.builder_, call, out) if lower is not None else None
        return call if made is None else made
