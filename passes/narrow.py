"""Store weights in two bytes an element; their numbers are in :mod:`burnish.passes.half`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.graph import bindings, op_name, references
from burnish.passes.half import DTYPES, narrowed
from burnish.passes.packed import MOST_MERGED, groups_a_block
from burnish.passes.params import get_params, weight_vars, with_params


@tvm.transform.module_pass(opt_level=0, name="NarrowWeights")
@dataclass(frozen=True)
class NarrowWeights:
    """Store float32 weights as ``dtype``, bfloat16 or float16, widened where they are read.

    1. Weights whose every reader is ``matmul`` (right side, two axes), ``conv1d``, ``conv2d`` or a
       look-up of rows by ``take``, directly or through ``permute_dims``: those that the lowering
       reads as stored. All others keep their type, and so do depthwise kernels, which are few
       numbers, each read often.
    2. ``w`` becomes ``astype(w, float32)`` at each reader, so that it can be lowered with it.

    ``lanes`` is the target's vector width in float32, which says what grouped convolutions can be
    packed. Raises ``ValueError`` for a weight with a number beyond the range of ``dtype``.
    """

    dtype: str
    lanes: int

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        chosen = narrowable(mod, self.lanes)
        if not chosen:
            return mod
        params: dict[str, tvm.runtime.Tensor | np.ndarray] = {
            name: narrowed(value.numpy(), self.dtype, name) if name in chosen else value
            for name, value in get_params(mod).items()
        }
        return with_params(_Rewriter(mod, chosen, self.dtype).module(), params)


def narrowable(mod: tvm.IRModule, lanes: int) -> set[str]:
    """Names of the weights of rule 1."""
    main, values = mod["main"], get_params(mod)
    counts = references(main)
    seen: dict[relax.Var, str] = {
        var: var.name
        for var in weight_vars(mod)
        if var.name in values and str(var.ty.dtype) == "float32" and var.ty.ndim >= 2
    }
    own = set(seen)
    read: Counter[str] = Counter({seen[var]: counts[var] for var in seen})
    fit: Counter[str] = Counter()
    for binding in bindings(main):
        call = binding.value
        if not op_name(call):
            continue
        for index, argument in enumerate(call.args):
            name = seen.get(argument) if isinstance(argument, relax.Var) else None
            if name is None:
                continue
            if op_name(call) == "relax.permute_dims":
                seen[binding.var] = name
                read[name] += counts[binding.var]
                fit[name] += 1
            elif _reads_as_stored(call, index, lanes, argument in own):
                fit[name] += 1
    return {name for name, count in fit.items() if count == read[name]}


def _reads_as_stored(call: relax.Call, index: int, lanes: int, direct: bool) -> bool:
    name = op_name(call)
    if name == "relax.take":
        axis = call.attrs.axis
        rows = axis is not None and int(axis) == 0 and call.args[0].ty.ndim == 2
        return index == 0 and rows and direct
    if index != 1 or str(call.args[0].ty.dtype) != "float32":
        return False
    shape = call.args[1].ty.shape
    if name == "relax.matmul":
        return len(shape) == 2
    if name not in ("relax.nn.conv1d", "relax.nn.conv2d"):
        return False
    layout, groups = str(call.attrs.kernel_layout), int(call.attrs.groups)
    channels, inside = int(shape[layout.index("O")]), int(shape[layout.index("I")])
    depthwise = groups > 1 and inside == 1
    return not depthwise and (groups == 1 or groups_a_block(channels, groups, lanes) <= MOST_MERGED)


@mutator
class _Rewriter(PyExprMutator):
    """Widens each reference to a chosen weight."""

    def __init__(self, mod: tvm.IRModule, chosen: set[str], dtype: str) -> None:
        super().__init__(
            tvm.IRModule(
                dict(mod.functions.items()),
                attrs=mod.attrs,
                global_infos=dict(mod.global_infos.items()),
            )
        )
        self.mod = mod
        self.narrow = {
            var: relax.Var(var.name, relax.TensorType(var.ty.shape, dtype))
            for var in weight_vars(mod)
            if var.name in chosen
        }

    def module(self) -> tvm.IRModule:
        main = self.mod["main"]
        params = [self.narrow.get(var, var) for var in main.params]
        # As in QuantizeWeights: visiting the whole function keeps its symbolic shapes in scope.
        draft = relax.Function(params, main.body, main.ret_ty, main.is_pure, main.attrs)
        self.builder_.update_func(self.mod.get_global_var("main"), self.visit_expr(draft))
        return self.builder_.get()

    def visit_var_(self, var: relax.Var) -> relax.Expr:
        if var not in self.narrow:
            return var
        wide = relax.op.astype(self.narrow[var], str(var.ty.dtype))
        return self.builder_.emit(wide, f"{var.name}.widened")
