"""Register tiles by dot instructions: each lane sums a group of products at once.

A dot instruction takes a vector of totals, a vector of weights whose lanes hold ``group``
neighbours along ``K``, and as many activations in one word for all lanes:

    total[lane] += sum over g < group of activation[g] * weight[lane, g]

1. It fits a packed contraction whose innermost loop runs over the group, whose activations lie
   side by side in memory, and whose numbers have the instruction's types.
2. Where ``K`` is no multiple of the group, the last word is put together from the activations
   that exist; what follows them in memory is never read.

TVM has no types for the operands that LLVM's intrinsics want (it rewrites bfloat16 to uint16),
so each instruction is a small function of LLVM IR on 32-bit words, imported where it is called
and always inlined.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.ir.prim import Broadcast, Cast, Mul, Ramp
from tvm.tirx import AttrStmt, Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.stages import Iter, Stage, simplified, walk
from burnish.targets.target import CpuTarget

DEPTH = "burnish.depth"
"""Block attribute of a packed contraction in groups: its length along ``K``, filling apart."""
_WORD_BITS = 32


@dataclass(frozen=True)
class DotInstruction:
    """``function`` (its LLVM IR in ``text``) over vectors of ``lanes`` words.

    ``left`` and ``right`` are the types of activations and weights, ``total`` that of the sums.
    """

    feature: str
    lanes: int
    left: str
    right: str
    total: str
    function: str
    text: str

    @property
    def bits(self) -> int:
        return int(tvm.DataType(self.left).bits)

    @property
    def group(self) -> int:
        return _WORD_BITS // self.bits

    def call(self, total: Expr, left: Expr, right: Expr) -> Expr:
        """``total`` and the sums of a vector's groups; operands are vectors of words."""
        dtype = f"{self.total}x{self.lanes}"
        return tirx.call_pure_extern(dtype, self.function, total, left, right)


INSTRUCTIONS = (
    DotInstruction(
        feature="avx512bf16",
        lanes=16,
        left="bfloat16",
        right="bfloat16",
        total="float32",
        function="burnish_dot_bf16",
        text="""
declare <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float>, <32 x bfloat>, <32 x bfloat>)

define <16 x float> @burnish_dot_bf16(<16 x float> %c, <16 x i32> %a, <16 x i32> %b) #0 {
  %x = bitcast <16 x i32> %a to <32 x bfloat>
  %y = bitcast <16 x i32> %b to <32 x bfloat>
  %r = call <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(
      <16 x float> %c, <32 x bfloat> %x, <32 x bfloat> %y)
  ret <16 x float> %r
}

attributes #0 = { alwaysinline nounwind memory(none) "target-features"="+avx512bf16,+avx512bw,\
+avx512f,+avx512vl" "min-legal-vector-width"="512" }
""",
    ),
)


@functools.cache
def instructions_of(target: CpuTarget) -> tuple[DotInstruction, ...]:
    """The dot instructions that ``target`` has, for its own vector width."""
    features = set(target.isa())
    return tuple(d for d in INSTRUCTIONS if d.feature in features and d.lanes == target.lanes)


@dataclass(frozen=True)
class Dot:
    """A contraction that an instruction fits: ``element`` counts words, ``code`` is in a word."""

    instruction: DotInstruction
    element: Iter
    code: Iter
    depth: int
    left: TensorLoad
    right: TensorLoad
    column: Var

    def imported(self, body: Stmt) -> Stmt:
        """``body`` with the instruction's function made known."""
        return AttrStmt(
            loops.const(0), "pragma_import_llvm", tvm.ir.StringImm(self.instruction.text), body
        )

    @property
    def rest(self) -> int:
        """Activations of the last word where it is not whole, else 0."""
        return self.depth % self.instruction.group

    def row(self, acc: Var, r: Expr, width: int, at: dict[Var, Expr], count: int) -> Stmt:
        """The word at ``at`` (all axes but the column), ``count`` products a lane, added to
        ``acc[r, 0:width]``.
        """
        lanes, group = self.instruction.lanes, self.instruction.group
        zero, one = loops.const(0), loops.const(1)
        first = {**at, self.code.var: zero, self.column: zero}
        left = Broadcast(self._word(first, count), lanes)
        stores = []
        for start in range(0, width, lanes):
            here = {**first, self.column: loops.const(start)}
            *outer, last = [loops.substitute(index, here) for index in self.right.indices]
            words = self.right.source[(*outer, Ramp(last, one, lanes * group))]
            right = tirx.reinterpret(f"int32x{lanes}", words)
            lane = [r, Ramp(loops.const(start), one, lanes)]
            new = self.instruction.call(acc[tuple(lane)], left, right)
            stores.append(loops.store(acc, new, lane))
        return loops.seq(*stores)

    def _word(self, at: dict[Var, Expr], count: int) -> Expr:
        """``count`` activations as one 32-bit word, the first in the lowest bits."""
        *outer, last = [loops.substitute(index, at) for index in self.left.indices]
        source, bits = self.left.source, self.instruction.bits
        if count == self.instruction.group:
            several = source[(*outer, Ramp(last, loops.const(1), count))]
            return tirx.reinterpret("int32", several)
        total: Expr = tirx.const(0, "int32")
        for place in range(count):
            single = tirx.reinterpret(f"uint{bits}", source[(*outer, last + place)])
            total = total | (single.astype("int32") << tirx.const(bits * place, "int32"))
        return total


def match(stage: Stage, column: Var, target: CpuTarget) -> Dot | None:
    """The instruction that fits a packed contraction (rule 1), and how; else ``None``."""
    depth = stage.attrs.get(DEPTH)
    value = stage.value
    if depth is None or len(stage.reduce) < 2 or not isinstance(value, Mul):
        return None
    *_, element, code = stage.reduce
    left, right = _widened(value.a), _widened(value.b)
    if left is None or right is None:
        return None
    for known in instructions_of(target):
        types = (str(left.ty.dtype), str(right.ty.dtype), str(stage.out.dtype))
        if types != (known.left, known.right, known.total) or code.size != known.group:
            continue
        dot = Dot(known, element, code, int(depth), left, right, column)
        return dot if _side_by_side(dot) else None
    return None


def _widened(value: Expr) -> TensorLoad | None:
    """What a conversion reads, if it reads an element of a tensor and nothing else."""
    if isinstance(value, Cast) and isinstance(value.value, TensorLoad):
        return value.value
    return None


def _side_by_side(dot: Dot) -> bool:
    """Whether the activations of a whole word are neighbours along the last axis."""
    code = dot.code.var
    *outer, last = dot.left.indices
    if any(v.same_as(code) for index in outer for v in walk(index, Var)):
        return False
    whole = dot.depth // dot.instruction.group
    bounds = {dot.element.var: (0, max(whole, 1))}
    first = loops.substitute(last, {code: loops.const(0)})
    return whole == 0 or all(
        loops.as_int(simplified(loops.substitute(last, {code: loops.const(g)}) - first, bounds))
        == g
        for g in range(1, dot.instruction.group)
    )
