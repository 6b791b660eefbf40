"""ONNX graph -> Relax under the IR convention, node by node.

Float weights become parameters under their initializer names; shapes, axes and other settings
stay constants (``settings``). A node goes to the rules for sizes, to a converter of ours, to TVM's
converter, or to the function body of its schema, in this order. Whatever cannot be imported is
collected, and named in one error at the end.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import tvm
from onnx import AttributeProto, ModelProto, NodeProto
from tvm import relax, tirx

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.onnx import bodies, folding, sizes, tvm_converters
from burnish.compiler.importers.onnx.checks import graphs_of
from burnish.compiler.importers.onnx.containers import assemble, take_apart
from burnish.compiler.importers.onnx.node import Node, attributes, bind_attributes
from burnish.compiler.importers.onnx.refusals import not_found
from burnish.compiler.importers.onnx.registry import STANDARD, InnerRefused, Refused, converter_of
from burnish.compiler.importers.onnx.settings import FIXED, SETTINGS, settings_of
from burnish.compiler.importers.onnx.values import (
    CARRIED,
    carried,
    constant_of,
    elem_type,
    numpy_dtype,
    to_array,
    value_of,
)
from burnish.compiler.importers.unsupported import Found, unsupported_error
from burnish.compiler.signature import TensorSpec
from burnish.passes.params import with_main
from burnish.runtime.trees import Node as Tree

WEIGHT_DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "uint8")
# Function bodies may use operators that have bodies; none of ONNX's goes deeper than 4.
DEEPEST = 12


_OPERATOR = re.compile(r'ir\.Op\(.*?name="([\w.]+)".*?support_level=\d+\)', re.DOTALL)
"""TVM's way to name one of its operators."""


class _Missing:
    """What a node that cannot be imported would have given."""


MISSING = _Missing()


class _BranchesError(Exception):
    """A branch was met where the nodes are converted into one dataflow block."""


class GraphImporter:
    """One import of one graph, with inputs as the signature says.

    ``values`` maps the names in scope to Relax expressions; ``weights`` holds the arrays of the
    parameters; ``versions`` the operator sets in scope. ``structures`` gives the nesting of inputs
    that are sequences or optionals; ``outputs`` names the tensors of the results, ``tree`` nests
    them.
    """

    def __init__(
        self,
        model: ModelProto,
        inputs: tuple[TensorSpec, ...],
        structures: Mapping[str, Tree] | None = None,
    ) -> None:
        self.model = model
        self.specs = inputs
        self.structures = structures or {}
        self.outputs: list[str] = []
        self.tree: Tree = {"list": []}
        self.bb = relax.BlockBuilder()
        self.values: dict[str, Any] = {}
        self.weights: dict[str, np.ndarray] = {}
        self.versions = {o.domain: o.version for o in model.opset_import}
        # Expression -> the sizes it holds; kept alive here, so that its id stays its own.
        self._sizes: dict[int, tuple[relax.Expr, sizes.Sizes]] = {}
        # Expression -> its type in ONNX, where TVM carries it in another; kept alive likewise.
        self._kinds: dict[int, tuple[relax.Expr, int]] = {}
        self._depth = 0
        self._parameters: list[relax.Var] = []
        self._made: list[relax.Var] = []
        self._dataflow = True
        self._found: list[Found] = []

    def module(self) -> tvm.IRModule:
        """The module; its weights are in :attr:`weights`.

        It is one dataflow block, or no such block at all where there are branches.
        """
        try:
            return self._module(dataflow=True)
        except _BranchesError:
            self.__init__(self.model, self.specs, self.structures)  # type: ignore[misc]
            return self._module(dataflow=False)

    def _module(self, *, dataflow: bool) -> tvm.IRModule:
        graph = self.model.graph
        variables = self._declare_inputs()
        parameters = self._parameters = self._declare_weights(graph)
        self._dataflow = dataflow
        with self.bb.function(
            "main", params=[*variables, *parameters], attrs={"num_input": len(variables)}
        ):
            with self.bb.dataflow() if dataflow else contextlib.nullcontext():
                self.convert_nodes(graph.node)
                if self._found:
                    raise unsupported_error("ONNX", self._found)
                leaves: dict[str, relax.Expr] = {}
                self.tree = {
                    "list": [
                        take_apart(self.tensor(value.name), value.name, self.bb.emit, leaves)
                        for value in graph.output
                    ]
                }
                self.outputs = list(leaves)
                result = relax.Tuple(list(leaves.values()))
                result = self.bb.emit_output(result) if dataflow else result
            self.bb.emit_func_output(result)
        mod = self.bb.get()
        if self._made:
            main = mod["main"]
            params = [*main.params, *self._made]
            mod = with_main(
                mod, relax.Function(params, main.body, main.ret_ty, main.is_pure, main.attrs)
            )
        return mod

    def new_weight(self, name: str, array: np.ndarray) -> relax.Var:
        """A further parameter: what a converter made of a weight, in the form its kernel reads.

        One that nothing else reads is left out of the module afterwards. A number is added to a
        name that is taken.
        """
        taken = {*self.weights, *self.values}
        unique = next(
            n for i in itertools.count() if (n := f"{name}~{i}" if i else name) not in taken
        )
        self.weights[unique] = array
        var = relax.Var(unique, relax.TensorType(list(array.shape), str(array.dtype)))
        self._made.append(var)
        return var

    def array_of(self, expr: Any) -> np.ndarray | None:
        """The array of a weight, or of an expression that is known at import."""
        if isinstance(expr, relax.Var) and expr.name in self.weights:
            return self.weights[expr.name] if self._is_weight(expr) else None
        return self.constant(expr)

    def _is_weight(self, var: relax.Var) -> bool:
        """Whether a variable of a weight's name is that weight; results may have any name."""
        return any(var.same_as(known) for known in (*self._parameters, *self._made))

    def convert_nodes(self, nodes: Sequence[NodeProto]) -> None:
        """Convert nodes in order; their results are in :attr:`values` under their names."""
        for proto in nodes:
            self._convert(proto)

    @contextlib.contextmanager
    def scope(self, names: Mapping[str, Any]) -> Iterator[None]:
        """Names of an inner graph: those given and all outer ones; forgotten at the end."""
        outer = self.values
        self.values = {**outer, **names}
        try:
            yield
        finally:
            self.values = outer

    def allow_branches(self) -> None:
        """To be called before a binding that no dataflow block may hold (If, calls of loops)."""
        if self._dataflow:
            raise _BranchesError

    def inlined(self, graph: onnx.GraphProto, names: Mapping[str, Any]) -> list[Any]:
        """The results of an inner graph, its nodes converted here."""
        found = len(self._found)
        with self.scope(names):
            self.declare_constants(graph)
            self.convert_nodes(graph.node)
            results = [self.values[value.name] for value in graph.output]
        if len(self._found) > found or any(value is MISSING for value in results):
            raise InnerRefused
        return results

    def branch(self, graph: onnx.GraphProto, names: Mapping[str, Any]) -> relax.SeqExpr:
        """An inner graph as a sequence of its own; several outputs are a tuple."""
        self.allow_branches()
        with self.scope({}):
            self.bb._begin_binding_block()
            try:
                outputs = self.inlined(graph, names)
                if any(not isinstance(value, relax.Expr) for value in outputs):
                    raise Refused("an optional that may be empty at run time has no form in TVM")
                result = outputs[0] if len(outputs) == 1 else relax.Tuple(outputs)
                result = self.bb.emit(result)
            finally:
                block = self.bb._end_block()
        return relax.SeqExpr([block], result)

    def declare_constants(self, graph: onnx.GraphProto) -> None:
        """The initializers of an inner graph, as constants in scope."""
        for tensor in graph.initializer:
            array = carried(to_array(tensor), tensor.data_type)
            made = relax.const(array, str(array.dtype))
            self.values[tensor.name] = self.typed(made, tensor.data_type)

    def typed(self, expr: relax.Expr, kind: int) -> relax.Expr:
        """An expression, bound, that holds the type ``kind`` of ONNX."""
        if kind in CARRIED:
            if not isinstance(expr, relax.Var) and value_of(expr) is None:
                expr = self.bb.emit(expr)
            self._kinds[id(expr)] = (expr, kind)
        return expr

    def elem_type(self, expr: relax.Expr) -> int:
        """The type in ONNX of the elements of a tensor."""
        if id(expr) in self._kinds:
            return self._kinds[id(expr)][1]
        return elem_type(str(expr.ty.dtype))

    def constant(self, expr: Any) -> np.ndarray | None:
        """The array of an expression that is known at import."""
        known = value_of(expr)
        if known is not None or id(expr) not in self._sizes:
            return known
        found = self._sizes[id(expr)][1]
        if any(not isinstance(n, int) for n in found.ravel()):
            return None
        return found.astype(str(expr.ty.dtype))

    def sizes_of(self, expr: Any) -> sizes.Sizes | None:
        """The elements of a small integer tensor as ints and symbols, where they are known."""
        if id(expr) in self._sizes:
            return self._sizes[id(expr)][1]
        array = value_of(expr)
        return None if array is None else sizes.constant_sizes(array)

    def as_shapes(self, node: Node) -> list[Any]:
        """A node's inputs, where TVM's converter takes a shape with symbols as a shape."""
        inputs = list(node.inputs)
        at = sizes.TAKES_SHAPE.get(node.op)
        if at is not None and at < len(inputs) and id(inputs[at]) in self._sizes:
            expr = sizes.to_expr(self._sizes[id(inputs[at])][1])
            inputs[at] = inputs[at] if expr is None else expr
        return inputs

    def tensor(self, name: str) -> relax.Expr:
        """A value in scope."""
        return self.values[name]

    def _declare_inputs(self) -> list[relax.Var]:
        symbols: dict[str, tirx.Var] = {}
        kinds = {v.name: v.type.tensor_type.elem_type for v in self.model.graph.input}
        variables = []
        for index, spec in enumerate(self.specs):
            shape = [
                symbols.setdefault(n, tirx.Var(n, "int64")) if isinstance(n, str) else n
                for n in spec.shape
            ]
            name = "".join(c if c.isalnum() else "_" for c in spec.name)
            name = name if name[:1].isalpha() else f"input_{index}_{name}"
            self.values[spec.name] = relax.Var(name, relax.TensorType(shape, spec.dtype))
            variables.append(self.values[spec.name])
            self.typed(self.values[spec.name], kinds.get(spec.name, 0))
        for name, structure in self.structures.items():
            self.values[name] = assemble(structure, variables)
        return variables

    def _declare_weights(self, graph: onnx.GraphProto) -> list[relax.Var]:
        settings = settings_of(graphs_of(graph), SETTINGS, FIXED)
        parameters = []
        for tensor in graph.initializer:
            array = carried(to_array(tensor), tensor.data_type)
            if is_weight(array) and tensor.name not in settings:
                self.weights[tensor.name] = array
                ty = relax.TensorType(list(array.shape), str(array.dtype))
                self.values[tensor.name] = relax.Var(tensor.name, ty)
                parameters.append(self.values[tensor.name])
            else:
                self.values[tensor.name] = relax.const(array, str(array.dtype))
            self.typed(self.values[tensor.name], tensor.data_type)
        return parameters

    def _convert(self, proto: NodeProto) -> None:
        where = proto.name or next((name for name in proto.output if name), proto.op_type)
        try:
            results = self._results(proto, where)
        except InnerRefused:
            results = (MISSING,) * len(proto.output)
        except Refused as refusal:
            self._found.append(not_found(proto, where, self.versions, str(refusal)))
            results = (MISSING,) * len(proto.output)
        wanted = [index for index, name in enumerate(proto.output) if name]
        if len(results) <= max(wanted, default=-1):
            raise ImportModelError(
                f"{proto.op_type} at {where}: its converter gives {len(results)} results, the "
                f"node has {len(proto.output)}",
                op=proto.op_type,
            )
        for index in wanted:
            self.values[proto.output[index]] = self._bound(results[index])
        if self._kinds:
            self._carry_kinds(proto)

    def _carry_kinds(self, proto: NodeProto) -> None:
        """Outputs of the type that a schema gives an input, too, are what that input is."""
        version = self._version(proto.domain)
        known = {
            position: self._kinds[id(self.values[name])][1]
            for position, name in enumerate(proto.input)
            if name and id(self.values.get(name)) in self._kinds
        }
        if not known or not onnx.defs.has(proto.op_type, version, proto.domain):
            return
        schema = onnx.defs.get_schema(proto.op_type, version, proto.domain)
        last = len(schema.inputs) - 1
        of_type = {schema.inputs[min(at, last)].type_str: kind for at, kind in known.items()}
        for position, name in enumerate(proto.output):
            formal = schema.outputs[min(position, len(schema.outputs) - 1)]
            value = self.values.get(name)
            if formal.type_str in of_type and isinstance(value, relax.Expr):
                self.typed(value, of_type[formal.type_str])

    def _bound(self, value: Any) -> Any:
        """A result as a variable or constant, so that what is used twice is computed once."""
        if not isinstance(value, relax.Expr):
            return value
        if isinstance(value, relax.ShapeExpr | relax.Tuple) or value_of(value) is not None:
            known = sizes.listed(value)
            if known is None:
                return value
            value = self.bb.emit(sizes.to_tensor(known, "int64"))
            self._sizes[id(value)] = (value, known)
            return value
        if isinstance(value, relax.Var):
            if isinstance(value.ty, relax.ShapeType):
                return self.bb.emit(relax.op.shape_to_tensor(value))
            return value
        value = self.bb.normalize(value)
        if isinstance(value.ty, relax.ShapeType):
            value = relax.op.shape_to_tensor(value)
        return self.bb.emit(value) if not isinstance(value, relax.Tuple) else value

    def _results(self, proto: NodeProto, where: str) -> tuple[Any, ...]:
        domain = "" if proto.domain in STANDARD else proto.domain
        version = self._version(domain)
        if domain == "" and proto.op_type == "Constant":
            return (self._constant(proto),)
        own = converter_of(domain, proto.op_type, version)
        by_tvm = tvm_converters.has_converter(proto.op_type, domain)
        if own is None and not by_tvm and not bodies.has_body(proto.op_type, domain, version):
            raise Refused("" if domain == "" else f"the domain {domain!r} has no such converter")
        inputs = [self.values[name] if name else None for name in proto.input]
        if any(value is MISSING for value in inputs):
            return (MISSING,) * len(proto.output)
        node = Node(
            proto.op_type, domain, version, where, inputs, list(proto.output), attributes(proto),
            proto, self,
        )  # fmt: skip
        try:
            found = self._folded(node)
            found = self._over_sizes(node) if found is None else found
            found = own(node) if found is None and own is not None else found
        except (ImportModelError, Refused, _BranchesError):
            raise
        except Exception as error:
            raise ImportModelError(
                f"{proto.op_type} at {where}: {error}", op=proto.op_type
            ) from error
        if found is None:
            found = self._otherwise(node, by_tvm=by_tvm)
        return found if isinstance(found, tuple) else (found,)

    def _otherwise(self, node: Node, *, by_tvm: bool) -> Any:
        """What TVM's converter gives, or the body of the operator's schema."""
        reason: Refused | None = None
        if by_tvm:
            try:
                return tvm_converters.convert(node)
            except Refused as refused:
                reason = refused
            except (ImportModelError, _BranchesError):
                raise
            except Exception as error:  # noqa: BLE001 - a private converter raises anything
                reason = Refused(_essence(error))
        body = bodies.function_body(node.proto, node.domain, node.version, node.inputs)
        if body is None:
            raise reason or Refused("this form of it has no converter")
        return self.call_function(node, body)

    def call_function(self, node: Node, body: onnx.FunctionProto) -> tuple[Any, ...]:
        """The results of a function's body on the node's inputs."""
        if self._depth >= DEEPEST:
            raise ImportModelError(
                f"{node.op} at {node.name}: functions call each other {DEEPEST} deep", op=node.op
            )
        given: dict[str, AttributeProto] = bodies.default_attributes(
            node.proto, node.domain, node.version
        )
        found = len(self._found)
        outer, versions = self.values, self.versions
        self._depth += 1
        arguments = zip(body.input, [*node.inputs, *[None] * len(body.input)], strict=False)
        # A graph among the attributes reads the names around the node.
        captured = any(attribute.HasField("g") for attribute in node.proto.attribute)
        self.values = {**(outer if captured else {}), **dict(arguments)}
        self.versions = {**versions, **{o.domain: o.version for o in body.opset_import}}
        try:
            self.convert_nodes([bind_attributes(inner, given) for inner in body.node])
            results = tuple(self.values.get(name) for name in body.output)
        finally:
            self.values, self.versions = outer, versions
            self._depth -= 1
        if len(self._found) > found:
            return (MISSING,) * len(node.outputs)
        return results

    def _version(self, domain: str) -> int:
        for name in STANDARD if domain == "" else (domain,):
            if name in self.versions:
                return self.versions[name]
        return 1

    def _constant(self, proto: NodeProto) -> relax.Expr:
        array = constant_of(proto.attribute[0]) if proto.attribute else None
        if array is None:
            raise Refused("constants of strings have no form in TVM")
        attribute = proto.attribute[0]
        kind = attribute.t.data_type if attribute.name == "value" else elem_type(str(array.dtype))
        array = carried(array, kind)
        return self.typed(relax.const(array, str(array.dtype)), kind)

    def _folded(self, node: Node) -> tuple[relax.Expr, ...] | None:
        """The results of a node whose inputs are all known, where there is a rule for it."""
        if node.domain != "" or any(id(expr) in self._kinds for expr in node.inputs):
            return None
        arrays = [None if expr is None else self.constant(expr) for expr in node.inputs]
        known = zip(node.inputs, arrays, strict=True)
        if any(expr is not None and array is None for expr, array in known):
            return None
        results = folding.folded(node.op, arrays, node.attrs)
        if results is None:
            return None
        return tuple(relax.const(array, str(array.dtype)) for array in results)

    def _over_sizes(self, node: Node) -> relax.Expr | None:
        """A node that computes sizes, or shapes something by them; None for every other."""
        if node.domain != "":
            return None
        if node.op in ("Shape", "Size"):
            found = sizes.shape_sizes(node.inputs[0])
            if found is not None and node.op == "Shape":
                found = found[node.attrs.get("start") : node.attrs.get("end")]
            elif found is not None:
                found = sizes.of([sizes.product(found.tolist())]).reshape(())
        elif any(id(expr) in self._sizes for expr in node.inputs):
            given = [self.sizes_of(expr) for expr in node.inputs]
            found = sizes.evaluate(node.op, given, node.attrs)
        else:
            return None
        if found is None:
            return None
        if node.op in ("Shape", "Size", "Cast"):
            dtype = "int32" if node.attrs.get("to") == onnx.TensorProto.INT32 else "int64"
        else:
            dtype = "bool" if node.op == "Equal" else node.dtype(1 if node.op == "Where" else 0)
        expr = self.bb.normalize(sizes.to_tensor(found, dtype))
        expr = expr if value_of(expr) is not None else self.bb.emit(expr)
        self._sizes[id(expr)] = (expr, found)
        return expr


def _essence(error: Exception) -> str:
    """The first line of an error that says something."""
    plain = _OPERATOR.sub(r"\1", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    return f"TVM's converter: {lines[-1] if lines else type(error).__name__}"[:300]


def is_weight(array: np.ndarray) -> bool:
    """Whether an initializer is a weight by its values: numbers that are no index and no scalar."""
    return str(array.dtype) in WEIGHT_DTYPES and array.size > 1


def check_types(model: ModelProto, nodes: Mapping[str, Any]) -> None:
    """Refuse a result whose type is not the one ONNX gives it; such converters are wrong."""
    for value in [*model.graph.value_info, *model.graph.output]:
        expr, want = nodes.get(value.name), value.type.tensor_type
        if not isinstance(expr, relax.Expr) or not want.elem_type:
            continue
        if not isinstance(expr.ty, relax.TensorType):
            continue
        got, dtype = str(expr.ty.dtype), numpy_dtype(want.elem_type)
        if got != dtype:
            raise ImportModelError(
                f"the converter of the node that makes {value.name!r} gives {got}, "
                f"ONNX says {dtype}"
            )
        shape = expr.ty.shape
        if not want.HasField("shape") or not isinstance(shape, relax.ShapeExpr):
            continue
        declared = [d.dim_value if d.HasField("dim_value") else None for d in want.shape.dim]
        found = [int(n) if isinstance(n, tirx.IntImm) else None for n in shape]
        same = len(declared) == len(found) and all(
            None in pair or pair[0] == pair[1] for pair in zip(declared, found, strict=True)
        )
        if not same:
            raise ImportModelError(
                f"the converter of the node that makes {value.name!r} gives shape {found}, ONNX "
                f"says {declared}"
            )
