"""Lower matmul, convolution and look-up on weights to kernels that read them packed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, te, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes import kernels, packed, winograd
from burnish.passes.consumers import bindings
from burnish.passes.half import pack_pairs
from burnish.passes.params import (
    NUM_INPUT,
    get_params,
    num_inputs,
    weight_vars,
    with_main,
    with_params,
)
from burnish.passes.transposed import Transposed, conv2d_transpose
from burnish.passes.weight_views import WeightView, weight_views
from burnish.targets.cpu.tiling import choose_width
from burnish.targets.cpu.winograd_plan import Layout
from burnish.targets.target import CpuTarget

_OUT_FUSABLE = 4
WHOLE = Fraction(1)


@tvm.transform.module_pass(opt_level=0, name="PackWeights")
@dataclass(frozen=True)
class PackWeights:
    """Store each weight as its kernel reads it, and make the kernels.

    1. ``matmul(x, w)`` with a two-dimensional weight: a packed GEMM over the last axis of ``x``.
    2. ``conv2d(x, w)`` in NHWC: a direct convolution, groups in blocks of output channels;
       groups narrower than a vector are joined to blocks, with zeros between them. One that
       :mod:`burnish.passes.winograd` says is faster in Winograd's form takes that, unless
       ``exact_conv``.
    3. ``conv2d`` with one input channel a group: a depthwise convolution, weights ``[H, W, C]``.
    4. ``take(w, i)`` on rows of a weight that rule 1 packs reads the packed form, so that a tied
       embedding is stored once.
    5. ``conv2d_transpose(x, w)`` in NHWC: one plain convolution for all phases, see
       :mod:`burnish.passes.transposed`.
    6. A weight stored in two bytes and widened to float32 where it is read is packed as stored
       and converted in registers. With ``dots``, rules 1 and 2 multiply by one stored in bfloat16
       in that type: activations are rounded to it too, sums are float32.
    7. ``take`` on such a weight, where rule 4 does not apply, looks up first and widens then.

    The columns of a block are chosen for the rows of the first kernel that reads the weight.

    A weight keeps its name; one that is also read plainly keeps both forms, the packed one as
    ``name~packed``.
    """

    target: CpuTarget
    exact_conv: bool = False
    dots: bool = False

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        rewriter = _Rewriter(mod, self.target, self.exact_conv, self.dots)
        main = rewriter.visit_expr(mod["main"])
        return rewriter.finish(main)


@mutator
class _Rewriter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, target: CpuTarget, exact_conv: bool, dots: bool) -> None:
        super().__init__(mod)
        self.mod = mod
        self.target = target
        self.exact_conv = exact_conv
        self.dots = dots
        self.rounded: dict[relax.Expr, relax.Var] = {}
        self.views = weight_views(mod)
        self.sources = {var.name: var for var in weight_vars(mod)}
        self.values = get_params(mod)
        self.packed: dict[tuple[str, str], tuple[packed.PackedWeight, list[relax.Var]]] = {}
        self.added: dict[str, tuple[relax.Var, np.ndarray]] = {}

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        name = call.op.name if isinstance(call.op, tvm.ir.Op) else ""
        lowered: relax.Expr | None = None
        if name == "relax.matmul":
            lowered = self._matmul(call)
        elif name == "relax.nn.conv2d":
            lowered = self._conv2d(call)
        elif name == "relax.nn.conv2d_transpose":
            lowered = self._conv2d_transpose(call)
        elif name == "relax.take":
            lowered = self._take(call)
        return super().visit_call_(call) if lowered is None else lowered

    def _view(self, expr: relax.Expr) -> WeightView | None:
        return self.views.get(expr) if isinstance(expr, relax.Var) else None

    def _pack(
        self, view: WeightView, form: str, make: Callable[[int], packed.PackedWeight], width: int
    ) -> tuple[packed.PackedWeight, list[relax.Var]]:
        key = (view.name, f"{form}:{view.axes}")
        if key not in self.packed:
            weight = make(width)
            taken = {name for (name, _form) in self.packed}
            base = view.name if view.name not in taken else f"{view.name}~{len(self.packed)}"
            variables = []
            for suffix, array in weight.arrays.items():
                variable = relax.Var(
                    base + suffix, relax.TensorType(list(array.shape), str(array.dtype))
                )
                self.added[base + suffix] = (variable, array)
                variables.append(variable)
            self.packed[key] = (weight, variables)
        return self.packed[key]

    def _make(self, view: WeightView) -> Callable[[int], packed.PackedWeight]:
        if view.codes is not None:
            return lambda width: packed.pack_quantized(view.quantized(), width)
        pack = pack_pairs if self._by_dots(view) else packed.pack_dense
        return lambda width: pack(view.array(), width)

    def _matmul(self, call: relax.Call) -> relax.Expr | None:
        view = self._view(call.args[1])
        x = call.args[0]
        if view is None or len(view.shape) != 2 or x.ty.ndim < 1 or str(x.ty.dtype) != "float32":
            return None
        if not _is_float32(view):
            return None
        by_channel = view.transposed((1, 0))
        width = choose_width(_count(list(x.ty.shape)[:-1]), by_channel.shape[0], self.target)
        weight, variables = self._pack(by_channel, "gemm", self._make(by_channel), width)

        return self._call(kernels.gemm(weight), self._activation(x, view), variables, "gemm")

    def _by_dots(self, view: WeightView) -> bool:
        return self.dots and view.stored == "bfloat16"

    def _activation(self, x: relax.Expr, view: WeightView) -> relax.Expr:
        """``x`` as a contraction with ``view`` reads it (rule 6), rounded once for all of them."""
        x = self.visit_expr(x)
        if not self._by_dots(view):
            return x
        if x not in self.rounded:
            self.rounded[x] = self.builder_.emit(relax.op.astype(x, "bfloat16"))
        return self.rounded[x]

    def visit_if_(self, op: relax.If) -> relax.Expr:
        outside = dict(self.rounded)
        try:
            return super().visit_if_(op)
        finally:
            self.rounded = outside

    def _call(
        self, make: Callable[..., te.Tensor], x: relax.Expr, weights: list[relax.Var], name: str
    ) -> relax.Expr:
        return self.builder_.call_te(
            make,
            x,
            *weights,
            primfunc_name_hint=name,
            primfunc_attrs={"op_pattern": _OUT_FUSABLE},
        )

    def _conv2d(self, call: relax.Call) -> relax.Expr | None:
        view, attrs = self._view(call.args[1]), call.attrs
        x = call.args[0]
        if view is None or not _is_float32(view) or str(x.ty.dtype) != "float32":
            return None
        if (str(attrs.data_layout), str(attrs.kernel_layout)) != ("NHWC", "OHWI"):
            return None
        channels, kh, kw, depth = view.shape
        groups = int(attrs.groups)
        window = kernels.Window.of(attrs, (kh, kw))
        if groups > 1 and depth == 1 and channels == groups:
            return self._depthwise(view, x, window)
        if not self.exact_conv and groups == 1 and view.stored == "float32":
            cut = winograd.chosen(x, view.shape, window, self.target)
            if cut is not None:
                return self._winograd(view, x, window, cut)
        _batch, height, across, _channels = call.ty.shape
        rows = _count([across] if any(window.padding) else [height, across])
        form = self._grouped(view, groups, rows, dots=self._by_dots(view))
        if form is None:
            return None
        weight, variables, groups = form
        make = kernels.conv2d(weight, window, groups)
        return self._call(make, self._activation(x, view), variables, "conv2d")

    def _winograd(
        self, view: WeightView, x: relax.Expr, window: kernels.Window, cut: Layout
    ) -> relax.Expr:
        algorithm = cut.algorithm

        def make(width: int) -> packed.PackedWeight:
            return winograd.transformed(view.array(), algorithm, width)

        weight, variables = self._pack(view, f"winograd {algorithm.m} {cut.nb}", make, cut.nb)
        kernel = winograd.conv2d(weight, algorithm, window.padding)
        return self._call(kernel, self.visit_expr(x), variables, "winograd")

    def _grouped(
        self,
        view: WeightView,
        groups: int,
        rows: int | None,
        form: str = "conv",
        arranged: Callable[[np.ndarray], np.ndarray] = lambda array: array,
        shares: Fraction = WHOLE,
        dots: bool = False,
    ) -> tuple[packed.PackedWeight, list[relax.Var], int] | None:
        """A weight that ``arranged`` makes [O, H, W, I / groups], packed, and its groups then.

        ``shares`` is what part of the arranged weight is the weight's own.
        """
        if groups == 1 and view.codes is not None:
            width = choose_width(rows, view.shape[0], self.target)
            return *self._pack(view, form, self._make(view), width), 1
        if view.codes is not None:
            exact = packed.exact_width(view.shape[0] // groups, self.target.lanes)
            if exact is None:
                return None
            return *self._pack(view, form, self._make(view), exact), groups
        array = arranged(view.array())
        merged = (
            packed.merged_groups(array, groups, self.target.lanes) if groups > 1 else (array, 1)
        )
        if merged is None:
            return None
        useful = Fraction(merged[1], groups) * shares
        array, groups = merged
        exact = (
            packed.exact_width(array.shape[0] // groups, self.target.lanes) if groups > 1 else None
        )
        width = exact or choose_width(rows, array.shape[0], self.target)
        pack = pack_pairs if dots else packed.pack_dense

        def make(width: int) -> packed.PackedWeight:
            return replace(pack(array, width), useful=useful)

        return *self._pack(view, form, make, width), groups

    def _conv2d_transpose(self, call: relax.Call) -> relax.Expr | None:
        """Rule 5; the layout says that :class:`PutChannelsLast` has seen it."""
        view, attrs = self._view(call.args[1]), call.attrs
        if view is None or str(attrs.data_layout) != "NHWC":
            return None
        shape = Transposed.of(attrs, (view.shape[2], view.shape[3]))
        form = shape and self._grouped(
            view,
            shape.groups,
            None,
            f"transposed {attrs.strides} {attrs.dilation}",
            shape.by_phase,
            shape.useful((view.shape[2], view.shape[3])),
        )
        if not shape or not form:
            return None
        weight, variables, groups = form
        make = conv2d_transpose(weight, shape, groups)
        return self._call(make, self.visit_expr(call.args[0]), variables, "conv2d_transpose")

    def _depthwise(self, view: WeightView, x: relax.Expr, window: kernels.Window) -> relax.Expr:
        def make(_width: int) -> packed.PackedWeight:
            return packed.pack_depthwise(view.array() if view.codes is None else view.quantized())

        weight, variables = self._pack(view, "depthwise", make, 1)
        return self._call(
            kernels.depthwise(weight, window), self.visit_expr(x), variables, "depthwise"
        )

    def _take(self, call: relax.Call) -> relax.Expr | None:
        """Rule 4."""
        view = self._view(call.args[0])
        axis = call.attrs.axis
        if view is None or axis is None or int(axis) != 0 or len(view.shape) != 2:
            return None
        if not _is_float32(view):
            return None
        if not self._feeds_matmul(view):
            return self._take_narrow(call, view)
        width = choose_width(None, view.shape[0], self.target)
        weight, variables = self._pack(view, "gemm", self._make(view), width)
        return self.builder_.call_te(
            kernels.take(weight),
            self.visit_expr(call.args[1]),
            *variables,
            primfunc_name_hint="take",
        )

    def _take_narrow(self, call: relax.Call, view: WeightView) -> relax.Expr | None:
        """Rule 7."""
        stored = self.sources.get(view.name)
        if view.widened_to is None or view.axes != (0, 1) or stored is None:
            return None
        ids = self.visit_expr(call.args[1])
        rows = self.builder_.emit(relax.op.take(stored, ids, 0, str(call.attrs.mode)))
        return relax.op.astype(rows, view.widened_to)

    def _feeds_matmul(self, view: WeightView) -> bool:
        """Whether the same weight is also the right side of a matmul, transposed."""
        for binding in bindings(self.mod["main"]):
            value = binding.value
            if (
                isinstance(value, relax.Call)
                and isinstance(value.op, tvm.ir.Op)
                and value.op.name == "relax.matmul"
            ):
                other = self._view(value.args[1])
                if other is not None and other.name == view.name and other.axes == (1, 0):
                    return True
        return False

    def finish(self, main: relax.Function) -> tvm.IRModule:
        """The module with packed weights in place of those nothing reads any more."""
        mod = self.builder_.get()
        main = relax.Function(
            [*main.params, *(var for var, _array in self.added.values())],
            main.body,
            main.ret_ty,
            main.is_pure,
            main.attrs,
        )
        functions = {gv: f for gv, f in mod.functions.items() if gv.name_hint != "main"}
        whole = tvm.IRModule(functions, attrs=self.mod.attrs, global_infos=self.mod.global_infos)
        whole["main"] = main
        whole = relax.transform.DeadCodeElimination(["main"])(whole)
        return _renamed(whole, num_inputs(self.mod), self.values, self.added)


def _renamed(
    mod: tvm.IRModule,
    inputs: int,
    values: dict[str, tvm.runtime.Tensor],
    added: dict[str, tuple[relax.Var, np.ndarray]],
) -> tvm.IRModule:
    """Drop weights nothing reads; a packed weight takes its plain form's place and name."""
    main = mod["main"]
    used = set(relax.analysis.free_vars(main.body))
    packed_vars = {var for var, _array in added.values()}
    params: dict[str, tvm.runtime.Tensor | np.ndarray] = {}
    kept = []
    plain = {v.name for v in list(main.params)[inputs:] if v in used and v not in packed_vars}
    mapping: dict[relax.Var, relax.Var] = {}
    for var in list(main.params)[inputs:]:
        if var not in used:
            continue
        if var in packed_vars:
            name = f"{var.name}~packed" if var.name in plain else var.name
            new = var if name == var.name else relax.Var(name, var.ty)
            if new is not var:
                mapping[var] = new
            params[name] = added[var.name][1]
            kept.append(new)
        else:
            params[var.name] = values[var.name]
            kept.append(var)
    body = (
        tvm_ffi.structural_map(main.body, [(relax.Var, lambda v: mapping.get(v, v))])
        if mapping
        else main.body
    )
    attrs = dict(main.attrs.items()) if main.attrs is not None else {}
    attrs[NUM_INPUT] = inputs
    main = relax.Function([*list(main.params)[:inputs], *kept], body, main.ret_ty, main.is_pure)
    for key, value in attrs.items():
        main = main.with_attr(key, value)
    return with_params(with_main(mod, main), params)


def _count(extents: Sequence[Any]) -> int | None:
    """The product of extents, or ``None`` where one is open."""
    sizes = [int(n.value) if isinstance(n, tirx.IntImm) else None for n in extents]
    return None if None in sizes else math.prod(size or 0 for size in sizes)


def _is_float32(view: WeightView) -> bool:
    return view.dtype == "float32"
