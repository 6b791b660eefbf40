"""ExportedProgram -> Relax under the IR convention, on TVM's converters and ours.

TVM's translator is subclassed for what it does not do: weights and buffers keep their names,
tied weights are one parameter, symbolic sizes keep the user's names, arithmetic follows torch's
type promotion, and each operator's result is held to the dtype and shape that torch recorded.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import tvm
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, SymIntArgument, TensorArgument
from tvm import relax
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers import repeat
from burnish.compiler.importers.pytorch.converters import CONVERTERS, Converter
from burnish.compiler.importers.pytorch.converters.control import CONTROL
from burnish.compiler.importers.pytorch.custom import convert, registered
from burnish.compiler.importers.pytorch.derived import Derived
from burnish.compiler.importers.pytorch.numbers import is_known, number, remember
from burnish.compiler.importers.pytorch.places import unsupported
from burnish.compiler.importers.pytorch.recurrences import SEQUENCES
from burnish.compiler.importers.pytorch.symbols import SymbolTable
from burnish.compiler.importers.tensors import to_tvm, torch_dtype
from burnish.compiler.importers.unsupported import NO_CONVERTER, listed
from burnish.passes.params import with_main


class Translator(ExportedProgramImporter):
    """One translation of one program."""

    def __init__(self, program: ExportedProgram, symbols: SymbolTable) -> None:
        super().__init__()
        self.program = program
        self.symbols = symbols
        self.masks: dict[Any, tuple[relax.Expr, relax.Expr | None]] = {}
        self.lengths: list[tuple[Any, Any]] = []
        self.numbers: dict[str, relax.Expr] = {}
        self.weights: dict[str, torch.Tensor] = {}
        self.derived = Derived(self, SEQUENCES)
        self.refused: dict[tuple[str, str], list[fx.Node]] = {}
        self.first_error: Exception | None = None
        for name, converter in CONVERTERS.items():
            self.convert_map[name] = self._bound(converter)

    def _bound(self, converter: Converter) -> Callable[[fx.Node], relax.Expr]:
        return lambda node: converter(node, self)

    def emit(self, expr: relax.Expr) -> relax.Var:
        """Bind an expression."""
        return self.block_builder.emit(expr)

    @staticmethod
    def dtype_of(expr: relax.Expr) -> str:
        return str(expr.ty.dtype)

    @staticmethod
    def result_dtype(node: fx.Node) -> str:
        return torch_dtype(node.meta["val"].dtype)

    def result_shape(self, node: fx.Node) -> list[Any]:
        return [self.symbols.size(n) for n in node.meta["val"].shape]

    def translate(self) -> tuple[tvm.IRModule, dict[str, torch.Tensor]]:
        """The module (weights unbound) and the tensors of its weight parameters, by name.

        Raises one error with every call that has no converter, or none for its form.
        """
        self._note_unsupported()
        try:
            mod = self._module()
        except Exception:
            self._refuse()  # what stands in for refused calls may not go together
            raise
        self._refuse()
        return mod, self.weights

    def _module(self) -> tvm.IRModule:
        inputs, values = self._inputs(), self._weights()
        nodes = list(self.program.graph.nodes)
        pure = not self._has_assert_async(self.program.graph_module)
        flat = pure and not any(_branches(node) for node in nodes)
        self.block_builder = relax.BlockBuilder()
        tensors = [v for v in inputs.values() if isinstance(v, relax.Var)]
        shared = dict.fromkeys(v for v in values.values() if isinstance(v, relax.Var))
        attrs: dict[str, Any] = {"num_input": len(tensors), **self.symbols.bounds()}
        with self.block_builder.function(
            "main", params=[*tensors, *shared], attrs=attrs, pure=pure
        ):
            with self.block_builder.dataflow() if flat else contextlib.nullcontext():
                for node in nodes:
                    if node.op == "placeholder":
                        self.env[node] = {**inputs, **values}[node.name]
                result = relax.Tuple(self._user_outputs(self._run(self.program.graph_module)))
                if flat:
                    result = self.block_builder.emit_output(result)
            self.block_builder.emit_func_output(result)
        mod = self.block_builder.get()
        if not self.derived.made:
            return mod
        main = mod["main"]
        params = [*tensors, *self.derived.parameters(list(shared))]
        return with_main(
            mod, relax.Function(params, main.body, main.ret_ty, main.is_pure, main.attrs)
        )

    def _inputs(self) -> dict[str, Any]:
        """Placeholder -> variable, or the constant that the argument was exported with."""
        inputs: dict[str, Any] = {}
        placeholders = {node.name: node for node in self.program.graph.nodes}
        for spec in self.program.graph_signature.input_specs:
            if spec.kind is not InputKind.USER_INPUT:
                continue
            if isinstance(spec.arg, TensorArgument):
                value = placeholders[spec.arg.name].meta["val"]
                shape = [self.symbols.size(n) for n in value.shape]
                ty = relax.TensorType(shape, torch_dtype(value.dtype))
                inputs[spec.arg.name] = relax.Var(spec.arg.name, ty)
            else:
                inputs[spec.arg.name] = getattr(spec.arg, "value", None)
        return inputs

    def _weights(self) -> dict[str, relax.Expr]:
        """Placeholder -> weight variable; integer tables and scalars become constants.

        Tensors that share memory share the variable of the first of them.
        """
        values: dict[str, relax.Expr] = {}
        seen: dict[Any, relax.Expr] = {}
        for spec in self.program.graph_signature.input_specs:
            if spec.kind is InputKind.USER_INPUT:
                continue
            tensor = _tensor_of(self.program, spec)
            place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
            if tensor.numel() == 0 or place not in seen:
                seen[place] = self._weight(str(spec.target), tensor)
            values[spec.arg.name] = seen[place]
        return values

    def _weight(self, name: str, tensor: torch.Tensor) -> relax.Expr:
        table = tensor.dtype in (torch.int64, torch.int32, torch.int16, torch.bool)
        if table or tensor.ndim == 0:
            return relax.const(to_tvm(tensor))
        self.weights[name] = tensor
        return relax.Var(name, relax.TensorType(list(tensor.shape), torch_dtype(tensor.dtype)))

    def _user_outputs(self, outputs: Sequence[Any]) -> list[relax.Expr]:
        """Tensors, and numbers as scalars; what is constant is in the signature alone."""
        specs = self.program.graph_signature.output_specs
        return [
            self._result(value)
            for value, spec in zip(outputs, specs, strict=True)
            if isinstance(spec.arg, TensorArgument | SymIntArgument)
        ]

    def _note_unsupported(self) -> None:
        """Every call that has no converter, in the graph and those nested in it."""
        for module in self.program.graph_module.modules():
            for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
                if node.op == "call_function" and not self._is_supported(node):
                    self.refused.setdefault((str(node.target), NO_CONVERTER), []).append(node)

    def _stand_in(self, value: Any) -> Any:
        """Something of the recorded type for a call that was refused: the rest is tried too."""
        if isinstance(value, (tuple, list)):
            return [self._stand_in(item) for item in value]
        if not isinstance(value, torch.Tensor):
            return value
        shape = [self.symbols.size(n) for n in value.shape]
        return relax.Var("refused", relax.TensorType(shape, torch_dtype(value.dtype)))

    def _refuse(self) -> None:
        """Raise one error with all that was refused."""
        if self.refused:
            raise listed(
                "torch",
                [
                    unsupported(name, nodes, self.convert_map, reason)
                    for (name, reason), nodes in sorted(self.refused.items(), key=lambda i: i[0])
                ],
            ) from self.first_error

    def _is_supported(self, node: fx.Node) -> bool:
        if isinstance(node.meta.get("val"), (torch.SymInt, torch.SymBool, int)):
            return True
        if _only_asserted(node):
            return True
        if registered(node.target):
            return True
        return self._key(node.target) in self.convert_map

    @staticmethod
    def _key(target: Any) -> str:
        """By what a converter is known: the overload's name, a namespace of others before it."""
        space = getattr(target, "namespace", "aten")
        if space in ("aten", "higher_order", "torchvision"):
            return str(target.__name__)
        return str(target._schema.name)

    def _run(self, graph: fx.GraphModule) -> list[Any]:
        """Translate the calls of a graph whose placeholders are known; its outputs."""
        for node in graph.graph.nodes:
            if node.op == "get_attr":
                held = getattr(graph, str(node.target))
                held = relax.const(to_tvm(held)) if isinstance(held, torch.Tensor) else held
                self.env[node] = held
            elif node.op == "call_function":
                self.env[node] = self._call(node)
            elif node.op == "output":
                return _flat(self._retrieve_args(node.args[0]))
        raise ImportModelError("the exported graph has no output")

    def inner(self, graph: fx.GraphModule, given: Sequence[relax.Expr]) -> list[relax.Expr]:
        """The results of a graph inside this one, translated here on these operands.

        What is remembered of it (masks, named lengths, numbers) is forgotten at its end: another
        branch, or round, does not see its variables.
        """
        outer = self.masks, self.lengths, self.numbers
        self.masks, self.lengths, self.numbers = ({}, list(self.lengths), dict(self.numbers))
        holders = [node for node in graph.graph.nodes if node.op == "placeholder"]
        try:
            for node, value in zip(holders, given, strict=True):
                self.env[node] = value
                remember(node.meta.get("val"), value, self)
            return [self._result(value) for value in self._run(graph)]
        finally:
            self.masks, self.lengths, self.numbers = outer

    def _result(self, value: Any) -> relax.Expr:
        """A result of an inner graph as a tensor."""
        if isinstance(value, relax.Expr) and isinstance(value.ty, relax.TensorType):
            return value
        if isinstance(value, bool):
            return relax.const(value, "bool")
        if value is None or isinstance(value, float):
            raise ValueError(f"a graph inside gives {value!r}: let it give a tensor")
        return self._operand(value, "int64")

    def _call(self, node: fx.Node) -> Any:
        value = node.meta.get("val")
        if _only_asserted(node):
            return None  # held by the limits of the sizes
        if isinstance(value, torch.SymInt) and is_known(value, self):
            return number(value, self)
        if isinstance(value, torch.SymBool):
            return number(value, self)
        if isinstance(value, (torch.SymInt, int)) and not isinstance(value, bool):
            return self.symbols.size(value)
        if (str(node.target), NO_CONVERTER) in self.refused:
            return self._stand_in(value)
        try:
            own = registered(node.target)
            if own is not None:
                result = convert(node, self, own)
            else:
                result = self.convert_map[self._key(node.target)](node)
            if isinstance(value, (tuple, list)) and isinstance(result, (tuple, list)):
                return [self._held(v, r) for v, r in zip(value, result, strict=True)]
            return self._held(value, result)
        except ImportModelError:
            raise
        except Exception as error:  # noqa: BLE001  # all are raised as one at the end
            self.first_error = self.first_error or error
            reason = str(error).strip() or type(error).__name__
            found = self.refused.setdefault((str(node.target), reason), [])
            if node not in found:  # a body is translated for each of its rounds
                found.append(node)
            return self._stand_in(value)

    def _held(self, value: Any, result: Any) -> Any:
        """A result in the dtype and shape that torch recorded for it in ``value``."""
        if not isinstance(value, torch.Tensor) or not isinstance(result, relax.Expr):
            return result
        if not isinstance(result, (relax.Var, tvm.ir.GenericConst)):
            result = self.emit(result)
        if not isinstance(result.ty, relax.TensorType):
            return result
        want, got = torch_dtype(value.dtype), self.dtype_of(result)
        if want != got:
            if _family(want) != _family(got):
                raise ValueError(f"the converter gives {got} where torch gives {want}")
            result = self.emit(relax.op.astype(result, want))
        shape = [self.symbols.size(n) for n in value.shape]
        if self.symbols.same_shape(result, shape):
            return result
        if result.ty.shape is not None and self.symbols.contradicts(result, shape):
            raise ValueError(f"the converter gives shape {result.ty.shape}, torch gives {shape}")
        return self.block_builder.match_cast(result, relax.TensorType(shape, want))

    def of_type(self, expr: relax.Expr, ty: relax.TensorType) -> relax.Expr:
        """A value that torch knows to be of this type, where Relax sees another."""
        if repeat.same_type(expr.ty, ty):
            return expr
        if self.dtype_of(expr) != str(ty.dtype):
            raise ValueError(f"a value that it carries changes from {ty.dtype} to {expr.ty.dtype}")
        return self.block_builder.match_cast(expr, ty)

    def _binary_op(
        self, relax_op: Callable[..., relax.Expr], intrinsic_op: Callable[..., Any]
    ) -> Callable[[fx.Node], Any]:
        """Arithmetic and comparisons under torch's promotion rules, ``alpha`` included."""
        make = relax_op.func if isinstance(relax_op, functools.partial) else relax_op

        def convert(node: fx.Node) -> Any:
            left, right = self._retrieve_args(node.args[0]), self._retrieve_args(node.args[1])
            alpha = node.kwargs.get("alpha", 1)
            dtype = _operand_dtype(node)
            left, right = (self._operand(value, dtype) for value in (left, right))
            if make is not relax.op.matmul:
                self.symbols.refuse_unlike(left, right)
            if alpha != 1:
                right = self.emit(relax.op.multiply(right, relax.const(alpha, dtype)))
            made = self.emit(make(left, right))
            if made.ty.shape is None:
                raise ValueError(
                    f"it joins sizes {left.ty.shape} and {right.ty.shape}, which torch.export took "
                    "for the same and which nothing shows to be: keep one of them fixed"
                )
            return made

        return convert

    def _operand(self, value: Any, dtype: str) -> relax.Expr:
        if isinstance(value, (bool, int, float)):
            return relax.const(value, dtype)
        if not isinstance(getattr(value, "ty", None), relax.TensorType):
            sizes = self.emit(relax.op.shape_to_tensor(relax.ShapeExpr([value])))
            value = self.emit(relax.op.reshape(sizes, []))
        if self.dtype_of(value) != dtype:
            value = self.emit(relax.op.astype(value, dtype))
        return value


def _branches(node: fx.Node) -> bool:
    """Whether a call becomes an ``If``, or calls of functions, which no dataflow block may hold."""
    space = getattr(node.target, "namespace", "")
    return space == "higher_order" and str(getattr(node.target, "__name__", "")) in CONTROL


def _only_asserted(node: fx.Node) -> bool:
    """Whether a call gives a number or compares them, and only torch's assertions read it."""
    if str(node.target) in ("aten._assert_scalar.default", "aten.sym_constrain_range.default"):
        return True
    numeric = isinstance(node.meta.get("val"), torch.SymBool | torch.SymInt)
    return numeric and all(map(_only_asserted, node.users))


def _operand_dtype(node: fx.Node) -> str:
    """The dtype that torch computes in: the promoted one, or the result's where that is float."""
    first, second = (a.meta["val"] if isinstance(a, fx.Node) else a for a in node.args[:2])
    promoted = torch.result_type(_plain(first), _plain(second))
    result = node.meta["val"].dtype
    if result.is_floating_point and not promoted.is_floating_point:
        promoted = result
    return torch_dtype(promoted)


def _plain(value: Any) -> Any:
    return 1 if isinstance(value, torch.SymInt) else value


def _flat(values: Any) -> list[Any]:
    if isinstance(values, (tuple, list)):
        return [item for value in values for item in _flat(value)]
    return [values]


def _family(dtype: str) -> str:
    return "bool" if dtype == "bool" else "float" if "float" in dtype else "int"


def _tensor_of(program: ExportedProgram, spec: Any) -> torch.Tensor:
    if spec.kind is InputKind.PARAMETER or (
        spec.kind is InputKind.BUFFER and spec.target in program.state_dict
    ):
        return program.state_dict[spec.target]
    if spec.target in program.constants and isinstance(
        program.constants[spec.target], torch.Tensor
    ):
        return program.constants[spec.target]
    raise ImportModelError(f"the model holds {spec.target!r}, which is no tensor ({spec.kind})")
