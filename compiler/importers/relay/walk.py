"""Graph -> Relax bindings: functions, let, if, tuples and closures.

1. Each node is converted once a scope; a scope is a call of a function, or a branch of If.
2. Functions that are called (``Primitive``, ``Composite``, closures, ``@globals``) are inlined;
   a function that calls itself is refused.
3. Tuples are Python tuples here, so that fields are picked at import.

A stack of frames takes the place of recursion; what is inlined, and how deep, has limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tvm import relax

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.relay import sizes
from burnish.compiler.importers.relay.context import (
    Attributes,
    Context,
    Converter,
    Value,
    dtype_of,
)
from burnish.compiler.importers.relay.graph import (
    Call,
    Constant,
    Function,
    Global,
    Graph,
    Id,
    If,
    Item,
    Let,
    Operator,
    RelayError,
    Tuple,
    Var,
)

MAX_DEPTH = 100
MAX_CALLS = 200_000


@dataclass
class Scope:
    """Values of one call or branch; ``function`` is what is called in it."""

    parent: Scope | None
    depth: int = 0
    function: Id | None = None
    values: dict[Id, Value] = field(default_factory=dict)

    def find(self, at: Id) -> Value | None:
        scope: Scope | None = self
        while scope is not None:
            if at in scope.values:
                return scope.values[at]
            scope = scope.parent
        return None


@dataclass(frozen=True)
class Closure:
    """A function with the scope in which it was written."""

    function: Id
    scope: Scope | None


@dataclass
class Frame:
    """A node under way: ``stage`` counts what is done of it, ``kept`` is what it needs later."""

    at: Id
    scope: Scope
    stage: int = 0
    kept: list[Any] = field(default_factory=list)


class Walker:
    """One conversion of one graph."""

    def __init__(self, graph: Graph, context: Context, converters: dict[str, Converter]) -> None:
        self.graph, self.context, self.converters = graph, context, converters
        self.blocks = 0
        self.stack: list[Frame] = []
        self.active: list[tuple[Id, Scope]] = []
        self.calls = 0
        self.constants: dict[Id, relax.Expr] = {}

    def run(self, params: Sequence[Value]) -> Value:
        """The body of the entry function, with values for its parameters."""
        main = self.graph.main()
        scope = Scope(None, 0, self.graph.functions[self.graph.entry])
        scope.values.update(zip(main.params, params, strict=True))
        self.stack.append(Frame(main.body, scope))
        try:
            while self.stack:
                frame = self.stack[-1]
                if frame.stage == 0 and frame.scope.find(frame.at) is not None:
                    self.stack.pop()
                    continue
                _STEPS[type(self.graph.nodes[frame.at])](self, frame)
        finally:
            for _ in range(self.blocks):
                self.context.builder._end_block()
        return scope.find(main.body)

    def done(self, frame: Frame, value: Value) -> None:
        frame.scope.values[frame.at] = value
        self.stack.pop()

    def fail(self, at: Id, message: str) -> RelayError:
        return RelayError(f"{self.graph.places[at]}: {message}")

    def wants(self, frame: Frame, ids: Sequence[Id]) -> bool:
        """Whether values are still missing; if so, they are converted first."""
        missing = [at for at in ids if frame.scope.find(at) is None]
        self.stack += [Frame(at, frame.scope) for at in reversed(missing)]
        return bool(missing)

    def constant(self, frame: Frame) -> None:
        node = self.graph.nodes[frame.at]
        assert isinstance(node, Constant)
        if frame.at not in self.constants:
            self.constants[frame.at] = self.context.array(node.array, f"constant_{frame.at}")
        self.done(frame, self.constants[frame.at])

    def var(self, frame: Frame) -> None:
        node = self.graph.nodes[frame.at]
        assert isinstance(node, Var)
        raise self.fail(frame.at, f"%{node.name} is used where it has no value")

    def operator(self, frame: Frame) -> None:
        self.done(frame, self.graph.nodes[frame.at])

    def global_(self, frame: Frame) -> None:
        node = self.graph.nodes[frame.at]
        assert isinstance(node, Global)
        self.done(frame, Closure(self.graph.functions[node.name], None))

    def function(self, frame: Frame) -> None:
        self.done(frame, Closure(frame.at, frame.scope))

    def tuple_(self, frame: Frame) -> None:
        node = self.graph.nodes[frame.at]
        assert isinstance(node, Tuple)
        if not self.wants(frame, node.fields):
            self.done(frame, tuple(frame.scope.find(at) for at in node.fields))

    def item(self, frame: Frame) -> None:
        node = self.graph.nodes[frame.at]
        assert isinstance(node, Item)
        if self.wants(frame, (node.value,)):
            return
        value = frame.scope.find(node.value)
        if not isinstance(value, tuple) or not 0 <= node.index < len(value):
            what = f"a tuple of {len(value)}" if isinstance(value, tuple) else "no tuple"
            raise self.fail(frame.at, f"field {node.index} is taken of {what}")
        self.done(frame, value[node.index])

    def let(self, frame: Frame) -> None:
        node = self.graph.nodes[frame.at]
        assert isinstance(node, Let)
        if self.wants(frame, (node.value,)):
            return
        frame.scope.values[node.var] = frame.scope.find(node.value)
        if not self.wants(frame, (node.body,)):
            self.done(frame, frame.scope.find(node.body))

    def call(self, frame: Frame) -> None:
        node = self.graph.nodes[frame.at]
        assert isinstance(node, Call)
        if frame.stage == 0:
            if self.wants(frame, (node.op, *node.args)):
                return
            called = frame.scope.find(node.op)
            args = [frame.scope.find(at) for at in node.args]
            if isinstance(called, Operator):
                self.done(frame, self._operator(frame.at, called.name, args, node))
                return
            self._enter(frame, called, args)
            return
        self.active.pop()
        inner, body = frame.kept
        self.done(frame, inner.find(body))

    def _enter(self, frame: Frame, called: Value, args: list[Value]) -> None:
        """Begin to inline a function."""
        if not isinstance(called, Closure):
            raise self.fail(frame.at, "what is called is no function")
        function = self.graph.nodes[called.function]
        assert isinstance(function, Function)
        if len(function.params) != len(args):
            raise self.fail(
                frame.at, f"a function of {len(function.params)} parameters gets {len(args)}"
            )
        if any(at == called.function for at, _ in self.active):
            raise self.fail(
                frame.at,
                "a function calls itself, which is how Relay writes loops: such loops are not "
                "supported; unroll the loop when the model is exported, or keep its body as the "
                "model and loop in Python",
            )
        if frame.scope.depth >= MAX_DEPTH:
            raise self.fail(frame.at, f"functions and branches nest deeper than {MAX_DEPTH}")
        inner = Scope(called.scope, frame.scope.depth + 1, called.function)
        inner.values.update(zip(function.params, args, strict=True))
        self.active.append((called.function, inner))
        frame.stage, frame.kept = 1, [inner, function.body]
        self.stack.append(Frame(function.body, inner))

    def _operator(self, at: Id, name: str, args: list[Value], node: Call) -> Value:
        self.calls += 1
        if self.calls > MAX_CALLS:
            raise self.fail(at, f"written out, the model has more than {MAX_CALLS} operators")
        attributes = Attributes(name, node.attrs)
        try:
            known = self._known(name, args, attributes)
            if known is not None:
                return known
            return self.context_value(self.converters[name](self.context, args, attributes))
        except ImportModelError as error:
            raise RelayError(
                f"{name} at {self.graph.places[at]}: {error.message}", op=name
            ) from None
        except Exception as error:
            text = str(error).strip().splitlines()
            said = text[-1] if text else type(error).__name__
            raise RelayError(f"{name} at {self.graph.places[at]}: {said}", op=name) from error

    def _known(self, name: str, args: list[Value], attributes: Attributes) -> Value | None:
        """The result over sizes known at import, if it is one."""
        tensors = args[0] if name in sizes.TAKES_TUPLE and args else args
        if not isinstance(tensors, (list, tuple)) or not tensors:
            return None
        if not isinstance(tensors[0], relax.Expr):
            return None
        found = sizes.evaluate(name, [self.context.sizes(arg) for arg in tensors], attributes)
        if found is None:
            return None
        return self.context.of_sizes(found, _dtype(name, tensors, attributes))

    def context_value(self, value: Value) -> Value:
        """Bind what a converter returns, so that its type is known."""
        if isinstance(value, tuple):
            return tuple(self.context_value(item) for item in value)
        if isinstance(value, relax.Var) or self.context.value(value) is not None:
            return value
        return self.context.emit(value)

    def if_(self, frame: Frame) -> None:
        node = self.graph.nodes[frame.at]
        assert isinstance(node, If)
        branches = (node.then, node.other)
        if frame.stage == 0:
            if self.wants(frame, (node.cond,)):
                return
            known = self.context.value(frame.scope.find(node.cond))
            if known is not None:
                taken = node.then if known.any() else node.other
                if not self.wants(frame, (taken,)):
                    self.done(frame, frame.scope.find(taken))
                return
            if frame.scope.depth >= MAX_DEPTH:
                raise self.fail(frame.at, f"functions and branches nest deeper than {MAX_DEPTH}")
        else:
            frame.kept[-1] = self._end_branch(frame.kept[-1], branches[frame.stage - 1])
        if frame.stage < 2:
            self._begin_branch(frame, branches[frame.stage])
            return
        (then, shape), (other, other_shape) = frame.kept
        if shape != other_shape:
            raise self.fail(frame.at, "the branches of if give different tuples")
        builder = self.context.builder
        bound = builder.emit(relax.If(frame.scope.find(node.cond), then, other))
        if shape == 0:
            self.done(frame, bound)
            return
        fields = [builder.emit(relax.TupleGetItem(bound, index)) for index in range(_count(shape))]
        self.done(frame, _unflatten(shape, iter(fields)))

    def _begin_branch(self, frame: Frame, body: Id) -> None:
        self.context.builder._begin_binding_block()
        self.blocks += 1
        scope = Scope(frame.scope, frame.scope.depth + 1, frame.scope.function)
        frame.kept.append(scope)
        frame.stage += 1
        self.stack.append(Frame(body, scope))

    def _end_branch(self, scope: Scope, body: Id) -> tuple[relax.Expr, Any]:
        """What a branch binds and gives, and the nesting of what it gives."""
        builder = self.context.builder
        leaves: list[relax.Expr] = []
        shape = _flatten(scope.find(body), leaves)
        result = builder.emit(leaves[0] if shape == 0 else relax.Tuple(leaves))
        self.blocks -= 1
        return relax.SeqExpr([builder._end_block()], result), shape


def _dtype(name: str, tensors: Sequence[relax.Expr], attributes: Attributes) -> str:
    """The dtype of a result over sizes."""
    if name == "cast":
        return str(attributes.dtype)
    if name in sizes.COMPARISONS:
        return "bool"
    return dtype_of(tensors[1 if name in ("where", "cast_like") else 0])


def _flatten(value: Value, leaves: list[Any]) -> Any:
    """Tensors of nested tuples into ``leaves``; the nesting is returned."""
    if isinstance(value, tuple):
        return tuple(_flatten(item, leaves) for item in value)
    if not isinstance(value, relax.Expr):
        raise RelayError("a branch of if gives a function, which is not supported")
    leaves.append(value)
    return 0


def _count(shape: Any) -> int:
    return sum(map(_count, shape)) if isinstance(shape, tuple) else 1


def _unflatten(shape: Any, fields: Any) -> Value:
    if isinstance(shape, tuple):
        return tuple(_unflatten(item, fields) for item in shape)
    return next(fields)


_STEPS: dict[type, Callable[[Walker, Frame], None]] = {
    Constant: Walker.constant,
    Var: Walker.var,
    Operator: Walker.operator,
    Global: Walker.global_,
    Function: Walker.function,
    Tuple: Walker.tuple_,
    Item: Walker.item,
    Let: Walker.let,
    Call: Walker.call,
    If: Walker.if_,
}
