"""Cut a graph into regions, one device each, with every value moved to where it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import tvm
import tvm_ffi
from tvm import relax
from tvm.relax.expr import _update_type

from burnish.passes.cut_apart import BETWEEN, apart
from burnish.passes.params import get_params, num_inputs, with_params
from burnish.passes.place import Node, assign, computes, nodes, of_weights
from burnish.passes.regions import Region, label_regions, with_groups
from burnish.passes.support import Support
from burnish.passes.virtual_devices import on_device, virtual_devices, with_devices
from burnish.targets.hetero import HOST, HeteroTarget

DEVICE = "burnish.device"
"""Attribute of a region's function, and of its kernels: the device it is for."""
INPUTS = "burnish.inputs"
"""Attribute of a region's function: how many of its parameters are no weights."""


@tvm.transform.module_pass(opt_level=0, name="PartitionGraph")
@dataclass(frozen=True)
class PartitionGraph:
    """Give each operator of ``main`` its device, and each run of them a function of their own.

    1. ``placement`` maps names, operators and globs to devices; the rest goes to the first device
       of ``target`` that ``support`` says yes for (:func:`burnish.passes.place.assign`).
    2. Operators of one device become regions, as few as there can be with no path that leaves one
       and comes back (:mod:`burnish.passes.regions`); each is a function ``region0`` ... with the
       attribute ``burnish.device``.
    3. Inputs and outputs are in the host's memory. A value is moved once to each memory in which
       it is read; between two devices by way of the host's, unless they are GPUs of CUDA. A weight
       that two memories need is a parameter for each.
    4. Regions of devices that work at the same time, or while the host goes on, are more: none
       holds another up (:mod:`burnish.passes.cut_apart`). What a queued device can begin is called
       first, and what reads its results after what does not.
    5. Types say where a tensor is: virtual devices, in the order of ``target.memories``.

    A module that is cut already is left alone. Raises ``ValueError`` as :func:`assign` does, and
    for a ``main`` that is not pure.
    """

    target: HeteroTarget
    support: Mapping[str, Support]
    placement: Mapping[str, str] = field(default_factory=dict)

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        if is_cut(mod):
            return mod
        if not mod["main"].is_pure:
            raise ValueError(
                "the model calls a function with side effects, whose order a cut does not keep: "
                "compile it for one device"
            )
        whole = _in_one_block(mod)
        assigned = assign(nodes(whole), self.placement, self.support)
        return relax.transform.Normalize()(_Cut(whole, self.target, assigned).module())


def is_cut(mod: tvm.IRModule) -> bool:
    """Whether ``main`` calls regions."""
    return any(DEVICE in (func.attrs or {}) for func in _regions(mod).values())


def regions(mod: tvm.IRModule) -> dict[tvm.ir.GlobalVar, relax.Function]:
    """The regions of a module that is cut, in the order in which ``main`` calls them."""
    found = {var: f for var, f in _regions(mod).items() if DEVICE in (f.attrs or {})}
    calls = [
        binding.value.op
        for block in mod["main"].body.blocks
        for binding in block.bindings
        if isinstance(binding.value, relax.Call) and isinstance(binding.value.op, tvm.ir.GlobalVar)
    ]
    return {var: found[var] for var in calls if var in found}


def _regions(mod: tvm.IRModule) -> dict[tvm.ir.GlobalVar, relax.Function]:
    return {v: f for v, f in mod.functions.items() if isinstance(f, relax.Function)}


def _flat(main: relax.Function) -> list[relax.Binding]:
    return [binding for block in main.body.blocks for binding in block.bindings]


def _in_one_block(mod: tvm.IRModule) -> tvm.IRModule:
    """``main`` as one block, tuples written where they are read: what crosses is tensors."""
    main = mod["main"]
    made: dict[relax.Var, relax.Expr] = {}
    kept: list[relax.Binding] = []

    def plain(expr: relax.Expr) -> relax.Expr:
        return tvm_ffi.structural_map(expr, [(relax.Var, lambda var: made.get(var, var))])

    for binding in _flat(main):
        value, old = plain(binding.value), binding.var
        if isinstance(value, relax.TupleGetItem) and isinstance(value.tuple_value, relax.Tuple):
            value = value.tuple_value.fields[value.index]
        if isinstance(value, relax.Tuple | relax.Var) and isinstance(binding, relax.VarBinding):
            made[old] = value
            continue
        new = relax.Var(old.name, old.ty)
        made[old] = new
        if isinstance(binding, relax.MatchCast):
            kept.append(relax.MatchCast(new, value, binding.ty))
        else:
            kept.append(relax.VarBinding(new, value))
    result = plain(main.body.body)
    block = relax.BindingBlock(kept)
    body = relax.SeqExpr([block], result)
    new = relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)
    functions = {**dict(mod.functions.items()), mod.get_global_var("main"): new}
    return tvm.IRModule(functions, attrs=mod.attrs, global_infos=mod.global_infos)


class _Cut:
    """One module as it is cut: where each value is, and what moves it."""

    def __init__(
        self, mod: tvm.IRModule, target: HeteroTarget, assigned: Mapping[str, str]
    ) -> None:
        self.mod, self.target, self.assigned = mod, target, assigned
        self.memory = {one.name: one.memory for one in target.places}
        self.devices = virtual_devices(target)
        self.main = mod["main"]
        self.aside = of_weights(mod)
        self.bindings = [one for one in _flat(self.main) if one.var not in self.aside]
        count = num_inputs(mod)
        self.weights = dict.fromkeys(self.main.params[count:])
        self.params: dict[tuple[str, str], relax.Var] = {}
        self.inputs = [
            relax.Var(p.name, on_device(p.ty, self.devices[HOST])) for p in self.main.params[:count]
        ]
        self.at: dict[tuple[relax.Var, str], relax.Expr] = {
            (old, HOST): new for old, new in zip(self.main.params, self.inputs, strict=False)
        }
        self.where: dict[relax.Var, str] = dict.fromkeys(self.main.params[:count], HOST)
        self.functions: dict[tvm.ir.GlobalVar, relax.Function] = {}
        self.made: list[relax.Binding] = []

    def module(self) -> tvm.IRModule:
        label = self._label()
        if self.target.concurrent or self.target.queued:
            label = apart(self.bindings, label)
        cut = label_regions(self.bindings, label, self.main.body.body)
        first = {region.calls[0].var: region for region in cut}
        taken = {binding.var for region in cut for binding in region.calls}
        groups = [region.calls for region in cut]
        ordered = with_groups(self.bindings, groups, taken, self._queue(cut))
        for binding in ordered:
            if binding.var in first:
                self._region(first[binding.var], len(self.functions))
            elif binding.var not in taken:
                self._outside(binding)
        result = self._result(self.main.body.body)
        params = [*self.inputs, *self.params.values()]
        body = relax.SeqExpr([relax.BindingBlock(self.made)], result)
        ty = on_device(self.main.ret_ty, self.devices[HOST])
        main = relax.Function(params, body, ty, True, self.main.attrs)
        old = {v: f for v, f in self.mod.functions.items() if v.name_hint != "main"}
        functions = {self.mod.get_global_var("main"): main, **self.functions, **old}
        attrs = dict(self.mod.attrs.items()) if self.mod.attrs is not None else None
        new = tvm.IRModule(functions, attrs=attrs, global_infos=self.mod.global_infos)
        values = get_params(self.mod)
        stored = {
            var.name: values[name] for (name, _), var in self.params.items() if name in values
        }
        if values:
            new = with_params(new, stored)
        return with_devices(new, self.devices.values())

    def _queue(self, cut: Sequence[Region]) -> Callable[[relax.Binding], str]:
        """The memory of a queued device that a binding is computed in, or that it is a view of."""
        queued = {self.memory[name] for name in self.target.queued}
        found = {
            binding.var: self.memory[region.label.partition(BETWEEN)[0]]
            for region in cut
            for binding in region.calls
        }
        for binding in self.bindings:
            if binding.var not in found:
                read = [v for v in relax.analysis.free_vars(binding.value) if v in found]
                found[binding.var] = found[read[0]] if read else HOST
        return lambda binding: found[binding.var] if found[binding.var] in queued else ""

    def _label(self) -> Callable[[relax.Binding], str | None]:
        """The device of each binding; fields of a tuple go with the tuple."""
        own: dict[relax.Var, str] = {}

        def label(binding: relax.Binding) -> str | None:
            value = binding.value
            if isinstance(value, relax.TupleGetItem):
                found = own.get(value.tuple_value)
            elif computes(binding):
                found = self.assigned[str(binding.var.name)]
            elif isinstance(value, tvm.ir.Constant):
                found = next(iter(self.assigned.values()), self.target.places[0].name)
            else:
                found = None
            if found is not None:
                own[binding.var] = found
            return found

        return label

    def _region(self, region: Region, number: int) -> None:
        device = region.label.partition(BETWEEN)[0]
        memory = self.memory[device]
        inputs, aside = self._with_aside(region.inputs)
        read = sorted(inputs, key=lambda var: var in self.weights)
        arguments = [self._moved(var, memory) for var in read]
        own = {var: relax.Var(var.name, var.ty) for var in read}
        outputs = region.outputs
        result = outputs[0] if len(outputs) == 1 else relax.Tuple(list(outputs))
        body = relax.SeqExpr([relax.BindingBlock([*aside, *region.calls])], result)
        body = tvm_ffi.structural_map(body, [(relax.Var, lambda v: own.get(v, v))])
        params = list(own.values())
        ty = result.ty
        sizes = list(relax.analysis.free_symbolic_vars(relax.Function(params, body, ty, True)))
        place = sum(var not in self.weights for var in read)
        if sizes:
            params.insert(place, relax.Var("sizes", relax.ShapeType(sizes)))
            arguments.insert(place, relax.ShapeExpr(sizes))
            place += 1
        made = relax.Function(params, body, ty, True).with_attr({DEVICE: device, INPUTS: place})
        func = relax.utils.copy_with_new_vars(on_device(made, self.devices[memory]))
        var = tvm.ir.GlobalVar(f"region{number}")
        _update_type(var, func.ty)
        self.functions[var] = func
        call = relax.Call(var, arguments)
        if len(outputs) == 1:
            self._bound(outputs[0], call, memory)
            return
        types = relax.TupleType([on_device(one.ty, self.devices[memory]) for one in outputs])
        whole = relax.Var(f"{var.name_hint}_out", types)
        self.made.append(relax.VarBinding(whole, call))
        for place, output in enumerate(outputs):
            self._bound(output, relax.TupleGetItem(whole, place), memory)

    def _with_aside(
        self, inputs: Sequence[relax.Var]
    ) -> tuple[list[relax.Var], list[relax.VarBinding]]:
        """What to read in the place of values that follow from weights, and their bindings."""
        wanted: set[relax.Var] = set()
        read = dict.fromkeys(var for var in inputs if var not in self.aside)
        pending = [var for var in inputs if var in self.aside]
        while pending:
            var = pending.pop()
            if var in self.aside and var not in wanted:
                wanted.add(var)
                pending.extend(reversed(relax.analysis.free_vars(self.aside[var].value)))
            elif var not in self.aside:
                read[var] = None
        return list(read), [self.aside[var] for var in self.aside if var in wanted]

    def _bound(self, old: relax.Var, value: relax.Expr, memory: str) -> None:
        """Bind ``value``, which is in ``memory``, in the place of ``old``."""
        ty = on_device(old.ty, self.devices[memory])
        new = relax.Var(old.name, ty)
        self.made.append(relax.VarBinding(new, value))
        self.at[old, memory], self.where[old] = new, memory

    def _outside(self, binding: relax.Binding) -> None:
        """A view of a value, where the value is."""
        read = [v for v in relax.analysis.free_vars(binding.value) if not tvm.ir.is_prim_var(v)]
        memory = next((self.where.get(var, HOST) for var in read), HOST)
        value = self._with(binding.value, memory)
        if isinstance(binding, relax.MatchCast):
            ty = on_device(binding.ty, self.devices[memory])
            new = relax.Var(binding.var.name, ty)
            self.made.append(relax.MatchCast(new, value, ty))
            self.at[binding.var, memory], self.where[binding.var] = new, memory
        else:
            self._bound(binding.var, value, memory)

    def _with(self, expr: relax.Expr, memory: str) -> relax.Expr:
        def moved(var: relax.Var) -> relax.Expr:
            known = var in self.where or var in self.weights
            return self._moved(var, memory) if known else var

        return tvm_ffi.structural_map(expr, [(relax.Var, moved)])

    def _result(self, expr: relax.Expr) -> relax.Expr:
        """What ``main`` returns, on the host."""
        found = on_device(self._with(expr, HOST), self.devices[HOST])
        if isinstance(found, relax.Var):
            return found
        out = relax.Var("outputs", found.ty)
        self.made.append(relax.VarBinding(out, found))
        return out

    def _moved(self, var: relax.Var, memory: str) -> relax.Expr:
        """``var`` in ``memory``: moved there, if it is not yet."""
        if (var, memory) in self.at:
            return self.at[var, memory]
        device = self.devices[memory]
        if var in self.weights:
            first = all(name != var.name for name, _ in self.params)
            name = var.name if first else f"{var.name}@{memory}"
            found = relax.Var(name, on_device(var.ty, device))
            self.params[var.name, memory] = found
        elif not isinstance(var.ty, relax.TensorType):
            found = self.at[var, self.where[var]]
        else:
            source = self.where[var]
            if not _direct(source, memory):
                source = HOST
            move = relax.op.to_vdevice(self._moved(var, source), device)
            found = relax.Var(f"{var.name}_on_{memory.replace(':', '')}", on_device(var.ty, device))
            self.made.append(relax.VarBinding(found, move))
        self.at[var, memory] = found
        return found


def _direct(source: str, memory: str) -> bool:
    """Whether a value goes from one memory to another without a stop on the host."""
    kinds = {source.partition(":")[0], memory.partition(":")[0]}
    return "cpu" in kinds or kinds == {"cuda"}


__all__ = ["DEVICE", "INPUTS", "Node", "PartitionGraph", "is_cut", "regions"]
