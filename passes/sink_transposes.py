"""Move transposes down through operators that do not mind, until they cancel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.graph import op_name
from burnish.passes.params import weight_vars
from burnish.passes.rewrite import rewritten

ELEMENTWISE = frozenset(
    f"relax.{name}"
    for name in [
        "add",
        "subtract",
        "multiply",
        "divide",
        "maximum",
        "minimum",
        "power",
        "abs",
        "negative",
        "exp",
        "log",
        "sqrt",
        "rsqrt",
        "tanh",
        "sigmoid",
        "erf",
        "floor",
        "ceil",
        "round",
        "sign",
        "square",
        "sin",
        "cos",
        "clip",
        "astype",
        "nn.relu",
        "nn.gelu",
        "nn.gelu_tanh",
        "nn.silu",
        "nn.leakyrelu",
        "nn.softplus",
    ]
)
POOLS = {
    "relax.nn.max_pool2d": relax.op.nn.max_pool2d,
    "relax.nn.avg_pool2d": relax.op.nn.avg_pool2d,
}
REDUCTIONS = {
    f"relax.{op.__name__}": op for op in (relax.op.mean, relax.op.sum, relax.op.max, relax.op.min)
}
Axes = tuple[int, ...]
Moved = tuple[relax.Expr, Axes]


@tvm.transform.module_pass(opt_level=0, name="SinkTransposes")
@dataclass(frozen=True)
class SinkTransposes:
    """Rewrite ``op(permute_dims(x))`` to ``permute_dims(op(x))`` with ``op``'s axes renamed; exact.

    1. Element-wise operators, if every operand is transposed alike, a scalar, a weight or a
       constant (which is transposed back at compile time).
    2. Pooling, resizing and padding, with their layout or widths renamed.
    3. Reductions, concatenation, slices, softmax, ``squeeze`` and ``expand_dims``, with their
       axes renamed.
    4. Two transposes in a row become one, and one that moves nothing disappears.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        return relax.transform.DeadCodeElimination()(rewritten(mod, _Sink))


@mutator
class _Sink(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.weights = set(weight_vars(mod)) if "main" in _names(mod) else set()

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        name = op_name(call)
        if name == "relax.permute_dims":
            return self._composed(call)
        rule = RULES.get(name)
        if rule is None and name in ELEMENTWISE:
            rule = _elementwise
        moved = rule(self, call) if rule is not None else None
        if moved is None:
            return call
        expr, axes = moved
        result = self.builder_.emit(expr)
        return result if axes == tuple(range(len(axes))) else _permuted(result, axes)

    def _composed(self, call: relax.Call) -> relax.Expr:
        """Rule 4."""
        axes = axes_of(call)
        source = call.args[0]
        below = self.below(source)
        if below is not None:
            source, inner = below
            axes = tuple(inner[axis] for axis in axes)
        if axes == tuple(range(len(axes))):
            return source
        return _permuted(source, axes) if below is not None else call

    def below(self, expr: relax.Expr) -> Moved | None:
        """What ``expr`` transposes, and how, or ``None`` if it is no transpose."""
        if not isinstance(expr, relax.Var):
            return None
        value = self.lookup_binding(expr)
        if op_name(value) != "relax.permute_dims":
            return None
        return value.args[0], axes_of(value)

    def fixed(self, expr: relax.Expr) -> bool:
        """Whether ``expr`` is known at compile time."""
        if isinstance(expr, tvm.ir.Constant):
            return True
        if not isinstance(expr, relax.Var):
            return False
        if expr in self.weights:
            return True
        value = self.lookup_binding(expr)
        if isinstance(value, tvm.ir.Constant):
            return True
        if op_name(value) in ("relax.reshape", "relax.expand_dims", "relax.permute_dims"):
            return self.fixed(value.args[0])
        return False


def _names(mod: tvm.IRModule) -> set[str]:
    return {var.name_hint for var in mod.get_global_vars()}


def axes_of(call: relax.Call) -> Axes:
    """The order of a ``permute_dims``: axis ``j`` of the result is source axis ``axes[j]``."""
    rank = int(call.args[0].ty.ndim)
    if call.attrs.axes is None:
        return tuple(reversed(range(rank)))
    return tuple(int(axis) % rank for axis in call.attrs.axes)


def _permuted(expr: relax.Expr, axes: Axes) -> relax.Expr:
    return relax.op.permute_dims(expr, list(axes))


def _inverse(axes: Axes) -> Axes:
    return tuple(axes.index(place) for place in range(len(axes)))


def _elementwise(sink: _Sink, call: relax.Call) -> Moved | None:
    """Rule 1."""
    tensors = [arg for arg in call.args if isinstance(arg.ty, relax.TensorType)]
    found = [below for below in map(sink.below, tensors) if below is not None]
    if not found:
        return None
    axes = found[0][1]
    rank = len(axes)
    new = []
    for arg in call.args:
        if not isinstance(arg.ty, relax.TensorType) or arg.ty.ndim == 0:
            new.append(arg)
            continue
        below = sink.below(arg)
        if below is not None and below[1] == axes:
            new.append(below[0])
        elif sink.fixed(arg) and arg.ty.ndim <= rank:
            new.append(_moved_back(sink, arg, axes))
        else:
            return None
    return relax.Call(call.op, new, call.attrs), axes


def _moved_back(sink: _Sink, arg: relax.Expr, axes: Axes) -> relax.Expr:
    """A broadcast operand as the untransposed operands need it."""
    rank = len(axes)
    shape = [int(n) for n in arg.ty.shape]
    if len(shape) < rank:
        shape = [1] * (rank - len(shape)) + shape
        arg = sink.builder_.emit(relax.op.reshape(arg, shape))
    inverse = _inverse(axes)
    return sink.builder_.emit(_permuted(arg, inverse))


def _first(sink: _Sink, call: relax.Call) -> Moved | None:
    return sink.below(call.args[0])


def _pool(sink: _Sink, call: relax.Call) -> Moved | None:
    """Rule 2."""
    below = _first(sink, call)
    a = call.attrs
    if below is None or below[1] != (0, 3, 1, 2) or str(a.layout) != "NCHW":
        return None
    expr = POOLS[op_name(call)](
        below[0],
        [int(n) for n in a.pool_size],
        [int(n) for n in a.strides],
        [int(n) for n in a.padding],
        [int(n) for n in a.dilation],
        bool(a.ceil_mode),
        bool(a.count_include_pad),
        "NHWC",
    )
    return expr, below[1]


def _adaptive_pool(sink: _Sink, call: relax.Call) -> Moved | None:
    below = _first(sink, call)
    a = call.attrs
    if below is None or below[1] != (0, 3, 1, 2) or str(a.layout) != "NCHW":
        return None
    size = None if a.output_size is None else [int(n) for n in a.output_size]
    return relax.op.nn.adaptive_avg_pool2d(below[0], size, "NHWC"), below[1]


def _resize(sink: _Sink, call: relax.Call) -> Moved | None:
    below = _first(sink, call)
    a = call.attrs
    if below is None or below[1] != (0, 3, 1, 2) or str(a.layout) != "NCHW":
        return None
    expr = relax.op.image.resize2d(
        below[0],
        call.args[1],
        [float(value.value) if hasattr(value, "value") else float(value) for value in a.roi],
        "NHWC",
        str(a.method),
        str(a.coordinate_transformation_mode),
        str(a.rounding_method),
        float(a.cubic_alpha),
        int(a.cubic_exclude),
        float(a.extrapolation_value),
    )
    return expr, below[1]


def _pad(sink: _Sink, call: relax.Call) -> Moved | None:
    below = _first(sink, call)
    if below is None:
        return None
    source, axes = below
    widths = [int(n) for n in call.attrs.pad_width]
    inverse = _inverse(axes)
    new = [w for place in inverse for w in widths[2 * place : 2 * place + 2]]
    value = call.attrs.pad_value
    expr = relax.op.nn.pad(
        source, new, str(call.attrs.pad_mode), float(getattr(value, "value", value))
    )
    return expr, axes


def _kept(axes: Axes, removed: set[int]) -> Axes:
    """The order of a result whose source lost the source axes ``removed``."""
    left = [axis for axis in range(len(axes)) if axis not in removed]
    return tuple(left.index(axis) for axis in axes if axis not in removed)


def _reduction(sink: _Sink, call: relax.Call) -> Moved | None:
    """Rule 3."""
    below = _first(sink, call)
    if below is None or call.attrs.axis is None:
        return None
    source, axes = below
    keep = bool(call.attrs.keepdims)
    reduced = {axes[int(axis) % len(axes)] for axis in call.attrs.axis}
    expr = REDUCTIONS[op_name(call)](source, sorted(reduced), keep)
    return expr, axes if keep else _kept(axes, reduced)


def _concat(sink: _Sink, call: relax.Call) -> Moved | None:
    if not isinstance(call.args[0], relax.Tuple) or call.attrs.axis is None:
        return None
    fields = list(call.args[0].fields)
    found = [sink.below(field) for field in fields]
    known = [below for below in found if below is not None]
    if not known or any(below is None or below[1] != known[0][1] for below in found):
        return None
    axes = known[0][1]
    axis = axes[int(call.attrs.axis) % len(axes)]
    return relax.op.concat([below[0] for below in known], axis), axes


def _slice(sink: _Sink, call: relax.Call) -> Moved | None:
    below = _first(sink, call)
    if below is None:
        return None
    source, axes = below
    renamed = [
        tvm.tirx.IntImm("int64", axes[int(axis.value) % len(axes)]) for axis in call.args[1].fields
    ]
    args = [source, relax.Tuple(renamed), *call.args[2:]]
    return relax.Call(call.op, args, call.attrs), axes


def _softmax(sink: _Sink, call: relax.Call) -> Moved | None:
    below = _first(sink, call)
    if below is None:
        return None
    source, axes = below
    axis = axes[int(call.attrs.axis) % len(axes)]
    return relax.op.nn.softmax(source, axis), axes


def _squeeze(sink: _Sink, call: relax.Call) -> Moved | None:
    below = _first(sink, call)
    if below is None or call.attrs.axis is None:
        return None
    source, axes = below
    removed = {axes[int(axis) % len(axes)] for axis in call.attrs.axis}
    return relax.op.squeeze(source, sorted(removed)), _kept(axes, removed)


def _expand(sink: _Sink, call: relax.Call) -> Moved | None:
    """The new axes come last in the source, and the order puts them in place."""
    below = _first(sink, call)
    if below is None:
        return None
    source, axes = below
    rank = int(call.ty.ndim)
    new = sorted(int(axis) % rank for axis in call.attrs.axis)
    last = list(range(len(axes), rank))
    old, added = iter(axes), iter(last)
    order: list[Any] = [next(added) if place in new else next(old) for place in range(rank)]
    return relax.op.expand_dims(source, last), tuple(order)


RULES: dict[str, Callable[[_Sink, relax.Call], Moved | None]] = {
    **dict.fromkeys(POOLS, _pool),
    "relax.nn.adaptive_avg_pool2d": _adaptive_pool,
    "relax.image.resize2d": _resize,
    "relax.nn.pad": _pad,
    **dict.fromkeys(REDUCTIONS, _reduction),
    "relax.concat": _concat,
    "relax.strided_slice": _slice,
    "relax.nn.softmax": _softmax,
    "relax.squeeze": _squeeze,
    "relax.expand_dims": _expand,
}
