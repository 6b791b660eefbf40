"""Innermost loops whose conditions repeat, as two loops.

A join along an axis that is then merged with the one before it (the halves of each head, in rotary
embeddings) tests ``i % width < half`` for each element. As ``i = j * width + k`` the test is one of
``k`` alone, so that its loop is cut into ranges in which it is decided.

The test must not reach LLVM either: its loop vectorizer, in the version of TVM 0.27 and with
vectors of 512 bits, reads ``x[i % 8]`` past 8 elements where such a test is in the loop.
"""

from __future__ import annotations

from dataclasses import replace

from tvm import tirx
from tvm.ir import Call, Expr, Var
from tvm.ir.prim import FloorMod

from burnish.targets.cpu import loops
from burnish.targets.cpu.stages import Iter, Stage, simplified, walk


def apart(stage: Stage) -> Stage:
    """``stage`` with its last loop made two where that decides conditions; else itself."""
    if not stage.spatial:
        return stage
    *outer, inner = stage.spatial
    period = _period(stage, inner)
    if period is None or inner.size is None:
        return stage
    dtype = str(inner.var.ty.dtype)
    high, low = Var(f"{inner.var.name}_h", dtype), Var(f"{inner.var.name}_l", dtype)
    count = inner.size // period
    bounds = {it.var: (0, it.size) for it in outer if it.size is not None}
    bounds |= {high: (0, count), low: (0, period)}

    def rewritten(expr: Expr) -> Expr:
        return simplified(loops.substitute(expr, {inner.var: high * period + low}), bounds)

    return replace(
        stage,
        spatial=(
            *outer,
            Iter(high, tirx.const(count, dtype)),
            Iter(low, tirx.const(period, dtype)),
        ),
        value=rewritten(stage.value),
        indices=tuple(rewritten(index) for index in stage.indices),
    )


def _period(stage: Stage, inner: Iter) -> int | None:
    """The shortest period of a condition on the last loop that divides its size."""
    size = inner.size
    if size is None:
        return None
    found = set()
    for call in walk(stage.value, Call):
        if getattr(call.op, "name", "") != "prim.if_then_else":
            continue
        for rest in walk(call.args[0], FloorMod):
            width = loops.as_int(rest.b)
            inside = any(var.same_as(inner.var) for var in walk(rest.a, Var))
            if inside and width is not None and 1 < width < size and size % width == 0:
                found.add(width)
    return min(found, default=None)
