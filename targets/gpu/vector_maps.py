"""Maps whose elements are computed as vectors: element-wise chains, with broadcasts.

1. A work item computes ``lanes`` neighbours along the last axis, loads, arithmetic and store all
   vectors of the device's width.
2. Each element read is a neighbour of the one before, or the same for all lanes; what reads
   otherwise (transposes, padding) or chooses between values is left to other rules.
3. What is over at the end of a row is computed one by one; rows of less than ``_LEAST`` vectors
   that end so are left to other rules.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr, TensorLoad, Var
from tvm.ir.prim import EQ, GE, GT, LE, LT, NE, And, Not, Or, Select
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.stages import Stage, is_conditional, loads, read_program, walk
from burnish.targets.gpu.contraction import all_inlined
from burnish.targets.gpu.fetches import operand
from burnish.targets.gpu.launch import Device, launch

_TYPES = ("float32", "float16", "int32")
"""What OpenCL has vectors of whose arithmetic TVM writes."""
_CHOICES = (Select, EQ, NE, LT, LE, GT, GE, And, Or, Not)
_CALLS = frozenset(f"tirx.{name}" for name in ("exp", "tanh", "sqrt", "log"))
"""What TVM calls with vectors; others (erf) it would call one by one."""
_LEAST = 4
_ITEMS = 256


def emit(func: tirx.PrimFunc, device: Device) -> tirx.PrimFunc | None:
    """The kernel of a map in vectors, or ``None`` for any other function."""
    stage = _map(func)
    if stage is None:
        return None
    last = stage.spatial[-1]
    lanes = device.vector // tvm.DataType(str(stage.out.dtype)).itemsize
    if last.size is None or lanes < 2 or not _is_vector(stage, lanes):
        return None
    whole, over = divmod(last.size, lanes)
    if whole < 1 or (over and whole < _LEAST):
        return None
    chunks = whole + bool(over)
    count = loops.product([*(it.extent for it in stage.spatial[:-1]), chunks])
    items = min(device.threads, _ITEMS)
    groups = tirx.floordiv(loops.times(count, 1) + (items - 1), items)
    known = loops.as_int(count)
    blocks: loops.Extent = -(-known // items) if known is not None else groups

    def item(block: Expr, thread: Expr) -> Stmt:
        at = block * items + thread
        row, chunk = loops.split_two(at, chunks)
        outer = loops.split_index(row, [it.extent for it in stage.spatial[:-1]])
        place = dict(zip([it.var for it in stage.spatial[:-1]], outer, strict=True))

        def element(step: Any) -> Stmt:
            mapping = {**place, last.var: chunk * lanes + step}
            indices = [loops.substitute(index, mapping) for index in stage.indices]
            return loops.store(stage.out, loops.substitute(stage.value, mapping), indices)

        body = loops.vector(lanes, element)
        if over:
            body = loops.branch(chunk < whole, body, loops.unroll(over, element))
        return loops.branch(at < count, body)

    return func.with_body(launch(blocks, items, item))


def _map(func: tirx.PrimFunc) -> Stage | None:
    """The one stage of a kernel that is a map."""
    program = read_program(func)
    stages = all_inlined(program) if program is not None else None
    if stages is None or len(stages) != 1:
        return None
    (stage,) = stages
    plain = stage.combine is None and stage.spatial and stage.identity()
    return stage if plain and not is_conditional(stage.value) else None


def _is_vector(stage: Stage, lanes: int) -> bool:
    """Rule 2."""
    found = loads(stage.value)
    types = {str(stage.out.dtype), *(str(load.source.dtype) for load in found)}
    if not found or not types <= {*_TYPES} or any(walk(stage.value, one) for one in _CHOICES):
        return False
    if any(getattr(call.op, "name", "") not in _CALLS for call in walk(stage.value, Call)):
        return False
    if len({tvm.DataType(dtype).itemsize for dtype in types}) != 1:
        return False
    bare = tvm_ffi.structural_map(
        stage.value, [(TensorLoad, lambda load: tirx.const(0, str(load.source.dtype)))]
    )
    variables = {it.var for it in stage.spatial}
    if any(var in variables for var in walk(bare, Var)):
        return False
    last = stage.spatial[-1]
    chunk, lane = Var("chunk", "int64"), Var("lane", "int64")
    value = loops.substitute(stage.value, {last.var: chunk * lanes + lane})
    bounds = {it.var: (0, it.extent) for it in stage.spatial[:-1]}
    read = operand(value, lane, lanes, {**bounds, chunk: (0, last.extent)}, aligned=False)
    return read is not None and all(fetch.count in (1, lanes) for fetch in read.fetches)
