"""ExportedProgram -> Relax under the IR convention, on TVM's converters and ours.

TVM's translator is subclassed for what it does not do: weights and buffers keep their names,
tied weights are one parameter, symbolic sizes keep the user's names, arithmetic follows torch's
type promotion, and each operator's result is held to the dtype and shape that torch recorded.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import tvm
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, TensorArgument
from tvm import relax
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.pytorch.converters import CONVERTERS, Converter
from burnish.compiler.importers.pytorch.custom import convert, registered
from burnish.compiler.importers.pytorch.derived import Derived
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
        flat = pure and not self._has_cond_op(nodes)
        self.block_builder = relax.BlockBuilder()
        tensors = [v for v in inputs.values() if isinstance(v, relax.Var)]
        shared = dict.fromkeys(v for v in values.values() if isinstance(v, relax.Var))
        attrs: dict[str, Any] = {"num_input": len(tensors), **self.symbols.bounds()}
        with self.block_builder.function(
            "main", params=[*tensors, *shared], attrs=attrs, pure=pure
        ):
            with self.block_builder.dataflow() if flat else contextlib.nullcontext():
                outputs = self._translate_fx_graph(
                    self.program.graph_module, nodes, {**inputs, **values}
                )
                result = relax.Tuple(self._user_outputs(outputs))
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

    def _user_outputs(self, outputs: Sequence[relax.Expr]) -> list[relax.Expr]:
        specs = self.program.graph_signature.output_specs
        return [
            value
            for value, spec in zip(outputs, specs, strict=True)
            if isinstance(spec.arg, TensorArgument)
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
        if isinstance(node.meta.get("val"), (torch.SymInt, int)) or _only_asserted(node):
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

    def _translate_fx_graph(
        self,
        graph_module: fx.GraphModule,
        nodes: Sequence[fx.Node],
        inputs_vars: Mapping[str, Any],
        custom_ops: set[str] | None = None,
    ) -> tuple[relax.Expr, ...]:
        for node in nodes:
            if node.op == "placeholder":
                if node.name in inputs_vars:
                    self.env[node] = inputs_vars[node.name]
            elif node.op == "get_attr":
                self.env[node] = getattr(graph_module, str(node.target))
            elif node.op == "call_function":
                self.env[node] = self._call(node)
            elif node.op == "output":
                values = self._retrieve_args(node.args[0])
                return tuple(v for v in _flat(values) if isinstance(v, relax.Expr) or v is None)
        raise ImportModelError("the exported graph has no output")

    def _call(self, node: fx.Node) -> Any:
        value = node.meta.get("val")
        if isinstance(value, (torch.SymInt, int)) and not isinstance(value, bool):
            return self.symbols.size(value)
        if _only_asserted(node):
            return None  # held by the limits of the sizes
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
            self.refused.setdefault((str(node.target), reason), []).append(node)
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
            if alpha != 1:
                right = self.emit(relax.op.multiply(right, relax.const(alpha, dtype)))
            return self.emit(make(left, right))

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


def _only_asserted(node: fx.Node) -> bool:
    """Whether a call compares sizes, and nothing but torch's assertions reads the result."""
    if str(node.target) in ("aten._assert_scalar.default", "aten.sym_constrain_range.default"):
        return True
    return isinstance(node.meta.get("val"), torch.SymBool) and all(map(_only_asserted, node.users))


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
