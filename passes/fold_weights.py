"""Operators on weights alone, computed at compile time."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.graph import bindings, constant_array, op_name, references, static_shape
from burnish.passes.half import HALVES
from burnish.passes.params import get_params, num_inputs, with_main, with_params

SMALL_BYTES = 4096

# Operator -> its NumPy form, of the call and the known values of its tensor arguments.
EVALUATE: dict[str, Callable[..., np.ndarray]] = {
    "relax.add": lambda _call, a, b: a + b,
    "relax.subtract": lambda _call, a, b: a - b,
    "relax.multiply": lambda _call, a, b: a * b,
    "relax.divide": lambda _call, a, b: a / b,
    "relax.negative": lambda _call, a: -a,
    "relax.sqrt": lambda _call, a: np.sqrt(a),
    "relax.rsqrt": lambda _call, a: (1 / np.sqrt(a)).astype(a.dtype),
    "relax.astype": lambda call, a: a.astype(str(call.attrs.dtype)),
    "relax.reshape": lambda call, a: a.reshape(_shape(call)),
    "relax.expand_dims": lambda call, a: a.reshape(_shape(call)),
    "relax.squeeze": lambda call, a: a.reshape(_shape(call)),
    "relax.broadcast_to": lambda call, a: np.broadcast_to(a, _shape(call)),
    "relax.permute_dims": lambda call, a: a.transpose(
        None if call.attrs.axes is None else [int(axis) for axis in call.attrs.axes]
    ),
    "relax.concat": lambda call, *arrays: np.concatenate(
        arrays, None if call.attrs.axis is None else int(call.attrs.axis)
    ),
}


@tvm.transform.module_pass(opt_level=0, name="FoldWeights")
@dataclass(frozen=True)
class FoldWeights:
    """Compute operators that read only weights and constants, where the result is no larger.

    1. The operators are those of ``EVALUATE``, in NumPy, in their own type.
    2. A result is stored if it is no larger than the weights that it alone reads, or than
       ``SMALL_BYTES``.
    3. It takes the name of the largest weight it comes from, if nothing else keeps that name;
       else ``~1`` (or the next number free) is added.
    4. Left alone: a transpose that a matmul reads (lowering packs the weight as its kernel
       reads it, and quantization scales its rows), the widening of a two-byte weight of two or
       more axes (lowering stores it as it is), and results that hold infinities or NaN that the
       operands did not.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        folded = _fold(mod)
        return _Rewriter(mod, folded).module() if folded else mod


@dataclass(frozen=True)
class _Known:
    """A value known now, and the weights it comes from; the first gives it its name."""

    array: np.ndarray
    weights: tuple[relax.Var, ...] = ()


def _fold(mod: tvm.IRModule) -> dict[relax.Var, _Known]:
    """Every binding that can be computed now, with its value."""
    main = mod["main"]
    values = get_params(mod)
    counts = references(main)
    known = {
        var: _Known(values[var.name].numpy(), (var,))
        for var in main.params[num_inputs(mod) :]
        if var.name in values
    }
    packed = {argument for call in _calls(main, "relax.matmul") for argument in call.args}
    folded: dict[relax.Var, _Known] = {}
    for binding in bindings(main):
        call = binding.value
        name = op_name(call)
        if name not in EVALUATE or (name == "relax.permute_dims" and binding.var in packed):
            continue
        if name == "relax.astype" and _widens(call):
            continue
        arguments = _tensors(call)
        operands = [_operand(argument, known) for argument in arguments]
        found = [operand for operand in operands if operand is not None]
        if len(found) != len(operands) or not _may_store(call, arguments, found, counts):
            continue
        array = _evaluate(call, found)
        if array is not None:
            # The largest operand first: the result takes its name.
            found.sort(key=lambda operand: -operand.array.nbytes)
            weights = tuple(var for operand in found for var in operand.weights)
            folded[binding.var] = known[binding.var] = _Known(array, weights)
    return folded


def _widens(call: relax.Call) -> bool:
    source = call.args[0].ty
    return source.ndim >= 2 and str(source.dtype) in HALVES and str(call.ty.dtype) == "float32"


def _may_store(
    call: relax.Call,
    arguments: list[relax.Expr],
    operands: list[_Known],
    counts: Counter[relax.Var],
) -> bool:
    """Rule 2, of the size that the result will have."""
    shape = static_shape(call)
    if shape is None:
        return False
    size = math.prod(shape) * tvm.DataType(str(call.ty.dtype)).itemsize
    freed = sum(
        operand.array.nbytes
        for argument, operand in zip(arguments, operands, strict=True)
        if operand.weights and counts[argument] == 1
    )
    return size <= max(freed, SMALL_BYTES)


def _evaluate(call: relax.Call, operands: list[_Known]) -> np.ndarray | None:
    """The value, or ``None`` where rule 4 declines or NumPy's result has another type."""
    with np.errstate(all="ignore"):
        array = EVALUATE[call.op.name](call, *[operand.array for operand in operands])
    if str(array.dtype) != str(call.ty.dtype) or array.shape != static_shape(call):
        return None
    if not np.isfinite(array).all() and all(np.isfinite(o.array).all() for o in operands):
        return None
    # ascontiguousarray makes a scalar one-dimensional.
    return np.ascontiguousarray(array).reshape(array.shape)


@mutator
class _Rewriter(PyExprMutator):
    """Leaves folded bindings out; what still reads one reads a weight or a constant."""

    def __init__(self, mod: tvm.IRModule, folded: dict[relax.Var, _Known]) -> None:
        super().__init__(mod)
        self.mod = mod
        self.folded = folded
        self.made: dict[relax.Var, relax.Var] = {}
        self.plain = _plainly_read(mod["main"], folded)
        self.names = {var.name for var in mod["main"].params}
        self.freed = {
            var.name for known in folded.values() for var in known.weights if var not in self.plain
        }

    def module(self) -> tvm.IRModule:
        main = self.mod["main"]
        body = self.visit_expr(main).body
        old = get_params(self.mod)
        read = references(main)
        params = list(main.params[: num_inputs(self.mod)])
        values: dict[str, tvm.runtime.Tensor | np.ndarray] = {}
        for var in main.params[num_inputs(self.mod) :]:
            # A weight that nothing ever read is not this pass's to drop.
            if var in self.plain or not read[var]:
                params.append(var)
                values.update({var.name: old[var.name]} if var.name in old else {})
            for source, fresh in self.made.items():
                if self.folded[source].weights[0].same_as(var):
                    params.append(fresh)
                    values[fresh.name] = self.folded[source].array
        draft = relax.Function(params, body, main.ret_ty, main.is_pure, main.attrs)
        return with_params(with_main(self.mod, draft), values)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        if binding.var not in self.folded:
            super().visit_var_binding_(binding)

    def visit_var_(self, var: relax.Var) -> relax.Expr:
        return self._read(var) if var in self.folded else super().visit_var_(var)

    def visit_dataflow_var_(self, var: relax.DataflowVar) -> relax.Expr:
        return self._read(var) if var in self.folded else super().visit_dataflow_var_(var)

    def _read(self, var: relax.Var) -> relax.Expr:
        known = self.folded[var]
        dtype = str(known.array.dtype)
        if not known.weights:
            return relax.const(known.array, dtype)
        if var not in self.made:
            name = self._name(known.weights[0].name)
            self.made[var] = relax.Var(name, relax.TensorType(known.array.shape, dtype))
        return self.made[var]

    def _name(self, source: str) -> str:
        if source in self.freed:
            self.freed.remove(source)
            return source
        number = next(n for n in itertools.count(1) if f"{source}~{n}" not in self.names)
        self.names.add(f"{source}~{number}")
        return f"{source}~{number}"


def _plainly_read(main: relax.Function, folded: dict[relax.Var, _Known]) -> set[relax.Var]:
    """Variables that something other than a folded binding reads."""
    counts = references(main)
    for binding in bindings(main):
        if binding.var in folded:
            for argument in _tensors(binding.value):
                if isinstance(argument, relax.Var):
                    counts[argument] -= 1
    return {var for var, count in counts.items() if count > 0}


def _calls(main: relax.Function, name: str) -> Iterator[relax.Call]:
    return (b.value for b in bindings(main) if op_name(b.value) == name)


def _tensors(call: relax.Call) -> list[relax.Expr]:
    """The arguments that are tensors, those of a tuple written out in the call too."""
    found: list[relax.Expr] = []
    for argument in call.args:
        if isinstance(argument, relax.Tuple):
            found += argument.fields
        elif not isinstance(argument, relax.ShapeExpr):
            found.append(argument)
    return found


def _operand(expr: relax.Expr, known: dict[relax.Var, _Known]) -> _Known | None:
    array = constant_array(expr)
    if array is not None:
        return _Known(array)
    return known.get(expr) if isinstance(expr, relax.Var) else None


def _shape(call: relax.Call) -> tuple[int, ...]:
    shape = static_shape(call)
    if shape is None:
        raise ValueError(f"the shape of {call} is not known")
    return shape
