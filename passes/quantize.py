"""Weight quantization as an IR pass; its numbers are in :mod:`burnish.passes.qparams`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes import qparams
from burnish.passes.configs import QuantizeConfig
from burnish.passes.consumers import WeightUse, weight_uses
from burnish.passes.dequantize import CodeLayout, dequantize_func, layout_of
from burnish.passes.graph import bindings, op_name
from burnish.passes.params import get_params, weight_vars, with_params
from burnish.passes.patterns import select_eligible
from burnish.passes.prune import is_floating

LISTED = 8


@tvm.transform.module_pass(opt_level=0, name="QuantizeWeights")
@dataclass(frozen=True)
class QuantizeWeights:
    """Store weights as packed integers, dequantized where they are read.

    1. A wildcard chooses floating weights of two or more axes that matmul (also through
       ``permute_dims``), a convolution or ``take`` reads, and whose codes and scales are
       smaller than the weight.
    2. Axes come from the first matmul or convolution that reads the weight, else from
       ``take``; a table shared by embedding and head has one scale a row either way.
    3. ``w`` becomes the codes; ``w.scale`` and, where asymmetric, ``w.zero_point`` follow it
       (layout: :mod:`burnish.passes.dequantize`). Each reader gets its own dequantization, so
       that it can be fused into it: run common-subexpression elimination before, not after.

    Raises ``ValueError`` for a group size that does not divide (up to ``LISTED`` such weights), a
    pattern that matches nothing, a weight with infinities or NaN, and a weight named in full
    that rule 1 leaves out.
    """

    config: QuantizeConfig

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        layouts = self.layouts(mod)
        params: dict[str, tvm.runtime.Tensor | np.ndarray] = {}
        for name, tensor in get_params(mod).items():
            if name in layouts:
                params.update(_stored(name, tensor.numpy(), layouts[name], params))
            elif name in params:
                raise ValueError(f"weight {name!r} exists: a quantized weight needs that name")
            else:
                params[name] = tensor
        return with_params(_Rewriter(mod, layouts).module(), params)

    def layouts(self, mod: tvm.IRModule) -> dict[str, CodeLayout]:
        """Name -> storage of every weight that the pass would quantize in ``mod``."""
        params = get_params(mod)
        uses = weight_uses(mod)
        fit = [name for name in params if _obstacle(params[name], uses[name], self.config) is None]
        names = select_eligible(
            list(params), fit, self.config.include, self.config.exclude, verb="quantize"
        )
        for name in names:
            reason = _obstacle(params[name], uses[name], self.config)
            if reason is not None:
                raise ValueError(
                    f"weight {name!r} {list(params[name].shape)} cannot be quantized: {reason}"
                )
        problems = []
        layouts = {}
        for name in names:
            try:
                layouts[name] = _layout(params[name], _main_use(uses[name]), self.config)
            except ValueError as error:
                problems.append(f"weight {name!r}: {error}")
        if problems:
            more = [f"and {len(problems) - LISTED} more weights"] if problems[LISTED:] else []
            raise ValueError(
                "; ".join([*problems[:LISTED], *more])
                + "; exclude these weights or change the group"
            )
        return layouts


def find_quantized(mod: tvm.IRModule) -> dict[str, relax.Call]:
    """Name -> the first call in ``main`` that dequantizes it."""
    found: dict[str, relax.Call] = {}
    for binding in bindings(mod["main"]):
        if quantized_layout(mod, binding.value) is not None:
            found.setdefault(binding.value.args[1].fields[0].name, binding.value)
    return found


def quantized_layout(mod: tvm.IRModule, call: relax.Expr) -> CodeLayout | None:
    """The layout of the weight that a call dequantizes, or ``None`` for any other expression."""
    if op_name(call) != "relax.call_tir":
        return None
    return layout_of(mod[call.args[0]])


def read_quantized(mod: tvm.IRModule, call: relax.Call) -> qparams.QuantizedWeight:
    """The weight that a dequantizing call reads, its codes unpacked to the weight's shape.

    Raises ``ValueError`` for any other call.
    """
    layout = quantized_layout(mod, call)
    if layout is None:
        raise ValueError(f"not a call that dequantizes a weight: {call}")
    values = get_params(mod)
    name, *rest = [field.name for field in call.args[1].fields]
    codes = values[name].numpy()
    if layout.bits != 8:
        rows = qparams.unpack_bits(codes, layout.bits, layout.columns)
        codes = qparams.from_rows(rows, layout.shape, layout.reduction_axes)
    scale = values[rest[0]].numpy()
    if layout.symmetric:
        zero = np.full(scale.shape, qparams.symmetric_zero_point(layout.bits), np.uint8)
    else:
        zero = values[rest[1]].numpy()
    return qparams.QuantizedWeight(
        codes, scale, zero, layout.bits, layout.symmetric, layout.dtype, name
    )


def dequantized_weights(mod: tvm.IRModule) -> dict[str, np.ndarray]:
    """The reference: name -> float64 value of every quantized weight."""
    return {n: read_quantized(mod, call).dequantize() for n, call in find_quantized(mod).items()}


def _obstacle(
    tensor: tvm.runtime.Tensor, uses: list[WeightUse], config: QuantizeConfig
) -> str | None:
    """Why a weight is not quantized by a wildcard; ``None`` if it is."""
    if not is_floating(tensor):
        return f"its type {tensor.dtype} is not floating"
    if len(tensor.shape) < 2:
        return "it has fewer than two axes"
    if not uses:
        return "no matmul, convolution or take reads it"
    if 0 in tensor.shape:
        return "it is empty"
    try:
        layout = _layout(tensor, _main_use(uses), config)
    except ValueError:
        return None  # reported with all others of its kind
    before = tensor.numpy().nbytes
    after = _stored_bytes(layout)
    if after >= before:
        return f"its codes and scales would take {after} bytes and it takes {before}"
    return None


def _main_use(uses: list[WeightUse]) -> WeightUse:
    return next((use for use in uses if use.op != "take"), uses[0])


def _layout(tensor: tvm.runtime.Tensor, use: WeightUse, config: QuantizeConfig) -> CodeLayout:
    shape = tuple(int(n) for n in tensor.shape)
    scales = qparams.scale_shape(
        shape, use.reduction_axes, config.granularity, use.group_axis, config.group_size
    )
    return CodeLayout(
        shape=shape,
        dtype=str(tensor.dtype),
        bits=config.bits,
        symmetric=config.symmetric,
        granularity=config.granularity,
        group_size=config.group_size or 0,
        group_axis=use.group_axis,
        channel_axis=use.channel_axis,
        reduction_axes=use.reduction_axes,
        scale_shape=scales,
        scale_dtype="float64" if str(tensor.dtype) == "float64" else "float32",
    )


def _stored_bytes(layout: CodeLayout) -> int:
    codes = int(np.prod(layout.code_shape)) * np.dtype(layout.code_dtype).itemsize
    each = np.dtype(layout.scale_dtype).itemsize + (0 if layout.symmetric else 1)
    return codes + int(np.prod(layout.scale_shape)) * each


def _stored(
    name: str, weight: np.ndarray, layout: CodeLayout, taken: object
) -> dict[str, np.ndarray]:
    """The parameters that take the place of one weight."""
    quantized = qparams.quantize(
        weight, layout.bits, symmetric=layout.symmetric, scales=layout.scale_shape, name=name
    )
    codes = quantized.codes
    if layout.bits != 8:
        codes = qparams.pack_bits(qparams.to_rows(codes, layout.reduction_axes), layout.bits)
    stored = {name: codes, f"{name}.scale": quantized.scale}
    if not layout.symmetric:
        stored[f"{name}.zero_point"] = quantized.zero_point
    return stored


@mutator
class _Rewriter(PyExprMutator):
    """Puts a dequantizing call in the place of each reference to a quantized weight."""

    def __init__(self, mod: tvm.IRModule, layouts: dict[str, CodeLayout]) -> None:
        super().__init__(
            tvm.IRModule(
                dict(mod.functions.items()),
                attrs=mod.attrs,
                global_infos=dict(mod.global_infos.items()),
            )
        )
        self.mod = mod
        self.layouts = layouts
        self.stored = {
            var: _stored_vars(var.name, layouts[var.name])
            for var in weight_vars(mod)
            if var.name in layouts
        }
        self.kernels: dict[CodeLayout, tvm.ir.GlobalVar] = {}

    def module(self) -> tvm.IRModule:
        main = self.mod["main"]
        params = [new for var in main.params for new in self.stored.get(var, [var])]
        # The old body under the new parameters: visiting it as one function keeps its
        # symbolic shapes in scope, and visit_var_ replaces what the parameters no longer bind.
        draft = relax.Function(params, main.body, main.ret_ty, main.is_pure, main.attrs)
        self.builder_.update_func(self.mod.get_global_var("main"), self.visit_expr(draft))
        return self.builder_.get()

    def visit_var_(self, var: relax.Var) -> relax.Expr:
        if var not in self.stored:
            return var
        layout = self.layouts[var.name]
        if layout not in self.kernels:
            name = f"dequantize{layout.bits}_" + "x".join(map(str, layout.shape))
            self.kernels[layout] = self.builder_.add_func(dequantize_func(layout), name)
        out = relax.TensorType(layout.shape, layout.dtype)
        call = relax.call_tir(self.kernels[layout], relax.Tuple(self.stored[var]), out)
        return self.builder_.emit(call, f"{var.name}.dequantized")


def _stored_vars(name: str, layout: CodeLayout) -> list[relax.Var]:
    scale = relax.TensorType(layout.scale_shape, layout.scale_dtype)
    made = [
        relax.Var(name, relax.TensorType(layout.code_shape, layout.code_dtype)),
        relax.Var(f"{name}.scale", scale),
    ]
    if not layout.symmetric:
        zero = relax.TensorType(layout.scale_shape, "uint8")
        made.append(relax.Var(f"{name}.zero_point", zero))
    return made
