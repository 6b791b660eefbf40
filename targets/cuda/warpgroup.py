"""Products of four warps at once (``wgmma``, of Hopper): what lies where, and their CUDA C++.

A warp group, 128 threads, multiplies ``A [64, k]`` and ``B [columns, k]`` (``B`` by columns of the
product), both in shared memory, into ``C [64, columns]`` in its registers. One intrinsic takes 128
bytes of ``k``, in four instructions of 32 bytes each.

1. **Operands** lie in atoms of eight rows of 128 bytes, each atom at a multiple of 1,024 bytes. The
   eight pieces of 16 bytes of a row are exchanged: piece ``p`` of row ``r`` lies at ``p xor r % 8``
   (:func:`swizzled`), so that a column of pieces lies in all banks. A row is a row of ``A`` or a
   column of ``B``, along ``k``; of a ``B`` with its columns last, it is 64 columns at one ``k``.
2. **Descriptors** (64 bits) say where an operand is: bits 0-13 its address, 16-29 the offset of the
   next 64 columns (columns last; else unused), 32-45 that of the next atom of eight rows, all in
   16 bytes; 62-63 are 1, for exchanges over 128 bytes.
3. **Sums**: thread ``32 (row % 64 / 16) + 4 (row % 8) + column % 8 / 2``, register
   ``4 (column / 8) + 2 (row % 16 / 8) + column % 2``.

After NVIDIA's PTX manual, "Asynchronous Warpgroup Level Matrix Instructions".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ROWS, WARPS, ROW_BYTES = 64, 4, 128
"""Of a group: rows that it computes, its warps, and bytes of ``k`` that an intrinsic takes."""
_STEP_BYTES, _ATOM_ROWS = 32, 8
_ATOM_BYTES = _ATOM_ROWS * ROW_BYTES
_OPERANDS = {"float16": "f16", "bfloat16": "bf16", "int8": "s8"}
DTYPES = tuple(_OPERANDS)
_BYTES = {"float16": 2, "bfloat16": 2, "int8": 1}


@dataclass(frozen=True)
class Group:
    """A product of one warp group: ``A [64, depth] B [columns, depth]`` of ``dtype``;
    ``columns_last`` says that ``B`` is ``[depth, columns]`` in memory."""

    dtype: str
    columns: int
    columns_last: bool

    def __post_init__(self) -> None:
        if self.dtype not in _OPERANDS:
            raise ValueError(f"warp groups multiply {', '.join(_OPERANDS)}, not {self.dtype}")
        if self.columns_last and self.bytes != 2:
            raise ValueError(f"operands of {self.dtype} cannot be turned as they are read")
        if self.columns not in (64, 128, 256):
            raise ValueError(f"a group computes 64, 128 or 256 columns, not {self.columns}")

    @property
    def bytes(self) -> int:
        return _BYTES[self.dtype]

    @property
    def depth(self) -> int:
        """Of ``k``, for one intrinsic; also the elements of a row of an atom."""
        return ROW_BYTES // self.bytes

    @property
    def piece(self) -> int:
        """Elements of 16 bytes."""
        return 16 // self.bytes

    @property
    def sums(self) -> str:
        return "int32" if self.dtype == "int8" else "float32"

    @property
    def held(self) -> int:
        """Sums that a thread holds."""
        return self.columns // 2

    @property
    def shape_b(self) -> tuple[int, int, int]:
        """Of ``B`` in memory: columns last, 64 of them after the other."""
        if self.columns_last:
            return self.columns // self.depth, self.depth, self.depth
        return 1, self.columns, self.depth

    def place_b(self, column: Any, k: Any) -> tuple[Any, Any, Any]:
        """Where an element of ``B`` is in memory, but for the exchange of pieces."""
        if self.columns_last:
            return column // self.depth, k, column % self.depth
        return 0, column, k

    @property
    def name(self) -> str:
        return f"burnish_group_{self.dtype}_{self.columns}{'_columns' if self.columns_last else ''}"


def place_c(row: Any, column: Any) -> tuple[Any, Any, Any]:
    """Part 3: warp of the group, thread of the warp, register."""
    thread = 4 * (row % 8) + column % 8 // 2
    return row // 16, thread, 4 * (column // 8) + 2 * (row % 16 // 8) + column % 2


def swizzled(row: Any, piece: Any) -> Any:
    """Part 1: where a piece of 16 bytes lies in its row."""
    return piece ^ (row % _ATOM_ROWS)


def descriptor(group: Group, columns_last: bool) -> int:
    """Part 2, less the address."""
    next_columns = group.depth * ROW_BYTES if columns_last else 16
    return 1 << 62 | (_ATOM_BYTES >> 4) << 32 | (next_columns >> 4) << 16


def code_of(group: Group) -> str:
    """The function in CUDA C++: ``c += a b``, of the 128 threads of a group together.

    Operands were written by plain stores and copies, which the instructions read by another way:
    hence the fence for the proxy. Sums are there when it returns; the fence and the wait name them,
    so that the compiler moves nothing of theirs between the two.
    """
    count, sums = group.held, {"float32": "float", "int32": "int"}[group.sums]
    constraint = {"float": "f", "int": "r"}[sums]
    last = f"%{count + 2}"
    listed = ", ".join(f"%{n}" for n in range(count))
    operand = _OPERANDS[group.dtype]
    kind = {"float": "f32", "int": "s32"}[sums]
    scales = f", 1, 1, 0, {int(group.columns_last)}" if sums == "float" else ""
    steps = ROW_BYTES // _STEP_BYTES
    step_a = _STEP_BYTES >> 4
    step_b = (_STEP_BYTES // group.bytes * ROW_BYTES if group.columns_last else _STEP_BYTES) >> 4
    instruction = (
        f"wgmma.mma_async.sync.aligned.m{ROWS}n{group.columns}k{_STEP_BYTES // group.bytes}"
        f".{kind}.{operand}.{operand} {{{listed}}}, %{count}, %{count + 1}, p{scales};"
    )
    registers = ", ".join(f'"+{constraint}"(c[{n}])' for n in range(count))
    fixed_a, fixed_b = descriptor(group, False), descriptor(group, group.columns_last)
    return f"""
__forceinline__ __device__ void {group.name}({sums}* c, const void* a, const void* b) {{
  unsigned long long from_a = {fixed_a:#x}ULL | (__cvta_generic_to_shared(a) >> 4 & 0x3fff);
  unsigned long long from_b = {fixed_b:#x}ULL | (__cvta_generic_to_shared(b) >> 4 & 0x3fff);
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  asm volatile("wgmma.fence.sync.aligned;" : {registers} :: "memory");
  #pragma unroll
  for (int step = 0; step < {steps}; ++step) {{
    asm volatile("{{ .reg .pred p; setp.ne.b32 p, {last}, 0; {instruction} }}"
      : {registers}
      : "l"(from_a + {step_a} * step), "l"(from_b + {step_b} * step), "r"(1) : "memory");
  }}
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  asm volatile("wgmma.wait_group.sync.aligned 0;" : {registers} :: "memory");
}}
"""
