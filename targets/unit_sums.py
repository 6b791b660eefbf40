"""Reductions over one element, written as what they are: no reduction.

Rules for GPUs drop the loop of such a reduction and keep its start, and then write what follows it
into it, as they do with elementwise blocks: an RMS norm over an axis of length one normalized by
its own half-made result.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad
from tvm.s_tir import SBlock
from tvm.tirx import BufferStore, IterVar

_DATA, _REDUCE = 0, 2
"""Kinds of a block's iterators, by TVM's numbers."""


def without_unit_sums(body: tirx.Stmt) -> tirx.Stmt:
    """A statement that computes the same, without reductions all of whose loops run once."""
    return tvm_ffi.structural_map(body, [(SBlock, _plain)], order="post")


def _plain(block: SBlock) -> SBlock:
    reduced = [one for one in block.iter_vars if int(one.iter_type) == _REDUCE]
    if block.init is None or not reduced or not all(map(_once, reduced)):
        return block
    starts = {store.buffer: store.value for store in _stores(block.init)}
    if None in starts or len(starts) != len(_stores(block.init)):
        return block

    def started(load: TensorLoad) -> Any:
        return starts.get(load.source, load)

    iters = [
        IterVar(one.dom, one.var, _DATA, one.thread_tag) if one in reduced else one
        for one in block.iter_vars
    ]
    reads = [one for one in block.reads if one.source not in starts]
    return SBlock(
        iters,
        reads,
        list(block.writes),
        block.name_hint,
        tvm_ffi.structural_map(block.body, [(TensorLoad, started)], order="post"),
        None,
        list(block.alloc_buffers),
        list(block.match_buffers),
        block.annotations,
    )


def _once(one: IterVar) -> bool:
    return isinstance(one.dom.extent, tirx.IntImm) and int(one.dom.extent) == 1


def _stores(stmt: tirx.Stmt) -> list[BufferStore]:
    """The stores of a block's start; with anything else in it, none."""
    if isinstance(stmt, BufferStore):
        return [stmt]
    if isinstance(stmt, tirx.SeqStmt):
        return [store for part in stmt.seq for store in _stores(part)]
    return []


__all__ = ["without_unit_sums"]
