"""A kernel of plain loops on a device with work groups: one work item does it all.

The last resort, of kernels whose steps need each other's results (recurrences, loops of a
model's own): slow, and right.
"""

from __future__ import annotations

import tvm_ffi
from tvm import tirx
from tvm.s_tir import SBlock
from tvm.tirx import AllocBuffer, AttrStmt, For, ForKind, SeqStmt, Stmt

_THREAD = tirx.IterVar.ThreadIndex


def one_item(func: tirx.PrimFunc, _target: object) -> tirx.PrimFunc | None:
    """``func`` inside a launch of one item; ``None`` for one that has blocks or launches.

    What it allocates before all else stays outside, in the device's memory.
    """
    if not _plain(func.body):
        return None
    parts = list(func.body.seq) if isinstance(func.body, SeqStmt) else [func.body]
    outside = [part for part in parts if _keeps_outside(part)]
    inside: Stmt = SeqStmt([part for part in parts if not _keeps_outside(part)])
    for tag in ("threadIdx.x", "blockIdx.x"):
        axis = tirx.IterVar((0, 1), tirx.Var(tag.replace(".", "_"), "int32"), _THREAD, tag)
        inside = AttrStmt(axis, "thread_extent", tirx.const(1, "int32"), inside)
    return func.with_body(SeqStmt([*outside, inside]) if outside else inside)


def _keeps_outside(part: Stmt) -> bool:
    return isinstance(part, AllocBuffer) and part.buffer.scope() == "global"


def _plain(body: Stmt) -> bool:
    found: list[object] = []

    def attribute(node: AttrStmt) -> None:
        if node.attr_key == "thread_extent":
            found.append(node)

    def loop(node: For) -> None:
        if node.kind == ForKind.THREAD_BINDING:
            found.append(node)

    tvm_ffi.structural_walk(body, [(SBlock, found.append), (AttrStmt, attribute), (For, loop)])
    return not found
