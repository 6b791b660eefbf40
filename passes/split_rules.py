"""Which operators carry a split axis from operand to result, and where it goes."""

from __future__ import annotations

from tvm import relax

from burnish.passes.graph import op_name, static_shape

_UNARY = (
    "abs astype ceil clip cos erf exp floor log logical_not negative rsqrt sigmoid sign sin sqrt "
    "square tanh nn.gelu nn.gelu_tanh nn.relu nn.silu"
)
_NARY = (
    "add subtract multiply divide maximum minimum power mod floor_divide where equal not_equal "
    "greater greater_equal less less_equal logical_and logical_or"
)
ELEMENTWISE = frozenset(f"relax.{name}" for name in f"{_UNARY} {_NARY}".split())
ATTENTION = ("relax.nn.attention", "relax.nn.attention_bias")
"""``query, key, value [B, T, H, D]``, and a bias ``[B, H, T, S]`` or what broadcasts to it."""
HEADS, BIAS_HEADS = 2, 1
REDUCTIONS = ("relax.mean", "relax.sum", "relax.max", "relax.min", "relax.variance")
SOFTMAX = ("relax.nn.softmax", "relax.nn.log_softmax")
LOOKUP_MODES = ("clip", "fast")


def operand_axis(call: relax.Call, axis: int, operand: int) -> int | None:
    """The axis of an operand that becomes ``axis`` of an elementwise result.

    ``None`` where the operand has none there, or one of size 1, and so is the same for all.
    """
    shape, whole = static_shape(call.args[operand]), static_shape(call)
    if shape is None or whole is None:
        return None
    at = axis - (len(whole) - len(shape))
    return at if at >= 0 and shape[at] == whole[axis] else None


def result_axis(call: relax.Call, axis: int) -> int | None:
    """Where an axis of the only operand is in the result of an operator that keeps it whole.

    For permutations, added and dropped axes of size 1, broadcasts, splits, softmax and reductions
    along other axes; ``None`` for an axis that is not kept, and for other operators.
    """
    name, before = op_name(call), static_shape(call.args[0])
    if before is None:
        return None
    rank = len(before)
    if name == "relax.permute_dims":
        return permutation(call, rank).index(axis)
    if name in ("relax.expand_dims", "relax.squeeze"):
        return _renumbered(call, axis, before)
    if name == "relax.broadcast_to":
        after = static_shape(call)
        at = axis + len(after or ()) - rank
        return at if after is not None and after[at] == before[axis] else None
    if name == "relax.split":
        return axis if int(call.attrs.axis) % rank != axis else None
    if name in SOFTMAX:
        return axis if int(call.attrs.axis) % rank != axis else None
    if name in REDUCTIONS:
        axes = call.attrs.axis
        kept = axes is not None and bool(call.attrs.keepdims)
        return axis if kept and axis not in [int(a) % rank for a in axes] else None
    return None


def source_axis(call: relax.Call, axis: int) -> int | None:
    """The axis of the only operand that :func:`result_axis` takes to ``axis``."""
    before = static_shape(call.args[0])
    for at in range(len(before or ())):
        if result_axis(call, at) == axis:
            return at
    return None


def permutation(call: relax.Call, rank: int) -> list[int]:
    """The axes of a ``permute_dims``, counted from 0."""
    axes = call.attrs.axes
    return list(range(rank))[::-1] if axes is None else [int(axis) % rank for axis in axes]


def _renumbered(call: relax.Call, axis: int, before: tuple[int, ...]) -> int | None:
    if op_name(call) == "relax.expand_dims":
        rank = len(before) + len(call.attrs.axis)
        new = {int(a) % rank for a in call.attrs.axis}
        return [at for at in range(rank) if at not in new][axis]
    axes = call.attrs.axis
    ones = [at for at, n in enumerate(before) if n == 1]
    gone = set(ones) if axes is None else {int(a) % len(before) for a in axes}
    return None if axis in gone else axis - sum(at < axis for at in gone)


__all__ = [
    "ATTENTION",
    "BIAS_HEADS",
    "ELEMENTWISE",
    "HEADS",
    "LOOKUP_MODES",
    "REDUCTIONS",
    "SOFTMAX",
    "operand_axis",
    "permutation",
    "result_axis",
    "source_axis",
]
