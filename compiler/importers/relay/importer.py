"""A Relay model -> module under the IR convention, and signature."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax, tirx

from burnish.compiler.importers.formats import Input
from burnish.compiler.importers.relay.attributes import is_operator
from burnish.compiler.importers.relay.context import Context, Value
from burnish.compiler.importers.relay.converters import CONVERTERS, REFUSED
from burnish.compiler.importers.relay.graph import (
    Call,
    If,
    Operator,
    RelayError,
    TensorType,
    TupleType,
    Type,
    Var,
)
from burnish.compiler.importers.relay.model import RelayModel
from burnish.compiler.importers.relay.walk import Walker
from burnish.compiler.importers.tidy import drop_unused
from burnish.compiler.importers.unsupported import NO_CONVERTER, Found, unsupported_error
from burnish.compiler.signature import Dim, Signature, TensorSpec, dtype_name
from burnish.passes.params import with_params
from burnish.runtime import trees

TYPED = "save the module after relay.transform.InferType()"
REMEDY = "write it with other operators of Relay before the module is saved"


def import_relay(
    model: RelayModel,
    example_inputs: Any = None,
    dynamic: Mapping[str, Any] | None = None,
    *,
    fold: bool = True,
) -> tuple[tvm.IRModule, Signature]:
    """Convert a module; ``fold`` has no part in it.

    Raises :class:`ImportModelError` with what is wrong and what to do.
    """
    _check_operators(model)
    names = [var.name for var in model.parameters()]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RelayError(f"two parameters of {model.name} are named {twice!r}: rename one")
    for text in model.graph.warnings:
        warnings.warn(text, stacklevel=2)
    declared = model.inputs()
    examples = _examples(model, declared, example_inputs)
    unknown = [name for name in dynamic or {} if name not in [var.name for var in declared]]
    if unknown:
        raise RelayError(
            f"dynamic names the input {unknown[0]!r}; the model's inputs are: "
            f"{', '.join(var.name for var in declared)}"
        )
    return _Import(model, examples, dynamic or {}).result()


def declared_inputs(model: RelayModel) -> list[Input]:
    """Inputs as the file declares them; those of tuple type by their tensors."""
    found: list[Input] = []
    for var in model.inputs():
        waiting: list[tuple[str, Type]] = [(var.name, var.type)]
        while waiting:
            name, kind = waiting.pop(0)
            if isinstance(kind, TupleType):
                parts = [(f"{name}.{i}", part) for i, part in enumerate(kind.fields)]
                waiting = [*parts, *waiting]
            elif isinstance(kind, TensorType):
                shape = tuple("" if n is None else n for n in kind.shape)
                found.append(Input(name, shape, kind.dtype))
            else:
                raise RelayError(f"the input {name!r} has no tensor type in the file: {TYPED}")
    return found


def _check_operators(model: RelayModel) -> None:
    """Refuse every operator without converter, all at once."""
    graph = model.graph
    found = []
    for at, node in enumerate(graph.nodes):
        called = graph.nodes[node.op] if isinstance(node, Call) else None
        if isinstance(called, Operator) and called.name not in CONVERTERS:
            reason, remedy = REFUSED.get(called.name), ""
            if reason is None:
                known = is_operator(called.name)
                reason, remedy = NO_CONVERTER if known else "not an operator of TVM 0.19", REMEDY
            found.append(Found(called.name, graph.places[at], reason, remedy=remedy))
    if found:
        raise unsupported_error("Relay", found)


def _examples(model: RelayModel, declared: Sequence[Var], given: Any) -> dict[str, Any]:
    names = [var.name for var in declared]
    if given is None or (isinstance(given, (tuple, list)) and not given):
        return {}
    if not isinstance(given, (tuple, list, Mapping)):
        given = (given,)
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in names]
        if unknown:
            raise RelayError(
                f"the model has no input {unknown[0]!r}; its inputs are: {', '.join(names)}"
            )
        examples = dict(given)
        missing = [name for name in names if name not in examples]
    else:
        if len(given) > len(names):
            raise RelayError(
                f"got {len(given)} example inputs, the model has {len(names)}: {', '.join(names)}"
            )
        examples = dict(zip(names, given, strict=False))
        missing = names[len(given) :]
    if missing:
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        raise RelayError(
            f"{model.name}: {len(missing)} parameters of its main function have no value: "
            f"{', '.join(missing[:8])}{more}; give them as params= (a file of "
            "relay.save_param_dict, or name -> array), put such a file beside the model with the "
            "suffix .params, or pass them as inputs"
        )
    return examples


class _Import:
    def __init__(
        self, model: RelayModel, examples: Mapping[str, Any], dynamic: Mapping[str, Any]
    ) -> None:
        self.model, self.examples, self.dynamic = model, examples, dynamic
        self.builder = relax.BlockBuilder()
        self.context = Context(self.builder)
        self.symbols: dict[str, tirx.Var] = {}
        self.specs: list[TensorSpec] = []
        self.inputs: list[relax.Var] = []
        self.arguments: list[tuple[str, trees.Node]] = []

    def result(self) -> tuple[tvm.IRModule, Signature]:
        graph = self.model.graph
        params = [self._parameter(var) for var in self.model.parameters()]
        walker = Walker(graph, self.context, CONVERTERS)
        with self.builder.function("main", attrs={"num_input": len(self.inputs)}):
            try:
                result, tree = self._body(walker, params)
            except BaseException:
                self.builder._end_block()  # else TVM warns of it
                raise
            self.builder.emit_func_output(result, params=[*self.inputs, *self.context.weight_vars])
        mod = drop_unused(with_params(self.builder.get(), self.context.weights))
        fields = mod["main"].ret_ty.fields
        outputs = tuple(_spec(f"output_{i}", ty) for i, ty in enumerate(fields))
        symbols: dict[str, tuple[int, int | None]] = dict.fromkeys(self.symbols, (1, None))
        return mod, Signature(tuple(self.specs), outputs, tuple(self.arguments), tree, symbols)

    def _body(self, walker: Walker, params: Sequence[Value]) -> tuple[relax.Expr, trees.Node]:
        """Everything bound; the results as a flat tuple, and their nesting."""
        branches = any(isinstance(node, If) for node in self.model.graph.nodes)
        with contextlib.nullcontext() if branches else self.builder.dataflow():
            leaves: list[relax.Expr] = []
            tree = _tree(walker.run(params), leaves)
            if not leaves:
                raise RelayError(f"{self.model.name} returns nothing")
            result = relax.Tuple(leaves)
            return (result if branches else self.builder.emit_output(result)), tree

    def _parameter(self, var: Var) -> Value:
        given = self.model.params.get(var.name)
        if given is not None:
            _check_parameter(var, given)
            return self.context.array(given, var.name)
        kind = var.type
        example = self.examples.get(var.name)
        if isinstance(kind, TupleType):
            if self.dynamic.get(var.name):
                raise RelayError(f"the input {var.name!r} is a tuple; its sizes cannot be dynamic")
            tree, value = self._tuple(var.name, kind)
            self.arguments.append((var.name, tree))
            return value
        if kind is None and example is not None and hasattr(example, "shape"):
            kind = TensorType(tuple(int(n) for n in example.shape), dtype_name(example.dtype))
        if not isinstance(kind, TensorType):
            raise RelayError(
                f"the input {var.name!r} has no tensor type in the file: give example_inputs, or "
                f"{TYPED}"
            )
        shape = self._shape(var.name, kind, example, self.dynamic.get(var.name) or {})
        self.arguments.append((var.name, len(self.specs)))
        return self._input(var.name, shape, kind.dtype)

    def _tuple(self, name: str, kind: TupleType) -> tuple[trees.Node, Value]:
        nodes, values = [], []
        for index, part in enumerate(kind.fields):
            label = f"{name}.{index}"
            if isinstance(part, TupleType):
                node, value = self._tuple(label, part)
            elif isinstance(part, TensorType):
                node = len(self.specs)
                value = self._input(label, self._shape(label, part, None, {}), part.dtype)
            else:
                raise RelayError(f"the input {label!r} has no tensor type in the file")
            nodes.append(node)
            values.append(value)
        return {"tuple": nodes}, tuple(values)

    def _input(self, name: str, shape: Sequence[Dim], dtype: str) -> relax.Var:
        sizes = [
            self.symbols.setdefault(n, tirx.Var(n, "int64")) if isinstance(n, str) else n
            for n in shape
        ]
        self.specs.append(TensorSpec(name, tuple(shape), dtype))
        plain = "".join(c if c.isalnum() else "_" for c in name)
        plain = plain if plain[:1].isalpha() else f"input_{len(self.inputs)}_{plain}"
        self.inputs.append(relax.Var(plain, relax.TensorType(sizes, dtype)))
        return self.inputs[-1]

    def _shape(self, name: str, kind: TensorType, example: Any, dynamic: Any) -> tuple[Dim, ...]:
        """Open sizes get their names, the others come from the file or the example."""
        found: list[Dim | None] = list(kind.shape)
        if example is not None:
            _check_example(name, kind, example)
            found = [int(n) for n in example.shape]
        named = dict(dynamic.items() if isinstance(dynamic, Mapping) else enumerate(dynamic))
        for axis, dim in named.items():
            if dim is None:
                continue
            if not isinstance(axis, int) or not -len(found) <= axis < len(found):
                raise RelayError(
                    f"dynamic names axis {axis!r} of the input {name!r} of rank {len(found)}"
                )
            label = dim if isinstance(dim, str) else getattr(dim, "__name__", "")
            if not label.isidentifier():
                raise RelayError(f"a dynamic size needs a name like 'batch', got {dim!r}")
            if kind.shape[axis] is not None:
                raise RelayError(
                    f"axis {axis} of the input {name!r} is {kind.shape[axis]} in the file, and "
                    "Relay has computed with it: export the model with relay.Any() there to keep "
                    "it open"
                )
            found[axis] = label
        missing = [axis for axis, n in enumerate(found) if n is None]
        if missing:
            raise RelayError(
                f"the input {name!r} is {kind}: give example_inputs, or name its open sizes, as "
                f"dynamic={{{name!r}: {{{missing[0]}: 'batch'}}}}"
            )
        return tuple(n for n in found if n is not None)


def _check_parameter(var: Var, given: np.ndarray) -> None:
    kind: Type = var.type
    if not isinstance(kind, TensorType):
        return
    fits = len(kind.shape) == given.ndim and all(
        n in (None, m) for n, m in zip(kind.shape, given.shape, strict=True)
    )
    if not fits or kind.dtype != str(given.dtype):
        raise RelayError(
            f"the parameter {var.name!r} is {given.dtype}{list(given.shape)}, the model takes "
            f"{kind}"
        )


def _check_example(name: str, kind: TensorType, example: Any) -> None:
    if not hasattr(example, "shape") or not hasattr(example, "dtype"):
        raise RelayError(f"the example of {name!r} must be an array, got {type(example).__name__}")
    shape, dtype = tuple(int(n) for n in example.shape), dtype_name(example.dtype)
    fits = len(shape) == len(kind.shape) and all(
        n in (None, m) for n, m in zip(kind.shape, shape, strict=True)
    )
    if not fits or dtype != kind.dtype:
        raise RelayError(
            f"the example of {name!r} is {dtype}{list(shape)}, the model takes {kind}", shape=shape
        )


def _tree(value: Value, leaves: list[relax.Expr]) -> trees.Node:
    if isinstance(value, tuple):
        return {"tuple": [_tree(item, leaves) for item in value]}
    if not isinstance(value, relax.Expr):
        raise RelayError("the model returns a function, which is not supported")
    leaves.append(value)
    return len(leaves) - 1


def _spec(name: str, ty: relax.TensorType) -> TensorSpec:
    if not isinstance(ty.shape, relax.ShapeExpr):
        raise RelayError(
            f"the shape of {name} depends on the values of the inputs, which is not supported: "
            "return results of a fixed size"
        )
    sizes = (int(n) if isinstance(n, tirx.IntImm) else str(n) for n in ty.shape)
    return TensorSpec(name, tuple(sizes), str(ty.dtype))
