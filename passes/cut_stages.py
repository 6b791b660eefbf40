"""Cut a graph into consecutive stages, each a module of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import tvm
import tvm_ffi
from tvm import relax

from burnish.passes.graph import op_name
from burnish.passes.params import NUM_INPUT, PARAMS, get_params, input_vars, weight_vars, with_main

OPAQUE = ("relax.call_", "relax.invoke_", "relax.vm.", "relax.builtin.", "relax.random.")
"""Operators that may give another value when they run again."""


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


@dataclass(frozen=True)
class Cut:
    """Stages in order, and the names of the model's ``inputs`` and ``results`` among the values.

    A value is made once and read by any later stage: what only passes through a stage is none of
    its business.
    """

    stages: tuple[Stage, ...]
    inputs: tuple[str, ...]
    results: tuple[str, ...]


def binding_names(mod: tvm.IRModule) -> tuple[str, ...]:
    """The names by which :func:`cut_stages` knows the bindings of ``main``, in program order."""
    return _Graph(mod).names


def in_order_of_stages(
    mod: tvm.IRModule, stages: Mapping[relax.Var, int]
) -> tuple[tvm.IRModule, tuple[int, ...]]:
    """``main`` with the bindings of stage 0 first, then those of 1, ..., and where they end.

    A binding that ``stages`` has not comes as early as what it reads allows. Raises
    ``ValueError`` where a binding reads one of a later stage.
    """
    main = mod["main"]
    everything = [b for block in main.body.blocks for b in block.bindings]
    found: dict[relax.Var, int] = {}
    last = max(stages.values(), default=0)
    for binding in everything:
        read = [found[v] for v in relax.analysis.free_vars(binding.value) if v in found]
        least = max(read, default=0)
        stage = stages.get(binding.var, least)
        if main.body.body.same_as(binding.var):
            stage = last
        if stage < least:
            raise ValueError(
                f"{binding.var.name!r} is of stage {stage} and reads a value of stage {least}"
            )
        found[binding.var] = stage
    ordered = sorted(everything, key=lambda b: found[b.var])
    dataflow = all(isinstance(block, relax.DataflowBlock) for block in main.body.blocks)
    block = (relax.DataflowBlock if dataflow else relax.BindingBlock)(ordered)
    body = relax.SeqExpr([block], main.body.body)
    func = relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)
    points = [sum(found[b.var] <= stage for b in ordered) for stage in range(last)]
    return with_main(mod, func), tuple(points)


def cut_stages(mod: tvm.IRModule, points: Sequence[int | str]) -> Cut:
    """``main`` cut after each of ``points``; the argument is untouched.

    A point is how many bindings come before the cut, or the name of the last of them.

    1. A binding runs in one stage, save those of rules 2 and 3.
    2. What depends on constants and weights alone (a mask, a transposed weight) is computed where
       it is read: moving it costs more.
    3. Sizes (shapes and scalars of the graph) are computed again: they are no tensors.
    4. A tuple crosses a cut as its fields.

    Raises ``ValueError`` for points that are no cut, for a value that cannot cross one, and for a
    stage that reads an open size which none of its inputs tells.
    """
    graph = _Graph(mod)
    edges = [0, *_positions(graph.names, points), len(graph.names)]
    stages = []
    ranges = list(pairwise(edges))
    results = graph.results()
    for number, (start, end) in enumerate(ranges):
        stages.append(_Builder(graph, start, end).stage(number == len(ranges) - 1, results))
    return Cut(
        tuple(stages),
        tuple(var.name for var in graph.inputs),
        tuple(graph.result_name(value, at) for at, value in enumerate(results)),
    )


def _positions(names: Sequence[str], points: Sequence[int | str]) -> list[int]:
    found: list[int] = []
    for point in points:
        if isinstance(point, str):
            if point not in names:
                raise ValueError(
                    f"no binding {point!r:.80} to cut after; there are {len(names)}, "
                    f"from {names[0]!r} to {names[-1]!r}"
                )
            at = names.index(point) + 1
        else:
            at = int(point)
        if not (found[-1] if found else 0) < at < len(names):
            raise ValueError(
                f"cut points must rise from 1 to {len(names) - 1}, so that each stage has a "
                f"binding; got {list(points)}"
            )
        found.append(at)
    return found


class _Graph:
    """``main`` as a list of bindings, and what is known of each value."""

    def __init__(self, mod: tvm.IRModule) -> None:
        self.mod, self.main = mod, mod["main"]
        body = self.main.body
        everything = [b for block in body.blocks for b in block.bindings]
        self.dataflow = all(isinstance(block, relax.DataflowBlock) for block in body.blocks)
        bound = {binding.var: binding for binding in everything}
        self.body = body.body
        while isinstance(self.body, relax.Var) and self.body in bound:
            value = getattr(bound[self.body], "value", None)
            if not isinstance(value, relax.Tuple | relax.Var):
                break
            self.body = value
        last = everything[-1] if everything else None
        if last is not None and isinstance(getattr(last, "value", None), relax.Tuple):
            everything = everything[:-1] if body.body.same_as(last.var) else everything
        self.bindings = everything
        self.inputs, self.weights = input_vars(mod), set(weight_vars(mod))
        self.names = _unique([b.var.name for b in everything], {v.name for v in self.main.params})
        self.place = {binding.var: at for at, binding in enumerate(everything)}
        self.name = {b.var: n for b, n in zip(everything, self.names, strict=True)}
        self.name.update((var, var.name) for var in self.inputs)
        self.read = [tuple(relax.analysis.free_vars(b.value)) for b in everything]
        self.again: set[relax.Var] = set()
        for binding, read in zip(everything, self.read, strict=True):
            fixed = all(v in self.again or v in self.weights for v in read)
            if not _crosses(binding.var.ty) or (fixed and _repeatable(binding)):
                self.again.add(binding.var)

    def results(self) -> list[relax.Expr]:
        return list(self.body.fields) if isinstance(self.body, relax.Tuple) else [self.body]

    def result_name(self, value: relax.Expr, at: int) -> str:
        known = isinstance(value, relax.Var) and value in self.name and value not in self.again
        return self.name[value] if known else f"result.{at}"


class _Builder:
    """One stage: the bindings from ``start`` to ``end``, as far as anything reads them."""

    def __init__(self, graph: _Graph, start: int, end: int) -> None:
        self.graph, self.start, self.end = graph, start, end
        self.wanted: set[int] = set()
        self.taken: dict[relax.Var, None] = {}
        self.weights: set[relax.Var] = set()

    def stage(self, last: bool, results: Sequence[relax.Expr]) -> Stage:
        graph = self.graph
        later = {v for at in range(self.end, len(graph.bindings)) for v in graph.read[at]}
        later = _closed(graph, later)
        asked = {v for value in results for v in relax.analysis.free_vars(value)}
        given: dict[str, relax.Expr] = {}
        for binding in graph.bindings[self.start : self.end]:
            if binding.var in graph.again:
                continue
            if binding.var in later or (binding.var in asked):
                given.update(_leaves(graph.name[binding.var], binding.var))
        if last:
            for at, value in enumerate(results):
                name = graph.result_name(value, at)
                if name == f"result.{at}":
                    given.update(_leaves(name, value))
        if not given:
            raise ValueError(
                f"the stage from {graph.names[self.start]!r} to {graph.names[self.end - 1]!r} "
                "makes nothing that a later one or the model's outputs read: cut elsewhere"
            )
        self._want(v for value in given.values() for v in relax.analysis.free_vars(value))
        return self._made(given)

    def _want(self, variables: Iterator[relax.Var]) -> None:
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
        order = {**dict.fromkeys(graph.inputs, -1), **graph.place}
        takes: dict[str, relax.Var] = {}
        block: list[relax.Binding] = []
        new: dict[relax.Var, relax.Var] = {}
        inner = relax.DataflowVar if graph.dataflow else relax.Var
        for var in sorted(self.taken, key=lambda v: (order[v], v.name)):
            if not _crosses(var.ty):
                raise ValueError(
                    f"{graph.name[var]!r} is {var.ty}: only tensors go from stage to stage; "
                    "cut where none such is alive"
                )
            new[var] = _param(graph.name[var], var.ty, takes, block, inner)
        held = [v for v in weight_vars(graph.mod) if v in self.weights]
        new.update((var, relax.Var(var.name, var.ty)) for var in held)

        def renamed(expr: relax.Expr) -> relax.Expr:
            mapping = lambda v: new.get(v, v)  # noqa: E731
            return tvm_ffi.structural_map(expr, [(relax.Var, mapping)])

        for at in sorted(self.wanted):
            binding = graph.bindings[at]
            new[binding.var] = inner(binding.var.name, binding.var.ty)
            block.append(_rebound(binding, new[binding.var], renamed))
        fields = []
        for name, value in given.items():
            var = relax.Var(name, value.ty)
            block.append(relax.VarBinding(var, renamed(value)))
            fields.append(var)
        make = relax.DataflowBlock if graph.dataflow else relax.BindingBlock
        result = relax.Tuple(fields)
        params = [*takes.values(), *(new[var] for var in held)]
        names = tuple(graph.names[at] for at in sorted(self.wanted) if at >= self.start)
        func = relax.Function(
            params,
            relax.SeqExpr([make(block)], result),
            relax.TupleType([field.ty for field in fields]),
            self.graph.main.is_pure,
            self.graph.main.attrs,
        ).with_attr(NUM_INPUT, len(takes))
        free = relax.analysis.free_symbolic_vars(func)
        if free:
            raise ValueError(
                f"the stage from {names[0]!r} reads the open sizes {[v.name for v in free]}, which "
                "none of its inputs tells: give the model fixed sizes, or cut elsewhere"
            )
        return Stage(self._module(func), tuple(takes), tuple(given), names)

    def _module(self, func: relax.Function) -> tvm.IRModule:
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


def _closed(graph: _Graph, variables: set[relax.Var]) -> set[relax.Var]:
    """With what is read by those that are computed again where they are read."""
    pending, found = list(variables), set(variables)
    while pending:
        var = pending.pop()
        if var in graph.again:
            fresh = set(graph.read[graph.place[var]]) - found
            found |= fresh
            pending.extend(fresh)
    return found


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


def _param(
    name: str,
    ty: tvm.ir.Type,
    takes: dict[str, relax.Var],
    block: list[relax.Binding],
    inner: type[relax.Var],
) -> relax.Var:
    """A parameter, or a tuple bound to the parameters of its fields."""
    if not isinstance(ty, relax.TupleType):
        takes[name] = relax.Var(name, ty)
        return takes[name]
    fields = [_param(f"{name}.{at}", f, takes, block, inner) for at, f in enumerate(ty.fields)]
    var = inner(name, ty)
    block.append(relax.VarBinding(var, relax.Tuple(fields)))
    return var


def _rebound(binding: relax.Binding, var: relax.Var, renamed: object) -> relax.Binding:
    value = renamed(binding.value)  # type: ignore[operator]
    if isinstance(binding, relax.MatchCast):
        return relax.MatchCast(var, value, binding.ty)
    return relax.VarBinding(var, value)


def _crosses(ty: tvm.ir.Type) -> bool:
    """Whether a value is a tensor, or a tuple of them."""
    if isinstance(ty, relax.TupleType):
        return all(map(_crosses, ty.fields))
    return isinstance(ty, relax.TensorType)


def _repeatable(binding: relax.Binding) -> bool:
    value = binding.value
    if isinstance(value, relax.Call):
        name = op_name(value)
        return bool(name) and not name.startswith(OPAQUE)
    return isinstance(value, relax.Tuple | relax.TupleGetItem | relax.Var | tvm.ir.Constant)


def _unique(names: Sequence[str], taken: set[str]) -> tuple[str, ...]:
    """The names, those that were there before with a number after them."""
    used, found = set(taken), []
    for name in names:
        new, count = name, 1
        while new in used:
            count += 1
            new = f"{name}_{count}"
        used.add(new)
        found.append(new)
    return tuple(found)


__all__ = ["Cut", "Stage", "binding_names", "cut_stages", "in_order_of_stages"]
