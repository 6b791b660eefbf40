"""Rule for running sums and products (cumsum, cumprod): a work item takes a row, in one pass.

The definition that the kernel carries, a sum over all earlier elements for each element, is
quadratic; its attribute ``burnish.scan`` says what it is.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import AttrStmt, Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.scans import SCAN
from burnish.targets.opencl.target import OpenclTarget


def emit(func: tirx.PrimFunc, target: OpenclTarget) -> tirx.PrimFunc | None:
    """The kernel of a scan ``x [..., N, ...] -> out``, or ``None`` for any other function."""
    attrs = dict(func.attrs.items()) if func.attrs is not None else {}
    if SCAN not in attrs:
        return None
    info = {str(k): v for k, v in attrs[SCAN].items()}
    x, out = (param for param in func.params if hasattr(param, "shape"))
    axis, exclusive = int(info["axis"]), bool(int(info["exclusive"]))
    product = str(info["kind"]) == "prod"
    dtype = str(out.dtype)
    others = [extent for place, extent in enumerate(x.shape) if place != axis]
    rows = loops.product(others)
    total = loops.local([1], dtype, "total")
    zero = loops.const(0)

    def row(at: Expr) -> Stmt:
        place = loops.split_index(at, others)

        def step(k: Any) -> Stmt:
            here = [*place[:axis], k, *place[axis:]]
            value = x[tuple(here)].astype(dtype)
            so_far = total[(zero,)]
            add = loops.store(total, so_far * value if product else so_far + value, [zero])
            give = loops.store(out, total[(zero,)], here)
            return loops.seq(give, add) if exclusive else loops.seq(add, give)

        start = loops.store(total, tirx.const(1 if product else 0, dtype), [zero])
        return loops.seq(loops.allocate(total), start, loops.serial(x.shape[axis], step, "k"))

    items = min(target.work_group, loops.as_int(rows) or target.work_group)
    groups = tirx.floordiv(rows + loops.const(items - 1), items)
    block, thread = (
        tirx.IterVar(tvm.ir.Range(zero, extent), tirx.Var(name.replace(".", "_"), "int64"), 1, name)
        for name, extent in (("blockIdx.x", groups), ("threadIdx.x", loops.const(items)))
    )
    at = block.var * items + thread.var
    body: Stmt = loops.branch(at < rows, row(at))
    for axis_var, extent in ((thread, loops.const(items)), (block, groups)):
        body = AttrStmt(axis_var, "thread_extent", extent, body)
    return func.with_body(body)
