"""Products of small matrices, by instructions that do what NVIDIA's manual says of them."""

from __future__ import annotations

import numpy as np
import pytest

from burnish.targets.cuda import mma
from burnish.targets.cuda.fragments import SIZE, WARP, Matrix, place_c

MATRICES = [
    Matrix("float16", 75),
    Matrix("float16", 80),
    Matrix("bfloat16", 80),
    Matrix("int8", 75),
    Matrix("int8", 80),
    Matrix("float32", 80),
]


def ldmatrix(memory: np.ndarray, matrix: Matrix, sources: list[int], turned: bool) -> np.ndarray:
    """Four pieces of 8 rows of 16 bytes: thread ``8 p + r`` names row ``r`` of piece ``p``; each
    gets 4 bytes of each piece, of row ``thread / 4``, in order (of column, where it is turned)."""
    v, out = matrix.register, np.zeros((WARP, 4 * matrix.register), memory.dtype)
    for piece in range(4):
        starts = [sources[8 * piece + row] for row in range(8)]
        rows = np.stack([memory[start : start + matrix.vector] for start in starts])
        rows = rows.T if turned else rows
        for thread in range(WARP):
            at = v * (thread % 4)
            out[thread, v * piece : v * piece + v] = rows[thread // 4, at : at + v]
    return out


def instruct(shape: str, v: int, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    """``mma``: operands and sums by thread, as the manual's figures of fragments place them.

    Registers of A are rows ``g``, then ``g + 8``, for each half of depth; of B, halves of depth."""
    rows, depth = (8 if shape.startswith("m8") else 16), int(shape.split("k")[1])
    halves = depth // (4 * v)
    x, y = np.zeros((rows, depth)), np.zeros((depth, 8))
    for thread in range(WARP):
        group, at = thread // 4, v * (thread % 4)
        for half in range(halves):
            k = slice(4 * v * half + at, 4 * v * half + at + v)
            for down in range(rows // 8):
                register = half * (rows // 8) + down
                x[group + 8 * down, k] = a[thread, v * register : v * register + v]
            y[k, group] = b[thread, v * half : v * half + v]
    product = x @ y
    for thread in range(WARP):
        for down in range(rows // 8):
            at = 2 * (thread % 4)
            c[thread, 2 * down : 2 * down + 2] += product[thread // 4 + 8 * down, at : at + 2]


@pytest.mark.parametrize("columns_last", [False, True])
@pytest.mark.parametrize("matrix", MATRICES, ids=lambda m: f"{m.dtype}-sm_{m.capability}")
def test_the_instructions_multiply(matrix, columns_last):
    if columns_last and not matrix.turns:
        with pytest.raises(ValueError, match="cannot be turned"):
            mma.intrinsics(matrix, columns_last)
        return
    rng = np.random.default_rng(0)
    depth, v, stride = matrix.depth, matrix.register, 40
    a = rng.integers(-9, 9, (SIZE, depth)).astype(np.float64)
    b = rng.integers(-9, 9, (SIZE, depth)).astype(np.float64)
    in_memory = b.T if columns_last else b
    shared = [np.full((len(rows), stride), np.nan) for rows in (a, in_memory)]
    shared[0][:, :depth] = a
    shared[1][:, : in_memory.shape[1]] = in_memory
    sources = [int(matrix.source_a(t, stride)) for t in range(WARP)]
    left = ldmatrix(shared[0].ravel(), matrix, sources, False)
    sources = [int(matrix.source_b(t, stride, columns_last)) for t in range(WARP)]
    right = ldmatrix(shared[1].ravel(), matrix, sources, columns_last)
    sums = np.zeros((WARP, 8))
    for step in matrix.steps():
        instruct(step.shape, v, left[:, step.a :], right[:, step.b :], sums[:, step.c :])
    expected = a @ b.T
    for row in range(SIZE):
        for column in range(SIZE):
            assert sums[place_c(row, column)] == expected[row, column]


@pytest.mark.parametrize("matrix", MATRICES, ids=lambda m: f"{m.dtype}-sm_{m.capability}")
def test_loads_put_elements_where_the_descriptions_say(matrix):
    memory = np.arange(SIZE * matrix.depth, dtype=np.float64)
    for source, place in (
        (lambda t: matrix.source_a(t, matrix.depth), matrix.place_a),
        (lambda t: matrix.source_b(t, matrix.depth, False), matrix.place_b),
    ):
        found = ldmatrix(memory, matrix, [int(source(t)) for t in range(WARP)], False)
        for row in range(SIZE):
            for k in range(matrix.depth):
                assert found[place(row, k)] == memory[row * matrix.depth + k]
