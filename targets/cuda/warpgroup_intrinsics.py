"""Products of warp groups as intrinsics that a schedule puts in.

What lies where is said in :mod:`burnish.targets.cuda.warpgroup`; each intrinsic's description says
the same in loops.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

from burnish.targets.cuda.fragments import WARP, element_c
from burnish.targets.cuda.parsing import quick_parsing
from burnish.targets.cuda.warpgroup import ROWS, WARPS, Group, code_of, place_c
from burnish.targets.cuda.warps import SHARED


@dataclass(frozen=True)
class Names:
    """Intrinsics of a product, by what they do."""

    fill: str
    multiply: str
    store: str


@functools.cache
def intrinsics(group: Group) -> Names:
    """Register and name the intrinsics."""
    with quick_parsing():
        made = {
            f"burnish.group.fill.{group.columns}.{group.sums}": _fill(group),
            f"burnish.group.multiply.{group.name}": _multiply(group),
            f"burnish.group.store.{group.columns}.{group.sums}": _store(group),
        }
    for name, (description, code) in made.items():
        TensorIntrin.register(name, description, code, override=True)
    return Names(*made)


_Pair = tuple[tirx.PrimFunc, tirx.PrimFunc]


def _fill(group: Group) -> _Pair:
    zero, columns, held, sums = tirx.const(0, group.sums), group.columns, group.held, group.sums

    @T.prim_func(s_tir=True)
    def description(c_handle: T.handle) -> None:
        c = T.match_buffer(c_handle, (WARPS, WARP, held), sums, scope="local", offset_factor=1)
        with T.sblock("root"):
            T.reads()
            T.writes(c[0:WARPS, 0:WARP, 0:held])
            for i, j in T.grid(ROWS, columns):
                with T.sblock("fill"):
                    row, column = T.axis.remap("SS", [i, j])
                    warp, thread, element = T.meta_var(place_c(row, column))
                    T.reads()
                    T.writes(c[warp, thread, element])
                    c[warp, thread, element] = zero

    @T.prim_func(s_tir=True)
    def code(c_handle: T.handle) -> None:
        c = T.match_buffer(c_handle, (WARPS, WARP, held), sums, scope="local", offset_factor=1)
        with T.sblock("root"):
            T.reads()
            T.writes(c[0:WARPS, 0:WARP, 0:held])
            for _warp in T.thread_binding(0, WARPS, "threadIdx.y"):
                for _thread in T.thread_binding(0, WARP, "threadIdx.x"):
                    for element in T.serial(held):
                        c[0, 0, element] = zero

    return description, code


def _multiply(group: Group) -> _Pair:
    dtype, sums, held, columns = group.dtype, group.sums, group.held, group.columns
    depth, shape_b, place_b = group.depth, group.shape_b, group.place_b

    def wide(value: Any) -> Any:
        return tirx.Cast(sums, value)

    def call(c: Any, a: Any, b: Any) -> Any:
        # Reads that TVM sees keep threads from storing anew what others still multiply.
        operands = a.access_ptr("r"), b.access_ptr("r")
        sums = T.address_of(c[0, 0, 0])
        return T.cuda.func_call(group.name, sums, *operands, source_code=code_of(group))

    @T.prim_func(s_tir=True)
    def description(a_handle: T.handle, b_handle: T.handle, c_handle: T.handle) -> None:
        a = T.match_buffer(a_handle, (ROWS, depth), dtype, scope=SHARED, offset_factor=depth)
        b = T.match_buffer(b_handle, shape_b, dtype, scope=SHARED, offset_factor=depth)
        c = T.match_buffer(c_handle, (WARPS, WARP, held), sums, scope="local", offset_factor=1)
        with T.sblock("root"):
            T.reads(
                c[0:WARPS, 0:WARP, 0:held],
                a[0:ROWS, 0:depth],
                b[0 : shape_b[0], 0 : shape_b[1], 0 : shape_b[2]],
            )
            T.writes(c[0:WARPS, 0:WARP, 0:held])
            for i, j, term in T.grid(ROWS, columns, depth):
                with T.sblock("multiply"):
                    row, column, k = T.axis.remap("SSR", [i, j, term])
                    warp, thread, element = T.meta_var(place_c(row, column))
                    outer, b_row, b_column = T.meta_var(place_b(column, k))
                    T.reads(c[warp, thread, element], a[row, k], b[outer, b_row, b_column])
                    T.writes(c[warp, thread, element])
                    c[warp, thread, element] += wide(a[row, k]) * wide(b[outer, b_row, b_column])

    @T.prim_func(s_tir=True)
    def code(a_handle: T.handle, b_handle: T.handle, c_handle: T.handle) -> None:
        a = T.match_buffer(a_handle, (ROWS, depth), dtype, scope=SHARED, offset_factor=depth)
        b = T.match_buffer(b_handle, shape_b, dtype, scope=SHARED, offset_factor=depth)
        c = T.match_buffer(c_handle, (WARPS, WARP, held), sums, scope="local", offset_factor=1)
        with T.sblock("root"):
            T.reads(
                c[0:WARPS, 0:WARP, 0:held],
                a[0:ROWS, 0:depth],
                b[0 : shape_b[0], 0 : shape_b[1], 0 : shape_b[2]],
            )
            T.writes(c[0:WARPS, 0:WARP, 0:held])
            for _warp in T.thread_binding(0, WARPS, "threadIdx.y"):
                for _thread in T.thread_binding(0, WARP, "threadIdx.x"):
                    T.evaluate(call(c, a, b))

    return description, code


def _store(group: Group) -> _Pair:
    dtype, columns, held = group.sums, group.columns, group.held

    @T.prim_func(s_tir=True)
    def description(given: T.handle, to: T.handle) -> None:
        c = T.match_buffer(given, (WARPS, WARP, held), dtype, scope="local", offset_factor=1)
        shared = T.match_buffer(to, (ROWS, columns), dtype, scope=SHARED, offset_factor=1)
        with T.sblock("root"):
            T.reads(c[0:WARPS, 0:WARP, 0:held])
            T.writes(shared[0:ROWS, 0:columns])
            for i, j in T.grid(ROWS, columns):
                with T.sblock("store"):
                    row, column = T.axis.remap("SS", [i, j])
                    warp, thread, element = T.meta_var(place_c(row, column))
                    T.reads(c[warp, thread, element])
                    T.writes(shared[row, column])
                    shared[row, column] = c[warp, thread, element]

    @T.prim_func(s_tir=True)
    def code(given: T.handle, to: T.handle) -> None:
        stride = T.int32()
        one = T.int32()
        c = T.match_buffer(given, (WARPS, WARP, held), dtype, scope="local", offset_factor=1)
        shared = T.match_buffer(
            to, (ROWS, columns), dtype, scope=SHARED, offset_factor=1, strides=[stride, one]
        )
        with T.sblock("root"):
            T.reads(c[0:WARPS, 0:WARP, 0:held])
            T.writes(shared[0:ROWS, 0:columns])
            for warp in T.thread_binding(0, WARPS, "threadIdx.y"):
                for thread in T.thread_binding(0, WARP, "threadIdx.x"):
                    for element in T.serial(held):
                        row, column = T.meta_var(element_c(thread, element))
                        shared[16 * warp + row, column] = c[0, 0, element]

    return description, code
