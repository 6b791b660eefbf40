"""Bindings inside expressions as stores to local buffers.

TVM's passes and its code generator put what a variable is bound to in place of the variable
whenever they analyse something, in trees that grow with the product of the uses along a chain: a
cosine of a cosine would compile for minutes. An element of a buffer is opaque to them. LLVM keeps
such buffers in registers, so that the code is the same.
"""

from __future__ import annotations

import tvm_ffi
from tvm.ir import Call, Expr, Var
from tvm.ir.prim import Let
from tvm.tirx import AllocBuffer, BufferStore, For, ForKind, SeqStmt, Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.stages import walk


def straightened(body: Stmt) -> Stmt:
    """``body`` with the bindings in what it stores made stores of their own, in order.

    A buffer has one element for each lane of the vector loop it stands in. Bindings in an
    alternative that may not be evaluated (``if_then_else``) stay.
    """

    def loop(node: For) -> Stmt:
        if node.kind != ForKind.VECTORIZED:
            return node
        kept: list[Var] = []
        inner = tvm_ffi.structural_map(
            node.body,
            [(BufferStore, lambda store: _stores(store, node.extent, node.loop_var, kept))],
            order="post",
        )
        if not kept:
            return node
        new = For(node.loop_var, node.min, node.extent, node.kind, inner)
        return SeqStmt([*[AllocBuffer(buffer) for buffer in kept], new])

    def single(store: BufferStore) -> Stmt:
        kept: list[Var] = []
        new = _stores(store, 1, loops.const(0), kept)
        return SeqStmt([*[AllocBuffer(buffer) for buffer in kept], *new.seq]) if kept else new

    body = tvm_ffi.structural_map(body, [(For, loop)], order="post")
    return tvm_ffi.structural_map(body, [(BufferStore, single)], order="post")


def _stores(store: BufferStore, lanes: loops.Extent, lane: Expr, kept: list[Var]) -> Stmt:
    """The stores that ``store`` becomes; the buffers they need are added to ``kept``."""
    lets = walk(store.value, Let)
    if not lets or loops.as_int(lanes) is None or _may_be_skipped(store.value):
        return store
    values: dict[Var, Expr] = {let.var: _bare(let.value) for let in lets}
    elements: dict[Var, Expr] = {}
    parts: list[Stmt] = []

    def make(var: Var) -> None:
        if var in elements:
            return
        value = values[var]
        for used in walk(value, Var):
            if used in values:
                make(used)
        buffer = loops.local([lanes], str(var.ty.dtype), str(var.name))
        kept.append(buffer)
        parts.append(loops.store(buffer, loops.substitute(value, elements), [lane]))
        elements[var] = buffer[lane]

    for var in values:
        make(var)
    last = loops.substitute(_bare(store.value), elements)
    return SeqStmt([*parts, BufferStore(store.buffer, last, store.indices)])


def _bare(value: Expr) -> Expr:
    """``value`` with bodies in place of bindings, the variables left free."""
    return tvm_ffi.structural_map(value, [(Let, lambda let: let.body)], order="post")


def _may_be_skipped(value: Expr) -> bool:
    branches = [c for c in walk(value, Call) if getattr(c.op, "name", "") == "prim.if_then_else"]
    return any(walk(branch, Let) for branch in branches)
