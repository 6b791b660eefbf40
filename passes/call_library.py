"""Hand operations to a library's function instead of a kernel, the ones that are chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.graph import bindings, op_name, references, static_shape, without_turn
from burnish.passes.rewrite import rewritten
from burnish.targets.cuda.blas import Product
from burnish.targets.cuda.called import Operation
from burnish.targets.cuda.dnn import Convolution

_ACTIVATIONS = {"relax.nn.relu": "relu", "relax.nn.gelu_tanh": "gelu_tanh"}


@tvm.transform.module_pass(opt_level=0, name="CallLibrary")
@dataclass(frozen=True)
class CallLibrary:
    """Let a library's function compute each operation of static shape that ``chosen`` says yes to.

    1. ``matmul`` of two floats of one type; a transpose of the last two axes is read through.
    2. ``conv2d`` of two floats of one type, channels last, padded alike at both ends.
    3. A bias along the columns or channels, then relu or gelu (tanh form), go into the same call
       where nothing else reads the value between; each longer chain is an operation of its own to
       ``chosen``.
    """

    chosen: Callable[[Operation], bool]

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        new = rewritten(mod, lambda mod: _Rewriter(mod, self.chosen))
        return relax.transform.DeadCodeElimination()(new)


@dataclass(frozen=True)
class _Chain:
    """An operation and what follows it, with the operands in the graph as it was."""

    operation: Operation
    operands: tuple[relax.Expr, ...]


@mutator
class _Rewriter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, chosen: Callable[[Operation], bool]) -> None:
        super().__init__(mod)
        self._chosen = chosen
        self._reads: Counter[relax.Var] = Counter()
        self._made: dict[relax.Var, relax.Expr] = {}
        for func in mod.functions.values():
            if isinstance(func, relax.Function):
                self._reads.update(references(func))
                self._made.update((b.var, b.value) for b in bindings(func))

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        chain = self._chain(call)
        if chain is None or chain.operation.why_not() or not self._chosen(chain.operation):
            return super().visit_call_(call)
        operands = [self.visit_expr(operand) for operand in chain.operands]
        numbers = [relax.prim_value(number) for number in chain.operation.numbers]
        arguments = relax.Tuple([*operands, *numbers])
        return relax.call_dps_packed(chain.operation.symbol, arguments, call.ty)

    def _chain(self, expr: relax.Expr | None) -> _Chain | None:
        if expr is None:
            return None
        name = op_name(expr)
        if name == "relax.matmul":
            return self._matmul(expr)
        if name == "relax.nn.conv2d":
            return _conv2d(expr)
        if name in _ACTIVATIONS:
            before = self._before(expr.args[0])
            if before is None or before.operation.activation:
                return None
            return replace(
                before, operation=replace(before.operation, activation=_ACTIVATIONS[name])
            )
        if name == "relax.add":
            return self._biased(*expr.args) or self._biased(*reversed(expr.args))
        return None

    def _before(self, operand: relax.Expr) -> _Chain | None:
        """The chain that ``operand`` ends, where nothing else reads it."""
        if not isinstance(operand, relax.Var) or self._reads[operand] != 1:
            return None
        return self._chain(self._made.get(operand))

    def _biased(self, value: relax.Expr, bias: relax.Expr) -> _Chain | None:
        before = self._before(value)
        if before is None or before.operation.bias or before.operation.activation:
            return None
        operation = before.operation
        if isinstance(operation, Convolution):
            fits = static_shape(bias) in ((1, 1, 1, operation.w[0]), (operation.w[0],))
        else:
            fits = static_shape(bias) == (operation.n,)
        if not fits or bias.ty.dtype != value.ty.dtype:
            return None
        return _Chain(replace(operation, bias=True), (*before.operands, bias))

    def _matmul(self, call: relax.Call) -> _Chain | None:
        dtypes = {str(expr.ty.dtype) for expr in (*call.args, call)}
        (a, a_turned), (b, b_turned) = (without_turn(arg, self._made.get) for arg in call.args)
        a_shape, b_shape = static_shape(a), static_shape(b)
        if len(dtypes) != 1 or not a_shape or not b_shape or min(len(a_shape), len(b_shape)) < 2:
            return None
        m, k = a_shape[-2:][::-1] if a_turned else a_shape[-2:]
        n = b_shape[-2] if b_turned else b_shape[-1]
        product = Product(dtypes.pop(), m, n, k, a_shape[:-2], b_shape[:-2], a_turned, b_turned)
        return _Chain(product, (a, b))


def _conv2d(call: relax.Call) -> _Chain | None:
    attrs = call.attrs
    layouts = [str(attrs.data_layout), str(attrs.kernel_layout), str(attrs.out_layout)]
    x, w = map(static_shape, call.args)
    dtypes = {str(expr.ty.dtype) for expr in (*call.args, call)}
    top, left, bottom, right = map(int, attrs.padding)
    if layouts != ["NHWC", "OHWI", "NHWC"] or len(dtypes) != 1 or not x or not w:
        return None
    if (top, left) != (bottom, right):
        return None
    strides, dilations = tuple(map(int, attrs.strides)), tuple(map(int, attrs.dilation))
    made = Convolution(dtypes.pop(), x, w, (top, left), strides, dilations, int(attrs.groups))
    return _Chain(made, tuple(call.args))
