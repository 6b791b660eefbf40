"""What each operator of a graph costs, from its operations and bytes and the machine's rates.

1. An operator is legalized alone, and its loops are counted
   (:mod:`burnish.compiler.profile.counts`). Equal operators are counted once.
2. An elementwise operator whose first operand nothing else reads is fused into what made it: it
   costs its operations, and the bytes of its other operands.
3. Seconds are the larger of the operations' and the bytes' at the machine's peak rates; products
   reach ``REACHED`` of theirs.
4. At another batch, operations and bytes scale but the weights' bytes.

Nothing is timed here, and never the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax, tirx

from burnish.compiler.bench.peaks import Peaks
from burnish.compiler.profile.counts import count
from burnish.passes.cut_stages import binding_names
from burnish.passes.graph import op_name, references
from burnish.passes.params import weight_vars

REACHED = 0.75
"""Of the peak rate, what products reach."""
SCALAR = 1 / 8
"""Of the peak rate, what other arithmetic reaches; a transcendental is ``HEAVY`` operations."""
HEAVY = 10
FUSED_PATTERN = 2
"""TVM's pattern of operators: elementwise, broadcast and injective ones are at most this."""
KERNEL_S = 1.5e-6
"""Starting a kernel."""


@dataclass(frozen=True)
class Cost:
    """One binding: ``flops`` of multiply-adds as two, ``other`` operations, bytes moved."""

    name: str
    operator: str
    flops: float
    other: float
    moved: float
    weights: Mapping[str, int]
    fused: bool

    def seconds(self, peaks: Peaks, scale: float = 1.0) -> float:
        """At ``scale`` times the rows."""
        rate = peaks.fp32 * 1e9
        work = scale * (self.flops / (REACHED * rate) + self.other / (SCALAR * rate))
        moved = (scale * self.moved + sum(self.weights.values())) / (peaks.read * 1e9)
        return max(work, moved) + (0.0 if self.fused else KERNEL_S)


def operator_costs(mod: tvm.IRModule) -> tuple[Cost, ...]:
    """The cost of each binding that :func:`~burnish.passes.cut_stages.binding_names` names.

    Bindings that compute nothing at run time (a tuple's field, a shape, what weights alone
    decide) cost nothing. Open sizes count as one.
    """
    main = mod["main"]
    names = binding_names(mod)
    weights = {var: var.name for var in weight_vars(mod)}
    readers = references(main)
    fixed: set[Any] = set(weights)
    found: list[Cost] = []
    known: dict[str, _Counted] = {}
    source: dict[Any, Any] = {}
    everything = [binding for block in main.body.blocks for binding in block.bindings]
    for name, binding in zip(names, everything, strict=False):
        value = binding.value
        read = relax.analysis.free_vars(value)
        if all(v in fixed for v in read) and isinstance(binding.var.ty, relax.TensorType):
            fixed.add(binding.var)
            source[binding.var] = {n for v in read for n in source.get(v, {weights.get(v)})}
        if binding.var in fixed or not isinstance(value, relax.Call):
            found.append(Cost(name, op_name(value), 0, 0, 0, {}, True))
            continue
        counted = known.setdefault(_key(value), None) or _count(value)  # type: ignore[arg-type]
        known[_key(value)] = counted
        first = next((a for a in value.args if isinstance(a, relax.Var)), None)
        fused = (
            counted.pattern <= FUSED_PATTERN
            and first is not None
            and first not in fixed
            and readers[first] == 1
        )
        inputs = [a for a in value.args if isinstance(a, relax.Var) and a not in fixed]
        moved = sum(_bytes(a.ty) for a in (inputs[1:] if fused else inputs))
        if not fused:
            moved += _bytes(binding.var.ty)
        own = {
            str(n): _bytes(a.ty)
            for a in value.args
            if isinstance(a, relax.Var) and a in fixed
            for n in source.get(a, {weights.get(a)})
        }
        if op_name(value) == "relax.take":  # of a table, the rows looked up
            own = {n: min(size, _bytes(binding.var.ty)) for n, size in own.items()}
        found.append(Cost(name, op_name(value), counted.flops, counted.other, moved, own, fused))
    return tuple(found)


@dataclass(frozen=True)
class _Counted:
    flops: float
    other: float
    pattern: int


def _key(call: relax.Call) -> str:
    types = ", ".join(str(a.ty) if hasattr(a, "ty") else str(a) for a in call.args)
    return f"{call.op} {call.attrs} {types} {call.ty_args if hasattr(call, 'ty_args') else ''}"


def _count(call: relax.Call) -> _Counted:
    """The kernels of one operator; where they cannot be made or read, its bytes speak alone."""
    variables = [a for a in call.args if isinstance(a, relax.Var)]
    params = list(dict.fromkeys(variables))
    builder = relax.BlockBuilder()
    try:
        with builder.function("main", params):
            with builder.dataflow():
                out = builder.emit_output(call)
            builder.emit_func_output(out)
        mod = relax.transform.DecomposeOpsForInference()(builder.get())
        mod = relax.transform.LegalizeOps()(mod)
        mod = relax.transform.AnnotateTIROpPattern()(mod)
    except Exception:  # noqa: BLE001 - TVM raises many kinds; an estimate must not fail a model
        return _Counted(0.0, 0.0, FUSED_PATTERN + 1)
    flops = other = 0.0
    patterns = []
    for func in mod.functions.values():
        if not isinstance(func, tirx.PrimFunc):
            continue
        counts = count(func)
        flops += _number(counts.flops)
        other += _number(counts.elementwise) + HEAVY * _number(counts.transcendental)
        patterns.append(int(func.attrs["op_pattern"]) if "op_pattern" in func.attrs else 8)
    return _Counted(flops, other, max(patterns, default=FUSED_PATTERN + 1))


def _number(amount: Any) -> float:
    return float(amount) if isinstance(amount, int) else 0.0


def _bytes(ty: Any) -> int:
    if isinstance(ty, relax.TupleType):
        return sum(_bytes(field) for field in ty.fields)
    if not isinstance(ty, relax.TensorType) or ty.shape is None:
        return 0
    sizes = [int(n) if isinstance(n, tirx.IntImm) else 1 for n in ty.shape]
    return math.prod(sizes) * int(tvm.DataType(str(ty.dtype)).itemsize)


__all__ = ["Cost", "operator_costs"]
