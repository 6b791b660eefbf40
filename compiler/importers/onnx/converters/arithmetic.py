"""Arithmetic whose edges TVM's converters get wrong: Mod, BitShift, Pow, IsInf, IsNaN, Mish."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx
from tvm.ir import Expr

from burnish.compiler.importers.onnx.converters.casts import to_common
from burnish.compiler.importers.onnx.emit import astype, const, elementwise, kernel, op, spread
from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts
from burnish.compiler.importers.onnx.small_types import FLOATS


def binary(node: Node, rule: Any, a: relax.Expr, b: relax.Expr, name: str) -> relax.Expr:
    """``rule`` of two tensors that broadcast to each other."""
    shape = _broadcast(node, a, b)

    def make(x: te.Tensor, y: te.Tensor) -> te.Tensor:
        return te.compute(
            shape, lambda *at: rule(x(*spread(x.shape, at)), y(*spread(y.shape, at))), name=name
        )

    return kernel(node, make, a, b, name=name)


def _broadcast(node: Node, a: relax.Expr, b: relax.Expr) -> list[Any]:
    both = node.bb.normalize(op.equal(a, astype(b, str(a.ty.dtype))))
    if not isinstance(both.ty.shape, relax.ShapeExpr):
        raise Refused("the shape of its result is not known at import: fix its input sizes")
    return list(both.ty.shape)


@converts("Mod", since=10)
def mod(node: Node) -> Result:
    """Of floats with ``fmod=0``: Python's, with infinities and zeros as NumPy has them."""
    if "float" not in node.dtype():
        return None
    fmod = bool(node.attrs.get("fmod", 0))
    dtype = node.dtype()
    wide = "float64" if dtype == "float64" else "float32"

    def rule(x: Expr, y: Expr) -> Expr:
        a, b = x.astype(wide), y.astype(wide)
        rest = tirx.call_pure_extern(wide, "fmod" if wide == "float64" else "fmodf", a, b)
        if not fmod:
            zero = tirx.const(0, wide)
            across = tirx.Select(b < zero, rest > zero, rest < zero)
            signed = tirx.Select(rest == zero, tirx.copysign(zero, b), rest)
            rest = tirx.Select(across, rest + b, signed)
        return rest.astype(dtype)

    return binary(node, rule, node.inputs[0], node.inputs[1], "mod")


@converts("BitShift", since=11)
def bit_shift(node: Node) -> Result:
    """A shift out of range gives 0, or -1 where a negative number is shifted right."""
    left = node.attrs.get("direction") == "LEFT"
    dtype = node.dtype()
    bits, signed = np.dtype(dtype).itemsize * 8, not dtype.startswith("u")
    word = f"uint{bits}"

    def rule(x: Expr, y: Expr) -> Expr:
        # As unsigned numbers those below 0 are large, too.
        inside = (y.astype(word) >> tirx.const(bits.bit_length() - 1, word)) == tirx.const(0, word)
        by = tirx.Select(inside, y, tirx.const(0, dtype))
        if left:
            moved = (x.astype(word) << by.astype(word)).astype(dtype)
            beyond = tirx.const(0, dtype)
        else:
            moved = x >> by
            beyond = tirx.const(0, dtype)
            if signed:
                beyond = tirx.Select(x < tirx.const(0, dtype), tirx.const(-1, dtype), beyond)
        return tirx.Select(inside, moved, beyond)

    return binary(node, rule, node.inputs[0], node.inputs[1], "bit_shift")


@converts("Pow")
def power(node: Node) -> Result:
    """Squares as products; integers by squaring, exact as long as they fit; mixed types."""
    x, exponent = node.inputs[0], node.inputs[1]
    dtype, other = node.dtype(), node.dtype(1)
    known = node.value(1)
    if known is not None and known.size == 1 and known.ndim <= node.ndim() and known.item() == 2:
        return op.multiply(x, x)
    if "int" in dtype:
        if "int" in other:
            return binary(node, _integer_power(dtype), x, exponent, "power")

        def mixed(a: Expr, b: Expr) -> Expr:
            return tirx.power(a.astype("float64"), b.astype("float64")).astype(dtype)

        return binary(node, mixed, x, exponent, "power")
    if dtype == other:
        return None
    wide = "float64" if dtype == "float64" else "float32"

    def rule(a: Expr, b: Expr) -> Expr:
        return tirx.power(a.astype(wide), b.astype(wide)).astype(dtype)

    return binary(node, rule, x, exponent, "power")


def _integer_power(dtype: str) -> Any:
    def rule(a: Expr, b: Expr) -> Expr:
        base, times = a, b.astype("int64")
        total: Expr = tirx.const(1, dtype)
        for bit in range(6):
            odd = (times >> tirx.const(bit, "int64")) & tirx.const(1, "int64")
            total = tirx.Select(odd == tirx.const(1, "int64"), total * base, total)
            base = base * base
        zero, one = tirx.const(0, dtype), tirx.const(1, dtype)
        # Beyond 63 only -1, 0 and 1 have powers that fit; the low bit tells them.
        total = tirx.Select(tirx.all(times > tirx.const(63, "int64"), a == zero), zero, total)
        if dtype.startswith("int"):
            unit = tirx.any(a == one, a == tirx.const(-1, dtype))
            below = tirx.all(times < tirx.const(0, "int64"), tirx.Not(unit))
            total = tirx.Select(below, zero, total)
        return total

    return rule


@converts("IsInf", since=10)
def is_inf(node: Node) -> Result:
    negative = bool(node.attrs.get("detect_negative", 1))
    positive = bool(node.attrs.get("detect_positive", 1))
    x = to_common(node, node.inputs[0], node.elem_type(0))
    dtype = str(x.ty.dtype)
    if negative and positive:
        return op.isinf(x)
    if not negative and not positive:
        return op.full_like(x, const(False, "bool"), dtype="bool")
    return op.equal(x, const(np.inf if positive else -np.inf, dtype))


@converts("IsNaN", since=20)
def is_nan(node: Node) -> Result:
    """Of 8-bit floats too."""
    if node.elem_type(0) not in FLOATS:
        return None
    return op.isnan(to_common(node, node.inputs[0], node.elem_type(0)))


@converts("Mish", since=18)
def mish(node: Node) -> Result:
    """``x tanh(log(1 + e^x))`` as ``x n / (n + 2)`` with ``n = e^x (e^x + 2)``, which is exact."""
    dtype = node.dtype()
    wide = "float64" if dtype == "float64" else "float32"

    def rule(v: Expr) -> Expr:
        x, two, top = v.astype(wide), tirx.const(2, wide), tirx.const(20, wide)
        e = tirx.exp(tirx.min(x, top))
        n = e * (e + two)
        return tirx.Select(x > top, x, x * n / (n + two)).astype(dtype)

    return elementwise(node, rule, node.inputs[0], name="mish")


@converts("ReduceMax")
@converts("ReduceMin")
def reduce_extreme(node: Node) -> Result:
    """Of bools, as bytes; and over nothing, which gives the type's limit."""
    shape = node.shape()
    empty = shape is not None and any(isinstance(n, int) and n == 0 for n in shape)
    if node.dtype() != "bool" and not empty:
        return None
    largest = node.op == "ReduceMax"
    axes = node.value(1) if node.input(1) is not None else node.attrs.get("axes")
    if node.input(1) is not None and axes is None:
        raise Refused("its axes must be known at import")
    keep = bool(node.attrs.get("keepdims", 1))
    rank = node.ndim()
    axes = [int(a) % rank for a in np.asarray(axes).ravel()] if axes is not None else []
    if not axes:
        if node.attrs.get("noop_with_empty_axes"):
            return node.inputs[0]
        axes = list(range(rank))
    if empty and shape is not None:
        # The result has elements only if what is empty is reduced.
        kept = [1 if i in axes else n for i, n in enumerate(shape)]
        sizes = kept if keep else [n for i, n in enumerate(shape) if i not in axes]
        return op.broadcast_to(_limit(node.dtype(), lowest=largest), relax.ShapeExpr(sizes))
    reduce = op.max if largest else op.min
    whole = node.emit(op.astype(node.inputs[0], "int8"))
    return op.astype(node.emit(reduce(whole, axes, keep)), "bool")


def _limit(dtype: str, *, lowest: bool) -> relax.Expr:
    if dtype == "bool":
        return const(not lowest, "bool")
    if "float" in dtype:
        return const(-np.inf if lowest else np.inf, dtype)
    info = np.iinfo(dtype)
    return const(info.min if lowest else info.max, dtype)
