"""Operations and bytes of a fused kernel, counted from its stages before they are scheduled.

1. Each stage is computed once: what a schedule computes again, or not at all (padding), changes
   nothing. An operation counts once for each combination of the loop variables it depends on.
2. ``sum(a * b)`` over a reduction is a multiply-add, two operations; any other arithmetic is one,
   selections and conversions none.
3. Of a stage that is only read in part (columns that fill up a packed block), that part counts;
   products with zeros that only the packing put there do not.
4. Causal attention counts the pairs of a query and a key that it looks at.
5. Each buffer moves once; of a table that is looked up in, the rows looked up.
6. Winograd's transforms count nothing: what they cost is what its products save.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import tvm
from tvm import tirx
from tvm.ir import Call, Expr, TensorLoad, Var
from tvm.ir.prim import Add, Mul

from burnish.compiler.profile.amounts import amount, least, part, plus, product, times
from burnish.compiler.profile.kernel import Amount
from burnish.passes.kernels import USEFUL
from burnish.targets.attention_form import ATTENTION
from burnish.targets.cpu.stages import HEAVY, Iter, Program, Stage, loads, read_program, walk
from burnish.targets.cpu.winograd import WINOGRAD

_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Mod", "FloorDiv", "FloorMod", "Max", "Min")
_LIGHT = frozenset(
    f"tirx.{name}"
    for name in ("sqrt", "rsqrt", "fabs", "floor", "ceil", "round", "nearbyint", "fma")
)


@dataclass(frozen=True)
class Counts:
    """As in :class:`~burnish.compiler.profile.kernel.Kernel`."""

    flops: Amount | None
    elementwise: Amount | None
    transcendental: Amount | None
    reads: tuple[Amount, ...]
    written: Amount
    dtype: str


def count(func: tirx.PrimFunc) -> Counts:
    """The counts of an unscheduled kernel."""
    buffers = [param for param in func.params if _is_buffer(param)]
    program = read_program(func)
    if program is None:
        return Counts(
            None,
            None,
            None,
            tuple(
                _bytes(p) if _is_buffer(p) and not p.same_as(buffers[-1]) else 0
                for p in func.params
            ),
            plus(*map(_bytes, buffers[-1:])),
            str(buffers[-1].dtype) if buffers else "",
        )
    causal = int(program.attrs[ATTENTION]["causal"]) if ATTENTION in program.attrs else 0
    totals: list[list[Amount]] = [[], [], []]
    for stage in program.stages:
        if WINOGRAD in stage.attrs:
            continue
        for kind, found in enumerate(_operations(stage)):
            found = part(found, _needed(program, stage), _elements(stage))
            if causal and not program.is_output(stage):
                found = _causal(found, causal, buffers)
            totals[kind].append(found)
    outputs = [buffer for buffer in buffers if any(s.out.same_as(buffer) for s in program.stages)]
    read = [
        _is_buffer(param) and not any(param.same_as(out) for out in outputs)
        for param in func.params
    ]
    flops, elementwise, transcendental = (plus(*kind) for kind in totals)
    return Counts(
        flops,
        elementwise,
        transcendental,
        reads=tuple(
            _read_bytes(program, param) if is_read else 0
            for param, is_read in zip(func.params, read, strict=True)
        ),
        written=plus(*map(_bytes, outputs)),
        dtype=_dtype(program) or str(outputs[-1].dtype),
    )


def _is_buffer(param: Any) -> bool:
    return hasattr(param, "shape") and hasattr(param, "scope")


def _bytes(buffer: Any) -> Amount:
    return times(product(buffer.shape), _itemsize(str(buffer.dtype)))


def _itemsize(dtype: str) -> int:
    return 1 if dtype == "bool" else int(tvm.DataType(dtype).itemsize)


def _elements(stage: Stage) -> Amount:
    return product(it.extent for it in stage.spatial)


def _needed(program: Program, stage: Stage) -> Amount:
    """Elements of a stage that are read by others (rule 3); all of them where it is an output."""
    elements = _elements(stage)
    if program.is_output(stage):
        return elements
    reads = [
        _combinations(reader, load)
        for reader in program.stages
        for load in loads(reader.value)
        if load.source.same_as(stage.out)
    ]
    return least(elements, plus(*reads)) if reads else elements


def _combinations(stage: Stage, load: TensorLoad) -> Amount:
    """The product of the loops of ``stage`` whose variables are in the indices of ``load``."""
    return _extents(stage, [var for index in load.indices for var in walk(index, Var)])


def _extents(stage: Stage, variables: Iterable[Var]) -> Amount:
    used = list(variables)
    return product(it.extent for it in _loops(stage) if any(it.var.same_as(v) for v in used))


def _loops(stage: Stage) -> tuple[Iter, ...]:
    return stage.spatial + stage.reduce


def _read_bytes(program: Program, buffer: Any) -> Amount:
    """Rule 5."""
    reads = [
        _combinations(stage, load)
        for stage in program.stages
        for load in loads(stage.value)
        if load.source.same_as(buffer)
    ]
    elements = least(product(buffer.shape), plus(*reads)) if reads else 0
    return times(elements, _itemsize(str(buffer.dtype)))


def _operations(stage: Stage) -> tuple[Amount, Amount, Amount]:
    """Multiply-adds as two, elementwise, transcendental (rules 1 and 2)."""
    flops: Amount = 0
    light: list[Amount] = []
    heavy: list[Amount] = []
    parts = [stage.value]
    if stage.combine is not None:
        every = product(it.extent for it in _loops(stage))
        factors = _factors(stage)
        if factors is not None:
            useful = Fraction(str(stage.attrs.get(USEFUL, "1")))
            flops = part(times(2, every), useful.numerator, useful.denominator)
            parts = factors
        else:
            light.append(every)
    while parts:
        node = parts.pop()
        parts.extend(_operands(node))
        name = getattr(node.op, "name", "") if isinstance(node, Call) else type(node).__name__
        if name in HEAVY:
            heavy.append(_extents(stage, walk(node, Var)))
        elif name in _ARITHMETIC or name in _LIGHT:
            light.append(_extents(stage, walk(node, Var)))
    return flops, plus(*light), plus(*heavy)


def _operands(node: Expr) -> list[Expr]:
    """What a value is computed from; indices of loads and conditions are no operands."""
    if isinstance(node, TensorLoad):
        return []
    if isinstance(node, Call):
        args = list(node.args)
        return args[1:] if getattr(node.op, "name", "") == "prim.if_then_else" else args
    names = ("a", "b") if hasattr(node, "a") else ("true_value", "false_value", "value", "body")
    return [getattr(node, name) for name in names if isinstance(getattr(node, name, None), Expr)]


def _factors(stage: Stage) -> list[Expr] | None:
    """The two factors of a reduction that sums products of loaded values, else None."""
    assert stage.combine is not None
    one = tirx.Var("a", "float32")
    if not isinstance(stage.combine(one, tirx.Var("b", "float32")), Add):
        return None
    value = _uncast(stage.value)
    if not isinstance(value, Mul) or not (loads(value.a) and loads(value.b)):
        return None
    return [value.a, value.b]


def _uncast(value: Expr) -> Expr:
    while type(value).__name__ == "Cast":
        value = value.value
    return value


def _dtype(program: Program) -> str | None:
    """What the multiply-adds multiply: ``int8`` and ``bfloat16`` where both sides are."""
    for stage in program.stages:
        factors = None if stage.combine is None else _factors(stage)
        if factors is None:
            continue
        kinds = {str(_uncast(factor).ty.dtype) for factor in factors}
        if kinds <= {"int8", "uint8"}:
            return "int8"
        return kinds.pop() if len(kinds) == 1 else str(stage.out.dtype)
    return None


def _causal(found: Amount, causal: int, buffers: list[Any]) -> Amount:
    """Rule 4: queries ``[B, M, H, D]``, keys ``[B, N, H, D]``; 1 aligns them top left."""
    m, n = amount(buffers[0].shape[1]), amount(buffers[1].shape[1])
    short = least(m, n)
    if isinstance(m, int) and isinstance(n, int) and isinstance(short, int):
        rest = (m - short) * n if causal == 1 else short * (n - short)
        return part(found, short * (short + 1) // 2 + rest, m * n)
    rest_text = f"({m} - {short}) * {n}" if causal == 1 else f"{short} * ({n} - {short})"
    return part(found, f"{short} * ({short} + 1) // 2 + {rest_text}", times(m, n))
