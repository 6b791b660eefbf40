"""One stage of a graph that is cut, as a module of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import tvm
import tvm_ffi
from tvm import relax

from burnish.passes.params import NUM_INPUT, PARAMS, get_params, weight_vars
from burnish.passes.stage_graph import StageGraph, crosses


@dataclass(frozen=True)
class Stage:
    """A stage: ``main`` of ``mod`` takes the values ``takes``, then its own weights.

    It returns a tuple of ``gives``. ``computes`` are the bindings of the whole graph that run in
    it and in no earlier one. Values are named as the bindings, inputs and fields (``split.0``)
    that they are.
    """

    mod: tvm.IRModule
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    computes: tuple[str, ...]


class StageBuilder:
    """One stage: the bindings from ``start`` to ``end``, as far as anything reads them."""

    def __init__(self, graph: StageGraph, start: int, end: int) -> None:
        self.graph, self.start, self.end = graph, start, end
        self.wanted: set[int] = set()
        self.taken: dict[relax.Var, None] = {}
        self.weights: set[relax.Var] = set()

    def stage(self, last: bool, results: Sequence[relax.Expr]) -> Stage:
        """The stage; the ``last`` one also gives what ``results`` compute of others' values."""
        graph = self.graph
        given = self._gives(last, results)
        if not given:
            raise ValueError(
                f"the stage from {graph.names[self.start]!r} to {graph.names[self.end - 1]!r} "
                "makes nothing that a later one or the model's outputs read: cut elsewhere"
            )
        self._want(v for value in given.values() for v in relax.analysis.free_vars(value))
        return self._made(given)

    def _gives(self, last: bool, results: Sequence[relax.Expr]) -> dict[str, relax.Expr]:
        """Values by name that later stages or the results read."""
        graph = self.graph
        read = {v for at in range(self.end, len(graph.bindings)) for v in graph.read[at]}
        read = graph.closed(read)
        read |= {v for value in results for v in relax.analysis.free_vars(value)}
        given: dict[str, relax.Expr] = {}
        for binding in graph.bindings[self.start : self.end]:
            if binding.var not in graph.again and binding.var in read:
                given.update(_leaves(graph.name[binding.var], binding.var))
        for at, value in enumerate(results if last else []):
            name = graph.result_name(value, at)
            if name == f"result.{at}":
                given.update(_leaves(name, value))
        return given

    def _want(self, variables: Iterator[relax.Var]) -> None:
        """Note the bindings that run in the stage, the values it takes, and its weights."""
        pending = list(variables)
        graph = self.graph
        while pending:
            var = pending.pop()
            at = graph.place.get(var)
            if var in graph.weights:
                self.weights.add(var)
            elif at is None or (at < self.start and var not in graph.again):
                if not tvm.ir.is_prim_var(var):  # sizes come with the shapes that tell them
                    self.taken.setdefault(var)
            elif at not in self.wanted:
                self.wanted.add(at)
                pending.extend(graph.read[at])

    def _made(self, given: Mapping[str, relax.Expr]) -> Stage:
        graph = self.graph
        block: list[relax.Binding] = []
        new: dict[relax.Var, relax.Var] = {}
        takes = self._takes(new, block)
        held = [v for v in weight_vars(graph.mod) if v in self.weights]
        new.update((var, relax.Var(var.name, var.ty)) for var in held)

        def renamed(expr: relax.Expr) -> relax.Expr:
            return tvm_ffi.structural_map(expr, [(relax.Var, lambda v: new.get(v, v))])

        for at in sorted(self.wanted):
            binding = graph.bindings[at]
            new[binding.var] = self._inner(binding.var.name, binding.var.ty)
            value = renamed(binding.value)
            if isinstance(binding, relax.MatchCast):
                block.append(relax.MatchCast(new[binding.var], value, binding.ty))
            else:
                block.append(relax.VarBinding(new[binding.var], value))
        fields = [relax.Var(name, value.ty) for name, value in given.items()]
        for var, value in zip(fields, given.values(), strict=True):
            block.append(relax.VarBinding(var, renamed(value)))
        make = relax.DataflowBlock if graph.dataflow else relax.BindingBlock
        func = relax.Function(
            [*takes.values(), *(new[var] for var in held)],
            relax.SeqExpr([make(block)], relax.Tuple(fields)),
            relax.TupleType([field.ty for field in fields]),
            graph.main.is_pure,
            graph.main.attrs,
        ).with_attr(NUM_INPUT, len(takes))
        names = tuple(graph.names[at] for at in sorted(self.wanted) if at >= self.start)
        free = relax.analysis.free_symbolic_vars(func)
        if free:
            raise ValueError(
                f"the stage from {names[0]!r} reads the open sizes {[v.name for v in free]}, which "
                "none of its inputs tells: give the model fixed sizes, or cut elsewhere"
            )
        return Stage(self._module(func), tuple(takes), tuple(given), names)

    def _takes(
        self, new: dict[relax.Var, relax.Var], block: list[relax.Binding]
    ) -> dict[str, relax.Var]:
        """Parameters by name; in ``new``, what stands for the values taken."""
        graph = self.graph
        takes: dict[str, relax.Var] = {}
        order = {**dict.fromkeys(graph.inputs, -1), **graph.place}
        for var in sorted(self.taken, key=lambda v: (order[v], v.name)):
            if not crosses(var.ty):
                raise ValueError(
                    f"{graph.name[var]!r} is {var.ty}: only tensors go from stage to stage; "
                    "cut where none such is alive"
                )
            new[var] = self._param(graph.name[var], var.ty, takes, block)
        return takes

    def _param(
        self,
        name: str,
        ty: tvm.ir.Type,
        takes: dict[str, relax.Var],
        block: list[relax.Binding],
    ) -> relax.Var:
        """A parameter, or a tuple bound to the parameters of its fields."""
        if not isinstance(ty, relax.TupleType):
            takes[name] = relax.Var(name, ty)
            return takes[name]
        fields = [self._param(f"{name}.{at}", f, takes, block) for at, f in enumerate(ty.fields)]
        var = self._inner(name, ty)
        block.append(relax.VarBinding(var, relax.Tuple(fields)))
        return var

    @property
    def _inner(self) -> type[relax.Var]:
        """The kind of a variable that is not given on."""
        return relax.DataflowVar if self.graph.dataflow else relax.Var

    def _module(self, func: relax.Function) -> tvm.IRModule:
        """The whole graph's module with ``func`` in its place, and its weights alone."""
        mod = self.graph.mod
        functions = dict(mod.functions.items())
        functions[mod.get_global_var("main")] = func
        values = get_params(mod)
        own = {var.name for var in self.weights}
        attrs = dict(mod.attrs.items()) if mod.attrs is not None else {}
        attrs[PARAMS] = {name: value for name, value in values.items() if name in own}
        whole = tvm.IRModule(functions, attrs=attrs, global_infos=dict(mod.global_infos.items()))
        whole = relax.transform.Normalize()(whole)
        whole = relax.transform.CanonicalizeBindings()(whole)
        return relax.transform.DeadCodeElimination(["main"])(whole)


def _leaves(name: str, value: relax.Expr) -> dict[str, relax.Expr]:
    """The tensors of a value by name; those of a tuple are ``name.0``, ``name.1``, ..."""
    if isinstance(value.ty, relax.TupleType):
        found = {}
        for at, _ in enumerate(value.ty.fields):
            field = value.fields[at] if isinstance(value, relax.Tuple) else None
            item = field if field is not None else relax.TupleGetItem(value, at)
            found.update(_leaves(f"{name}.{at}", item))
        return found
    return {name: value}


__all__ = ["Stage", "StageBuilder"]
