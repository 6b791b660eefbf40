"""Batch normalization into the weights before it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.consumers import CONVOLUTIONS, weight_uses
from burnish.passes.graph import bindings, constant_array, op_name, references, static_shape
from burnish.passes.norms import affine_form, scale_channels
from burnish.passes.params import get_params, weight_vars, with_main, with_params


@tvm.transform.module_pass(opt_level=0, name="FoldBatchNorm")
@dataclass(frozen=True)
class FoldBatchNorm:
    """Fold inference batch norm into the convolution or matmul before it.

    1. ``batch_norm(conv(x, w) [+ bias])``: ``w`` takes the scale under its own name; the new
       bias keeps the name of the old, else of the norm's beta, else is a constant.
    2. Any other batch norm of known statistics becomes ``x * scale + shift``, under the names
       of gamma and beta where those are weights read only here, else as constants.
    3. Left alone: batch norm in training, or whose mean or variance is read or not known at
       compile time. Rule 2 holds in place of rule 1 where the convolution is read elsewhere,
       its weight is tied, or the channel axes differ.

    Computed in float64 and rounded once. Statistics left without a reader stay until
    :class:`~burnish.passes.clean.DropUnusedWeights`.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        mod = with_main(mod, relax.analysis.remove_all_unused(mod["main"]))
        plan = _Plan(mod)
        if not plan.norms:
            return mod
        main = _Rewriter(mod, plan).main()
        return with_params(with_main(mod, relax.analysis.remove_all_unused(main)), plan.values)


@dataclass(frozen=True)
class _Norm:
    """What a batch norm becomes: ``data [* scale] + shift``, the operands along ``axis``."""

    data: relax.Var
    scale: relax.Expr | None
    shift: relax.Expr
    axis: int


class _Plan:
    """Finds the norms to fold and their new weights: facts only, no rewriting."""

    def __init__(self, mod: tvm.IRModule) -> None:
        self.values = {name: value.numpy() for name, value in get_params(mod).items()}
        self.weights = {var: var.name for var in weight_vars(mod) if var.name in self.values}
        self.definitions = {b.var: b.value for b in bindings(mod["main"])}
        self.counts = references(mod["main"])
        self.uses = weight_uses(mod)
        self.norms: dict[relax.Var, _Norm] = {}
        self.replaced: dict[relax.Var, relax.Var] = {}
        first = Counter(
            value.tuple_value
            for value in self.definitions.values()
            if isinstance(value, relax.TupleGetItem) and int(value.index) == 0
        )
        for var, value in self.definitions.items():
            if op_name(value) == "relax.nn.batch_norm" and first[var] == self.counts[var]:
                self._plan(var, value)

    def _plan(self, var: relax.Var, call: relax.Call) -> None:
        attrs = call.attrs
        known = [self._known(argument) for argument in call.args[1:]]
        operands = [array for array in known if array is not None]
        if attrs.training or len(operands) != len(known):
            return
        gamma, beta, mean, variance = operands
        gamma = gamma if attrs.scale else np.ones_like(mean)
        beta = beta if attrs.center else np.zeros_like(mean)
        scale, shift = affine_form(gamma, beta, mean, variance, float(attrs.epsilon))
        axis = int(attrs.axis) % call.args[0].ty.ndim
        dtype = str(call.args[0].ty.dtype)
        made = self._fold(call, axis, scale, shift) or _Norm(
            call.args[0],
            self._operand(call.args[1], scale, dtype),
            self._operand(call.args[2], shift, dtype),
            axis,
        )
        self.norms[var] = made

    def _fold(
        self, call: relax.Call, axis: int, scale: np.ndarray, shift: np.ndarray
    ) -> _Norm | None:
        """Rule 1, or ``None`` where it does not fit."""
        data, bias = self._without_bias(call.args[0], axis, scale.size)
        producer = self.definitions.get(data)
        name = op_name(producer)
        if producer is None or name not in {*CONVOLUTIONS, "relax.matmul"}:
            return None
        weight = self._sole_weight(producer.args[1])
        if weight is None or self.counts[data] != 1 or _channel_axis(producer) != axis:
            return None
        old = self.values[weight]
        channel, groups = self.uses[weight][0].channel_axis, 1
        if name.endswith("_transpose") and int(producer.attrs.groups) > 1:
            layout, groups = str(producer.attrs.kernel_layout), int(producer.attrs.groups)
            channel = layout.index("O")
            if producer.args[1] not in self.weights or {layout[0], layout[1]} != {"O", "I"}:
                return None
        if old.shape[channel] * groups != scale.size:
            return None
        # Rounding to the weight's type may overflow; that is looked at below.
        with np.errstate(over="ignore"):
            folded = scale_channels(old, scale, channel, groups).astype(old.dtype)
        added = self._known(bias) if bias is not None else None
        # A bias of one element stands for every channel.
        moved = shift if added is None else shift + added.astype(np.float64).reshape(-1) * scale
        if not (np.isfinite(folded).all() and np.isfinite(moved).all()):
            return None
        self.values[weight] = folded
        owner = bias if bias is not None and self._is_sole(bias) else call.args[2]
        return _Norm(data, None, self._operand(owner, moved, str(data.ty.dtype)), axis)

    def _without_bias(
        self, var: relax.Var, axis: int, channels: int
    ) -> tuple[relax.Var, relax.Expr | None]:
        """``var``, or what a known per-channel bias is added to, and that bias unreshaped."""
        value = self.definitions.get(var)
        if value is None or op_name(value) != "relax.add" or self.counts[var] != 1:
            return var, None
        for data, bias in (value.args, reversed(value.args)):
            shape = static_shape(bias)
            if shape is None or not isinstance(data, relax.Var) or data not in self.definitions:
                continue
            lifted = (1,) * (var.ty.ndim - len(shape)) + shape
            along = [1] * var.ty.ndim
            along[axis] = channels
            if lifted not in (tuple(along), (1,) * var.ty.ndim):
                continue
            source = self.definitions.get(bias)
            if source is not None and op_name(source) == "relax.reshape":
                bias = source.args[0] if self.counts[bias] == 1 else bias
            if self._known(bias) is not None:
                return data, bias
        return var, None

    def _sole_weight(self, expr: relax.Expr) -> str | None:
        """Name of the weight that ``expr`` is, itself or transposed, if nothing else reads it."""
        if self.counts[expr] == 1 and op_name(self.definitions.get(expr)) == "relax.permute_dims":
            expr = self.definitions[expr].args[0]
        name = self.weights.get(expr) if self._is_sole(expr) else None
        return name if name is not None and len(self.uses[name]) == 1 else None

    def _is_sole(self, expr: relax.Expr) -> bool:
        return isinstance(expr, relax.Var) and expr in self.weights and self.counts[expr] == 1

    def _known(self, expr: relax.Expr) -> np.ndarray | None:
        name = self.weights.get(expr) if isinstance(expr, relax.Var) else None
        return constant_array(expr) if name is None else self.values[name]

    def _operand(self, owner: relax.Expr, value: np.ndarray, dtype: str) -> relax.Expr:
        """``value`` [C] as the weight ``owner`` if only this norm reads that, else a constant."""
        value = value.astype(dtype)
        if not self._is_sole(owner):
            return relax.const(value, dtype)
        self.values[self.weights[owner]] = value
        if (static_shape(owner), str(owner.ty.dtype)) != (value.shape, dtype):
            fresh = relax.Var(owner.name, relax.TensorType(value.shape, dtype))
            self.replaced[owner] = fresh
            return fresh
        return owner


@mutator
class _Rewriter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, plan: _Plan) -> None:
        super().__init__(mod)
        self.old = mod["main"]
        self.plan = plan

    def main(self) -> relax.Function:
        old = self.old
        params = [self.plan.replaced.get(var, var) for var in old.params]
        return self.visit_expr(relax.Function(params, old.body, old.ret_ty, old.is_pure, old.attrs))

    def visit_tuple_getitem_(self, item: relax.TupleGetItem) -> relax.Expr:
        norm = self.plan.norms.get(item.tuple_value)
        if norm is None:
            return super().visit_tuple_getitem_(item)
        data = self.visit_expr(norm.data)
        if norm.scale is not None:
            data = self.builder_.emit(relax.op.multiply(data, self._along(norm.scale, norm, data)))
        return self.builder_.normalize(relax.op.add(data, self._along(norm.shift, norm, data)))

    def _along(self, operand: relax.Expr, norm: _Norm, data: relax.Expr) -> relax.Expr:
        """[C] -> [C, 1, ...], so that it broadcasts along the norm's axis."""
        trailing = data.ty.ndim - 1 - norm.axis
        if trailing == 0:
            return operand
        shape = [1] * norm.axis + [int(operand.ty.shape[0])] + [1] * trailing
        array = constant_array(operand)
        if array is not None:
            return relax.const(array.reshape(shape), str(array.dtype))
        return self.builder_.emit(relax.op.reshape(operand, shape))


def _channel_axis(producer: relax.Call) -> int:
    """The axis of its result that a convolution's or matmul's output channels run along."""
    if op_name(producer) == "relax.matmul":
        return producer.ty.ndim - 1
    return str(producer.attrs.out_layout or producer.attrs.data_layout).index("C")
