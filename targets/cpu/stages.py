"""A fused kernel as the list of stages it computes.

Operators lowered from tensor expressions are sequences of perfect loop nests, each computing one
buffer from earlier ones. Read as :class:`Stage` values they can be inlined and laid out anew,
which is what the schedule rules do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr, TensorLoad, Var
from tvm.ir.prim import Add, Max, Min, Mul, Select, expr_deep_equal
from tvm.s_tir import SBlockRealize
from tvm.sym import Analyzer
from tvm.tirx import BufferStore, For, SeqStmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.extremes import limit, plain_maximum
from burnish.targets.divisors import without_negative_divisors

_REDUCE_ITER = 2
_COMBINERS: dict[type, Callable[[Expr, Expr], Expr]] = {
    Add: lambda a, b: a + b,
    Mul: lambda a, b: a * b,
    Max: tirx.max,
    Min: tirx.min,
}
HEAVY = frozenset(
    f"tirx.{name}"
    for name in [
        "exp",
        "exp2",
        "exp10",
        "log",
        "log2",
        "log10",
        "log1p",
        "tanh",
        "erf",
        "sigmoid",
        "sin",
        "cos",
        "tan",
        "sinh",
        "cosh",
        "pow",
        "atan",
        "atan2",
        "asin",
        "acos",
        "acosh",
        "asinh",
        "atanh",
    ]
)
_CONDITIONAL = "prim.if_then_else"
_SOFTMAX_MAXIMUM = "T_softmax_maxelem"
"""TVM's name of the maximum that softmax subtracts."""


@dataclass(frozen=True)
class Iter:
    """One loop of a stage."""

    var: Var
    extent: Expr

    @property
    def size(self) -> int | None:
        return loops.as_int(self.extent)


@dataclass(frozen=True)
class Guard:
    """Only terms with ``low <= index < high`` belong to a reduction."""

    index: Expr
    low: Expr
    high: Expr

    @property
    def condition(self) -> Expr:
        return tirx.all(self.index >= self.low, self.index < self.high)


@dataclass(frozen=True)
class Stage:
    """``out[indices] = value`` over ``spatial``; with ``combine``, folded over ``reduce``.

    Terms that fail one of the ``guards`` are left out, their ``value`` never evaluated.
    """

    name: str
    out: Var
    spatial: tuple[Iter, ...]
    reduce: tuple[Iter, ...]
    indices: tuple[Expr, ...]
    value: Expr
    combine: Callable[[Expr, Expr], Expr] | None = None
    init: Expr | None = None
    attrs: dict[str, Any] = field(default_factory=dict)
    guards: tuple[Guard, ...] = ()

    @property
    def iterations(self) -> int | None:
        """Evaluations of ``value``, or ``None`` where a loop is symbolic."""
        return loops.as_int(loops.product([it.extent for it in self.spatial + self.reduce]))

    def identity(self) -> bool:
        """Whether the stage stores at its own loop variables, in order."""
        return len(self.indices) == len(self.spatial) and all(
            index.same_as(it.var) or (it.size == 1 and loops.as_int(index) == 0)
            for index, it in zip(self.indices, self.spatial, strict=True)
        )

    def value_at(self, indices: Iterable[Expr]) -> Expr:
        """``value`` of an identity stage at other indices."""
        return loops.substitute(
            self.value,
            {it.var: index for it, index in zip(self.spatial, indices, strict=True)},
        )


@dataclass(frozen=True)
class Program:
    """The stages of one kernel, in order; buffers in ``params`` come from outside."""

    params: tuple[Var, ...]
    stages: tuple[Stage, ...]
    attrs: dict[str, Any]

    def readers(self, buffer: Var) -> list[Stage]:
        return [stage for stage in self.stages if loads_of(stage.value, buffer)]

    def is_output(self, stage: Stage) -> bool:
        return any(stage.out.same_as(param) for param in self.params)


def walk(node: Any, kind: type) -> list[Any]:
    """Every ``kind`` inside ``node``."""
    found: list[Any] = []
    tvm_ffi.structural_walk(node, [(kind, lambda item: found.append(item))])
    return found


def loads(value: Expr) -> list[TensorLoad]:
    return walk(value, TensorLoad)


def loads_of(value: Expr, buffer: Var) -> list[TensorLoad]:
    return [load for load in loads(value) if load.source.same_as(buffer)]


def replace_loads(value: Expr, buffer: Var, new: Callable[[list[Expr]], Expr]) -> Expr:
    """``value`` with each load of ``buffer`` at ``indices`` replaced by ``new(indices)``."""
    return tvm_ffi.structural_map(
        value,
        [
            (
                TensorLoad,
                lambda load: new(list(load.indices)) if load.source.same_as(buffer) else load,
            )
        ],
        order="post",
    )


def replace_load(value: Expr, old: TensorLoad, new: Expr) -> Expr:
    """``value`` with the loads that read what ``old`` reads replaced by ``new``."""

    def replaced(load: TensorLoad) -> Expr:
        same = load.source.same_as(old.source) and same_indices(load.indices, old.indices)
        return new if same else load

    return tvm_ffi.structural_map(value, [(TensorLoad, replaced)], order="post")


def is_heavy(value: Expr) -> bool:
    """Whether evaluating ``value`` twice is worth avoiding."""
    return any(getattr(call.op, "name", "") in HEAVY for call in walk(value, Call))


def is_conditional(value: Expr) -> bool:
    return bool(walk(value, Select)) or any(
        getattr(call.op, "name", "") == _CONDITIONAL for call in walk(value, Call)
    )


def same_indices(first: Iterable[Expr], second: Iterable[Expr]) -> bool:
    a, b = list(first), list(second)
    return len(a) == len(b) and all(expr_deep_equal(x, y) for x, y in zip(a, b, strict=True))


def _read_nest(statement: tirx.Stmt) -> Stage | None:
    while isinstance(statement, For):
        statement = statement.body
    if not isinstance(statement, SBlockRealize) or loops.as_int(statement.predicate) != 1:
        return None
    block = statement.block
    if list(block.alloc_buffers) or list(block.match_buffers):
        return None
    if not isinstance(block.body, BufferStore):
        return None
    values = list(statement.iter_values)
    if not all(isinstance(v, Var) or loops.as_int(v) == 0 for v in values):
        return None
    if any(loops.as_int(iv.dom.min) != 0 for iv in block.iter_vars):
        return None
    iters = [(iv.iter_type, Iter(iv.var, iv.dom.extent)) for iv in block.iter_vars]
    stage = Stage(
        name=str(block.name_hint),
        out=block.body.buffer,
        spatial=tuple(it for kind, it in iters if kind != _REDUCE_ITER),
        reduce=tuple(it for kind, it in iters if kind == _REDUCE_ITER),
        indices=tuple(block.body.indices),
        value=block.body.value,
        attrs={str(k): v for k, v in block.annotations.items()},
    )
    if not stage.reduce and block.init is None:
        return None if loads_of(stage.value, stage.out) else stage
    update = stage.value
    combine = _COMBINERS.get(type(update))
    if combine is None or not isinstance(block.init, BufferStore):
        return None
    own = [side for side in (update.a, update.b) if _is_own_load(side, stage)]
    if len(own) != 1 or len(loads_of(update, stage.out)) != 1:
        return None
    operand = update.b if own[0] is update.a or own[0].same_as(update.a) else update.a
    init = limit(update, str(stage.out.dtype))
    if stage.name == _SOFTMAX_MAXIMUM:
        # What NaN there is comes through the exponential.
        combine = plain_maximum
    init = block.init.value if init is None else init
    return replace(stage, value=operand, combine=combine, init=init)


def _is_own_load(value: Expr, stage: Stage) -> bool:
    return (
        isinstance(value, TensorLoad)
        and value.source.same_as(stage.out)
        and same_indices(value.indices, stage.indices)
    )


def read_program(func: tirx.PrimFunc) -> Program | None:
    """The stages of ``func``, or ``None`` if it is not a sequence of plain loop nests."""
    body = func.body
    if not isinstance(body, SBlockRealize):
        return None
    body = body.block.body
    nests = list(body.seq) if isinstance(body, SeqStmt) else [body]
    stages = [_read_nest(nest) for nest in nests]
    if any(stage is None for stage in stages):
        return None
    attrs = {str(k): v for k, v in func.attrs.items()} if func.attrs is not None else {}
    return Program(tuple(func.params), tuple(s for s in stages if s is not None), attrs)


def without_nothing(program: Program) -> Program:
    """``program`` without stages of no elements; sums over nothing are what they start from."""
    stages = list(program.stages)
    for position in reversed(range(len(stages))):
        stage = stages[position]
        if loops.as_int(loops.product([it.extent for it in stage.spatial])) == 0:
            if not any(loads_of(other.value, stage.out) for other in stages[position + 1 :]):
                del stages[position]
        elif stage.combine is not None and stage.iterations == 0:
            assert stage.init is not None
            stages[position] = replace(
                stage, reduce=(), combine=None, init=None, value=stage.init, guards=()
            )
    return replace(program, stages=tuple(stages))


def _may_inline(program: Program, stage: Stage) -> bool:
    """Rules for computing ``stage`` inside its readers instead of storing it.

    1. Only plain maps that store at their own indices, and whose buffer is not an output.
    2. Into maps: always when cheap; a heavy value only if each element is still computed once.
    3. Into reductions: a heavy or conditional value only if nothing is computed twice.
    4. A map of a reduction's result only where it is read element by element, in the same shape:
       that is what a register tile can compute as it stores.
    5. Never a conditional (padding) or heavy value into a contraction, which reads it often.
    """
    if stage.combine is not None or not stage.identity() or program.is_output(stage):
        return False
    readers = program.readers(stage.out)
    heavy = is_heavy(stage.value)
    guarded = heavy or is_conditional(stage.value)
    reductions = [other.out for other in program.stages if other.combine is not None]
    of_reduction = any(
        load.source.same_as(out) for load in loads(stage.value) for out in reductions
    )
    for reader in readers:
        if of_reduction and not (reader.combine is not None or _reads_in_place(reader, stage)):
            return False
        distinct: list[TensorLoad] = []
        for load in loads_of(reader.value, stage.out):
            if not any(same_indices(load.indices, other.indices) for other in distinct):
                distinct.append(load)
        mine, theirs = stage.iterations, reader.iterations
        once = mine is not None and theirs is not None and theirs * len(distinct) <= mine
        once = once and len(readers) == 1
        if mine is None and len(distinct) == 1 and not reader.reduce and len(readers) == 1:
            once = True
        if reader.combine is None:
            if heavy and not once:
                return False
        elif guarded and not once:
            return False
    return True


def _reads_in_place(reader: Stage, stage: Stage) -> bool:
    own = [it.var for it in reader.spatial]
    return all(
        same_indices(load.indices, own) for load in loads_of(reader.value, stage.out)
    ) and same_indices([it.extent for it in reader.spatial], [it.extent for it in stage.spatial])


def inlined(program: Program) -> Program:
    """``program`` with every stage computed inside its readers where that costs nothing."""
    stages = list(program.stages)
    position = 0
    while position < len(stages):
        current = replace(program, stages=tuple(stages))
        stage = stages[position]
        if current.readers(stage.out) and _may_inline(current, stage):
            stages = [
                replace(other, value=replace_loads(other.value, stage.out, stage.value_at))
                if loads_of(other.value, stage.out)
                else other
                for other in stages
                if other is not stage
            ]
        else:
            position += 1
    return replace(program, stages=tuple(stages))


def simplified(value: Any, bounds: dict[Var, tuple[Any, Any]] | None = None) -> Any:
    """``value`` simplified, loop variables bound to ``[low, high)``."""
    analyzer = Analyzer()
    for var, (low, high) in (bounds or {}).items():
        analyzer.bind(var, tvm.ir.Range(low, high))
    return without_negative_divisors(analyzer.simplify(value))
