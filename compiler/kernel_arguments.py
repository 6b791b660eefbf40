"""Which kernels get arguments that are known to fit when the model is compiled.

A kernel checks the shapes, dtypes and layout of what it is called with, each time. For what the
library itself allocates, and for weights, that is settled here, once, where all shapes are
constants. A kernel keeps its checks that has open sizes, that is called in any other way, or that
reads an input of the model: a program that calls the library may give it any tensor.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.s_tir import SBlockRealize
from tvm.tirx import IntImm

Form: TypeAlias = tuple[tuple[int, ...], str]
"""Shape and dtype."""

_CALL = tvm.ir.Op.get("relax.call_tir")


def settled_kernels(mod: tvm.IRModule) -> frozenset[str]:
    """Names of the kernels all of whose calls give the constant shapes and dtypes they take, in
    memory of the library or of a weight."""
    reader = _Reader(mod)
    for var, function in mod.functions.items():
        if isinstance(function, relax.Function):
            inputs = len(function.params)
            if var.name_hint == "main" and function.attrs and "num_input" in function.attrs:
                inputs = int(function.attrs["num_input"])
            reader.given.update(function.params[:inputs])
            reader.sequence(function.body)
    return frozenset(str(var.name_hint) for var in reader.taken)


class _Reader:
    """``taken`` maps kernels that may be settled to the forms they take; ``given`` are variables
    that may be memory from outside."""

    def __init__(self, mod: tvm.IRModule) -> None:
        self.mod = mod
        self.given: set[relax.Var] = set()
        self.taken: dict[tvm.ir.GlobalVar, list[Form | None]] = {}
        for var, func in mod.functions.items():
            if isinstance(func, tirx.PrimFunc):
                forms = [_form(param) for param in func.params]
                if None not in forms:
                    self.taken[var] = forms

    def sequence(self, body: relax.Expr) -> None:
        """Read the bindings of a function or a branch, in order."""
        if not isinstance(body, relax.SeqExpr):
            self._read(body)
            return
        for block in body.blocks:
            for binding in block.bindings:
                if self._read(binding.value):
                    self.given.add(binding.var)
        self._read(body.body)

    def _read(self, value: relax.Expr) -> bool:
        """Whether a value may be memory from outside; a kernel that it calls is looked at."""
        outside = any(var in self.given for var in relax.analysis.free_vars(value))
        if isinstance(value, relax.If):
            self.sequence(value.true_branch)
            self.sequence(value.false_branch)
        if not isinstance(value, relax.Call):
            return outside
        kernels = [e for e in (value.op, *value.args) if isinstance(e, tvm.ir.GlobalVar)]
        for kernel in kernels:
            if outside or self.taken.get(kernel) != _given(value):
                self.taken.pop(kernel, None)
        if not _is_plain(value) or not kernels:
            return outside
        # A reshape becomes a view of what it is given. TVM looks for one in blocks alone.
        func = self.mod[kernels[0]]
        in_blocks = isinstance(func, tirx.PrimFunc) and isinstance(func.body, SBlockRealize)
        return outside and in_blocks and relax.analysis.has_reshape_pattern(func)


def _is_plain(call: relax.Call) -> bool:
    return isinstance(call.op, tvm.ir.Op) and call.op.same_as(_CALL) and len(call.args) == 2


def _given(call: relax.Call) -> list[Form | None]:
    """Forms of the arguments and results of a plain call of a kernel; empty for any other call."""
    if not _is_plain(call):
        return []
    kinds = [*_tensors(call.args[1].ty), *(t for kind in call.ty_args for t in _tensors(kind))]
    return [_form(kind) for kind in kinds]


def _tensors(kind: Any) -> list[Any]:
    return list(kind.fields) if isinstance(kind, tvm.ir.TupleType) else [kind]


def _form(value: Any) -> Form | None:
    """The form of a tensor's type or of a buffer, where all of it is constant and compact."""
    shape = getattr(value, "shape", None)
    if not isinstance(shape, relax.ShapeExpr | tvm_ffi.Array):
        return None
    if bool(getattr(value, "strides", False)):
        return None
    if not all(isinstance(size, IntImm) for size in shape):
        return None
    return tuple(int(size) for size in shape), str(value.dtype)


__all__ = ["settled_kernels"]
