"""Products of small matrices by tensor cores, as intrinsics that a schedule puts in.

What lies where is said in :mod:`burnish.targets.cuda.fragments`. ``ldmatrix`` reads four pieces of
8 x 16 bytes of shared memory at once, each thread naming a row of one; with two-byte elements it
also transposes them, for a ``B`` with its columns last. Each intrinsic's description says the same
in loops, with the same places, so that a kernel can be run on a CPU with descriptions in their
stead. The forms are those of ``tvm.s_tir.tensor_intrin.cuda``, which lacks bfloat16, tf32, and
sm_75's shapes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

from burnish.targets.cuda.fragments import SIZE, WARP, Matrix, Step, element_c, place_c
from burnish.targets.cuda.parsing import quick_parsing

SHARED = "shared.dyn"
_SHORT = {
    "float16": "fp16",
    "bfloat16": "bf16",
    "int8": "int8",
    "float32": "tf32",
}
_SUMS = {"float32": "fp32", "int32": "int32"}


@dataclass(frozen=True)
class Names:
    """Intrinsics of a product, by what they do."""

    fill: str
    load_a: str
    load_b: str
    multiply: str
    store: str

    def of_descriptions(self) -> Names:
        """The same with each replaced by its description."""
        return Names(*(f"{name}.described" for name in vars(self).values()))


@functools.cache
def intrinsics(matrix: Matrix, columns_last: bool) -> Names:
    """Register and name the intrinsics; ``columns_last`` says how ``B`` lies in shared memory.

    Raises ``ValueError`` for a ``B`` that cannot be read with its columns last.
    """
    if columns_last and not matrix.turns:
        raise ValueError(f"operands of {matrix.dtype} cannot be turned as they are loaded")
    ending = f"{matrix.dtype}.sm_{matrix.capability}"
    b = "columns" if columns_last else "rows"
    with quick_parsing():
        made = {
            f"burnish.fill.{matrix.sums}": _fill(matrix.sums),
            f"burnish.load_a.{ending}": _load(
                matrix, (SIZE, matrix.depth), matrix.place_a, matrix.source_a, False
            ),
            f"burnish.load_b.{b}.{ending}": _load(
                matrix,
                (matrix.depth, SIZE) if columns_last else (SIZE, matrix.depth),
                (lambda k, n: matrix.place_b(n, k)) if columns_last else matrix.place_b,
                lambda thread, stride: matrix.source_b(thread, stride, columns_last),
                columns_last,
            ),
            f"burnish.multiply.{b}.{ending}": _multiply(matrix),
            f"burnish.store.{matrix.sums}": _store(matrix.sums),
        }
    for name, (description, code) in made.items():
        TensorIntrin.register(name, description, code, override=True)
        TensorIntrin.register(f"{name}.described", description, description, override=True)
    return Names(*made)


_Pair = tuple[tirx.PrimFunc, tirx.PrimFunc]


def _fill(dtype: str) -> _Pair:
    zero = tirx.const(0, dtype)

    @T.prim_func(s_tir=True)
    def description(c_handle: T.handle) -> None:
        c = T.match_buffer(c_handle, (WARP, 8), dtype, scope="warp", offset_factor=1)
        with T.sblock("root"):
            T.reads()
            T.writes(c[0:WARP, 0:8])
            for i, j in T.grid(SIZE, SIZE):
                with T.sblock("fill"):
                    row, column = T.axis.remap("SS", [i, j])
                    thread, element = T.meta_var(place_c(row, column))
                    T.reads()
                    T.writes(c[thread, element])
                    c[thread, element] = zero

    @T.prim_func(s_tir=True)
    def code(c_handle: T.handle) -> None:
        c = T.match_buffer(c_handle, (WARP, 8), dtype, scope="warp", offset_factor=1)
        with T.sblock("root"):
            T.reads()
            T.writes(c[0:WARP, 0:8])
            for _thread in T.thread_binding(0, WARP, "threadIdx.x"):
                T.evaluate(T.cuda.mma_fill_legacy(8, c.data, c.elem_offset, dtype=dtype))

    return description, code


def _load(
    matrix: Matrix,
    shape: tuple[int, int],
    place: Callable[[Any, Any], tuple[Any, Any]],
    source: Callable[[Any, Any], Any],
    turned: bool,
) -> _Pair:
    rows, columns = shape
    dtype, held = matrix.dtype, matrix.held

    @T.prim_func(s_tir=True)
    def description(to: T.handle, given: T.handle) -> None:
        shared = T.match_buffer(given, shape, dtype, align=64, offset_factor=columns, scope=SHARED)
        warp = T.match_buffer(
            to, (WARP, held), dtype, align=64, offset_factor=columns, scope="warp"
        )
        with T.sblock("root"):
            T.reads(shared[0:rows, 0:columns])
            T.writes(warp[0:WARP, 0:held])
            for i, j in T.grid(rows, columns):
                with T.sblock("load"):
                    row, column = T.axis.remap("SS", [i, j])
                    T.reads(shared[row, column])
                    thread, element = T.meta_var(place(row, column))
                    T.writes(warp[thread, element])
                    warp[thread, element] = shared[row, column]

    @T.prim_func(s_tir=True)
    def code(to: T.handle, given: T.handle) -> None:
        stride = T.int32()
        one = T.int32()
        shared = T.match_buffer(
            given,
            shape,
            dtype,
            align=64,
            offset_factor=columns,
            scope=SHARED,
            strides=[stride, one],
        )
        warp = T.match_buffer(
            to, (WARP, held), dtype, align=64, offset_factor=columns, scope="warp"
        )
        with T.sblock("root"):
            T.reads(shared[0:rows, 0:columns])
            T.writes(warp[0:WARP, 0:held])
            for thread in T.thread_binding(0, WARP, "threadIdx.x"):
                T.evaluate(
                    T.ptx_legacy.ldmatrix(
                        turned,
                        4,
                        ".b16",
                        warp.data,
                        warp.elem_offset + held * thread,
                        shared.access_ptr("r"),
                        source(thread, stride),
                        dtype=dtype,
                    )
                )

    return description, code


def _multiply(matrix: Matrix) -> _Pair:
    dtype, sums, held, depth = matrix.dtype, matrix.sums, matrix.held, matrix.depth
    short, steps = _SHORT[dtype], matrix.steps()

    def wide(value: Any) -> Any:
        return value if dtype == sums else tirx.Cast(sums, value)

    @T.prim_func(s_tir=True)
    def description(a_handle: T.handle, b_handle: T.handle, c_handle: T.handle) -> None:
        a = T.match_buffer(
            a_handle, (WARP, held), dtype, align=64, offset_factor=depth, scope="warp"
        )
        b = T.match_buffer(
            b_handle, (WARP, held), dtype, align=64, offset_factor=depth, scope="warp"
        )
        c = T.match_buffer(c_handle, (WARP, 8), sums, align=64, offset_factor=SIZE, scope="warp")
        with T.sblock("root"):
            T.reads(c[0:WARP, 0:8], a[0:WARP, 0:held], b[0:WARP, 0:held])
            T.writes(c[0:WARP, 0:8])
            for i, j, term in T.grid(SIZE, SIZE, depth):
                with T.sblock("multiply"):
                    row, column, k = T.axis.remap("SSR", [i, j, term])
                    c_thread, c_element = T.meta_var(place_c(row, column))
                    a_thread, a_element = T.meta_var(matrix.place_a(row, k))
                    b_thread, b_element = T.meta_var(matrix.place_b(column, k))
                    T.reads(c[c_thread, c_element], a[a_thread, a_element], b[b_thread, b_element])
                    T.writes(c[c_thread, c_element])
                    c[c_thread, c_element] += wide(a[a_thread, a_element]) * wide(
                        b[b_thread, b_element]
                    )

    def instruction(step: Step, a: Any, b: Any, c: Any, thread: Any) -> Any:
        return T.ptx_legacy.mma(
            step.shape,
            "row",
            "col",
            short,
            short,
            _SUMS[sums],
            a.data,
            a.elem_offset + thread * held + step.a,
            b.data,
            b.elem_offset + thread * held + step.b,
            c.data,
            c.elem_offset + thread * 8 + step.c,
            False,
            dtype=sums,
        )

    def every(a: Any, b: Any, c: Any, thread: Any) -> Any:
        return tirx.SeqStmt([tirx.Evaluate(instruction(step, a, b, c, thread)) for step in steps])

    @T.prim_func(s_tir=True)
    def code(a_handle: T.handle, b_handle: T.handle, c_handle: T.handle) -> None:
        a = T.match_buffer(
            a_handle, (WARP, held), dtype, align=64, offset_factor=depth, scope="warp"
        )
        b = T.match_buffer(
            b_handle, (WARP, held), dtype, align=64, offset_factor=depth, scope="warp"
        )
        c = T.match_buffer(c_handle, (WARP, 8), sums, align=64, offset_factor=SIZE, scope="warp")
        with T.sblock("root"):
            T.reads(c[0:WARP, 0:8], a[0:WARP, 0:held], b[0:WARP, 0:held])
            T.writes(c[0:WARP, 0:8])
            for thread in T.thread_binding(0, WARP, "threadIdx.x"):
                T.add_to_parent(every(a, b, c, thread))

    return description, code


def _store(dtype: str) -> _Pair:
    @T.prim_func(s_tir=True)
    def description(given: T.handle, to: T.handle) -> None:
        warp = T.match_buffer(given, [WARP, 8], dtype, scope="warp", offset_factor=1)
        shared = T.match_buffer(to, [SIZE, SIZE], dtype, scope=SHARED, offset_factor=1)
        with T.sblock("root"):
            T.reads(warp[0:WARP, 0:8])
            T.writes(shared[0:SIZE, 0:SIZE])
            for i, j in T.grid(SIZE, SIZE):
                with T.sblock("store"):
                    row, column = T.axis.remap("SS", [i, j])
                    thread, element = T.meta_var(place_c(row, column))
                    T.reads(warp[thread, element])
                    T.writes(shared[row, column])
                    shared[row, column] = warp[thread, element]

    @T.prim_func(s_tir=True)
    def code(given: T.handle, to: T.handle) -> None:
        stride = T.int32()
        one = T.int32()
        warp = T.match_buffer(given, [WARP, 8], dtype, scope="warp", offset_factor=1)
        shared = T.match_buffer(
            to, [SIZE, SIZE], dtype, scope=SHARED, offset_factor=1, strides=[stride, one]
        )
        with T.sblock("root"):
            T.reads(warp[0:WARP, 0:8])
            T.writes(shared[0:SIZE, 0:SIZE])
            for thread in T.thread_binding(0, WARP, "threadIdx.x"):
                for element in T.serial(8):
                    row, column = T.meta_var(element_c(thread, element))
                    shared[row, column] = warp[thread, element]

    return description, code
