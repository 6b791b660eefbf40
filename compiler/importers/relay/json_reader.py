"""``tvm.ir.save_json`` of a Relay module -> :class:`Graph`."""

from __future__ import annotations

from typing import Any

from burnish.compiler.importers.relay.arrays import decode_array
from burnish.compiler.importers.relay.attributes import complete, is_operator
from burnish.compiler.importers.relay.graph import (
    Call,
    Constant,
    Function,
    FunctionType,
    Global,
    Graph,
    GraphBuilder,
    If,
    Item,
    Let,
    Operator,
    RelayError,
    TensorType,
    Tuple,
    TupleType,
    Type,
    Var,
    entry_of,
)
from burnish.compiler.importers.relay.json_nodes import Nodes

ADT_KEYS = ("relay.Match", "relay.Constructor", "Constructor", "relay.TypeData", "TypeCall")
REFERENCE_KEYS = ("relay.RefCreate", "relay.RefRead", "relay.RefWrite")
OPEN = -1
MAX_TYPE_DEPTH = 64


def read_json(data: bytes, what: str = "the file") -> Graph:
    """The module's ``main`` and what it calls; raises :class:`RelayError` with what is wrong."""
    return _Reader(Nodes(data, what)).graph()


class _Reader:
    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.made = GraphBuilder()
        self.ids: dict[int, int] = {}
        self.types: dict[int, Type] = {}
        self.spans: dict[int, str] = {}

    def graph(self) -> Graph:
        functions = self._functions()
        entry = entry_of(list(functions))
        done: dict[str, int] = {}
        wanted = [entry]
        while wanted:
            name = wanted.pop()
            if name in done:
                continue
            if name not in functions:
                raise RelayError(f"{self.nodes.what} calls @{name}, which it does not define")
            first = len(self.made.nodes)
            done[name] = self._read(self.nodes.expect(functions[name], "relay.Function"))
            wanted += [n.name for n in self.made.nodes[first:] if isinstance(n, Global)]
        return self.made.graph(done, entry)

    def _functions(self) -> dict[str, int]:
        nodes, root = self.nodes, self.nodes.root
        if nodes.key(root) == "relay.Function":
            return {"main": root}
        if nodes.key(root) != "IRModule":
            raise RelayError(
                f"{nodes.what} holds {nodes.key(root) or 'nothing'}, no module: save the IRModule "
                "with tvm.ir.save_json"
            )
        found: dict[str, int] = {}
        for key, value in nodes.pairs(nodes.ref(root, "functions")):
            if isinstance(key, str):
                raise RelayError(f"{nodes.what}: the functions must be a map from GlobalVar")
            name = nodes.string(nodes.ref(nodes.expect(key, "GlobalVar"), "name_hint"))
            found[name or nodes.text(key, "name_hint")] = value
        if found and all(nodes.key(v).startswith(("relax.", "tir.")) for v in found.values()):
            raise RelayError(f"{nodes.what} is a module of Relax or TIR, no Relay")
        return found

    def _read(self, root: int) -> int:
        """Add what ``root`` needs, children first, by a stack: files may nest at will."""
        state = self.ids
        stack = [root]
        while stack:
            at = stack[-1]
            known = state.get(at)
            if known is not None and known >= 0:
                stack.pop()
                continue
            if known is None:
                state[at] = OPEN
                for child in reversed(self._children(at)):
                    seen = state.get(child)
                    if seen == OPEN:
                        raise RelayError(
                            f"{self.nodes.what} has a cycle: node {child} contains itself by way "
                            f"of node {at}"
                        )
                    if seen is None:
                        stack.append(child)
                continue
            state[at] = self.made.add(self._node(at), self._place(at), self._result(at))
            stack.pop()
        return state[root]

    def _children(self, at: int) -> list[int]:
        nodes = self.nodes
        key = nodes.key(at)
        match key:
            case "relay.Var" | "relay.Constant" | "Op" | "GlobalVar":
                return []
            case "relay.Call":
                return [self._some(at, "op"), *nodes.items(nodes.ref(at, "args"))]
            case "relay.Tuple":
                return nodes.items(nodes.ref(at, "fields"))
            case "relay.TupleGetItem":
                return [self._some(at, "tuple_value")]
            case "relay.Let":
                var = nodes.expect(nodes.ref(at, "var"), "relay.Var")
                return [var, self._some(at, "value"), self._some(at, "body")]
            case "relay.If":
                return [self._some(at, n) for n in ("cond", "true_branch", "false_branch")]
            case "relay.Function":
                params = nodes.items(nodes.ref(at, "params"))
                return [*(nodes.expect(p, "relay.Var") for p in params), self._some(at, "body")]
        if key in ADT_KEYS:
            raise RelayError(
                f"{nodes.what}: node {at} is {key}: algebraic data types and match are not "
                "supported; export the model without them (lists as tensors, loops unrolled)"
            )
        if key in REFERENCE_KEYS:
            raise RelayError(f"{nodes.what}: node {at} is {key}: references are not supported")
        raise RelayError(
            f"{nodes.what}: node {at} is {key or 'null'}, where an expression is expected"
        )

    def _some(self, at: int, name: str) -> int:
        other = self.nodes.ref(at, name)
        if other == 0:
            raise RelayError(f"{self.nodes.what}: node {at} ({self.nodes.key(at)}) lacks {name}")
        return other

    def _node(self, at: int) -> Any:
        nodes, ids = self.nodes, self.ids
        match nodes.key(at):
            case "relay.Var":
                return Var(self._var_name(at), self._var_type(at))
            case "relay.Constant":
                return Constant(self._array(at))
            case "Op":
                return Operator(nodes.string(at))
            case "GlobalVar":
                return Global(self._name(at, "name_hint"))
            case "relay.Call":
                args = tuple(ids[n] for n in nodes.items(nodes.ref(at, "args")))
                return Call(ids[nodes.ref(at, "op")], args, self._call_attrs(at))
            case "relay.Tuple":
                return Tuple(tuple(ids[n] for n in nodes.items(nodes.ref(at, "fields"))))
            case "relay.TupleGetItem":
                return Item(ids[nodes.ref(at, "tuple_value")], nodes.number(at, "index"))
            case "relay.Let":
                return Let(*(ids[nodes.ref(at, n)] for n in ("var", "value", "body")))
            case "relay.If":
                names = ("cond", "true_branch", "false_branch")
                return If(*(ids[nodes.ref(at, n)] for n in names))
        params = tuple(ids[n] for n in nodes.items(nodes.ref(at, "params")))
        return Function(params, ids[nodes.ref(at, "body")], self._marks(nodes.ref(at, "attrs")))

    def _name(self, at: int, field: str) -> str:
        ref = self.nodes.ref(at, field)
        return self.nodes.string(self.nodes.expect(ref, "runtime.String"))

    def _var_name(self, at: int) -> str:
        vid = self.nodes.expect(self.nodes.ref(at, "vid"), "relay.Id")
        return self._name(vid, "name_hint")

    def _var_type(self, at: int) -> Type:
        for name in ("type_annotation", "_checked_type_"):
            found = self.nodes.ref(at, name)
            if found:
                return self._type(found)
        return None

    def _type(self, at: int, depth: int = 0) -> Type:
        nodes = self.nodes
        if depth > MAX_TYPE_DEPTH:
            raise RelayError(f"{nodes.what}: types nest deeper than {MAX_TYPE_DEPTH}")
        if at not in self.types:
            match nodes.key(at):
                case "relay.TensorType":
                    shape = nodes.value(nodes.expect(nodes.ref(at, "shape"), "Array"))
                    sizes = tuple(n if isinstance(n, int) else None for n in shape)
                    if any(n is not None and n < 0 for n in sizes):
                        raise RelayError(f"{nodes.what}: node {at} has the shape {sizes}")
                    self.types[at] = TensorType(sizes, nodes.text(at, "dtype"))
                case "TupleType" | "relay.TupleType":
                    fields = nodes.items(nodes.ref(at, "fields"))
                    self.types[at] = TupleType.of(tuple(self._type(n, depth + 1) for n in fields))
                case "FuncType" | "relay.FuncType":
                    self.types[at] = FunctionType()
                case _:
                    self.types[at] = None
        return self.types[at]

    def _result(self, at: int) -> Type:
        """What the file says of a call's result."""
        found = self.nodes.ref(at, "_checked_type_") if self.nodes.key(at) == "relay.Call" else 0
        return self._type(found) if found else None

    def _array(self, at: int) -> Any:
        index = self.nodes.number(at, "data")
        if not 0 <= index < len(self.nodes.arrays):
            raise RelayError(
                f"{self.nodes.what}: node {at} is array {index}; there are "
                f"{len(self.nodes.arrays)} in b64ndarrays"
            )
        return decode_array(self.nodes.arrays[index], f"{self.nodes.what}: array {index}")

    def _call_attrs(self, at: int) -> dict[str, Any]:
        nodes, op = self.nodes, self.nodes.ref(at, "op")
        attrs = nodes.ref(at, "attrs")
        if nodes.key(op) != "Op":
            return {}
        name = nodes.string(op)
        if not is_operator(name):
            return {}
        try:
            return complete(name, nodes.attributes(attrs) if attrs else {})
        except RelayError as error:
            raise RelayError(f"{nodes.what}: node {at}: {error.message}") from None

    def _marks(self, at: int) -> dict[str, Any]:
        if not at or self.nodes.key(at) != "DictAttrs":
            return {}
        found = self.nodes.ref(at, "__dict__")
        pairs = self.nodes.pairs(found) if found else []
        return {str(k): self.nodes.value(v) for k, v in pairs if isinstance(k, str)}

    def _place(self, at: int) -> str:
        span = self.nodes.ref(at, "span") if "span" in self.nodes.attrs(at) else 0
        if not span or self.nodes.key(span) != "Span":
            return f"node {at}"
        if span not in self.spans:
            source = self.nodes.ref(span, "source_name")
            self.spans[span] = self.nodes.string(source) if source else ""
        return f"node {at}, {self.spans[span]}" if self.spans[span] else f"node {at}"


__all__ = ["read_json"]
