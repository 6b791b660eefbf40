"""Each region of a cut graph as a module of its own, lowered for its device, and put back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.ir import GlobalVar
from tvm.relax.expr import _update_type

from burnish.passes.make_dataflow import MakeDataflow
from burnish.passes.params import NUM_INPUT, get_params, num_inputs, with_params
from burnish.passes.partition_graph import DEVICE, INPUTS, regions
from burnish.passes.virtual_devices import module_devices, on_device, with_devices
from burnish.targets.hetero import HeteroTarget, Place

REGION = "burnish.region"
"""Attribute of ``main`` of a region's module: the region's name."""
Passes = Sequence[tvm.ir.transform.Pass]


@tvm.transform.module_pass(opt_level=0, name="LowerRegions")
@dataclass(frozen=True)
class LowerRegions:
    """Run each region through the passes of its device, as ``main`` of a module of its own.

    1. Within such a module tensors say nothing of devices: all are on one.
    2. Kernels that come out the same for one device are one kernel; each says in the attribute
       ``burnish.device`` what it is for.
    3. A weight that passes left as it was stays one parameter for each memory it is read in.
    """

    target: HeteroTarget
    passes: Mapping[str, Passes]

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        merged = _Merged(mod)
        for var, func in regions(mod).items():
            device = self.target.place(str(func.attrs[DEVICE]))
            one = region_module(mod, var)
            with device.target.tvm():
                for step in self.passes[device.name]:
                    one = step(one)
            merged.add(var, device, one)
        return merged.module()


def region_module(mod: tvm.IRModule, region: GlobalVar) -> tvm.IRModule:
    """The region as ``main`` of a module with what it calls and the weights it is called with."""
    func = mod[region]
    functions: dict[GlobalVar, Any] = {}
    pending = [func]
    while pending:
        for var in _called(pending.pop()):
            if var not in functions:
                functions[var] = mod[var]
                pending.append(mod[var])
    call = _calls(mod)[region]
    values = get_params(mod)
    given = zip(func.params, call.args, strict=True)
    weights = {
        param.name: values[arg.name]
        for place, (param, arg) in enumerate(given)
        if place >= int(func.attrs[INPUTS])
    }
    main = func.with_attr({"global_symbol": "main", NUM_INPUT: int(func.attrs[INPUTS])})
    main = main.with_attr(REGION, region.name_hint)
    main = main.without_attr(DEVICE).without_attr(INPUTS)
    # The types of variables are of functions as they are; those change.
    own = {var: GlobalVar(var.name_hint) for var, one in functions.items() if _is_graph(one)}
    plain = {GlobalVar("main"): _plain(main, own)}
    for var, one in functions.items():
        plain[own.get(var, var)] = _plain(one, own)
        if var in own:
            _update_type(own[var], plain[own[var]].ty)
    dataflow = tvm.transform.Sequential([MakeDataflow(least=1)])
    return dataflow(with_params(tvm.IRModule(plain), weights))


def _is_graph(func: Any) -> bool:
    return isinstance(func, relax.Function)


def _plain(func: Any, names: Mapping[GlobalVar, GlobalVar]) -> Any:
    """A function that says nothing of devices, and calls others by these names."""
    if not _is_graph(func):
        return func
    return tvm_ffi.structural_map(
        on_device(func, None), [(GlobalVar, lambda var: names.get(var, var))]
    )


def _calls(mod: tvm.IRModule) -> dict[GlobalVar, relax.Call]:
    return {
        binding.value.op: binding.value
        for block in mod["main"].body.blocks
        for binding in block.bindings
        if isinstance(binding.value, relax.Call) and isinstance(binding.value.op, GlobalVar)
    }


def _called(func: Any) -> list[GlobalVar]:
    found: dict[GlobalVar, None] = {}

    def visit(var: GlobalVar) -> None:
        found[var] = None

    body = func.body
    tvm_ffi.structural_walk(body, [(GlobalVar, visit)], order="post")
    return list(found)


class _Merged:
    """The module that regions are put back into."""

    def __init__(self, mod: tvm.IRModule) -> None:
        self.mod = mod
        self.devices = module_devices(mod)
        self.calls = _calls(mod)
        self.functions: dict[GlobalVar, Any] = {}
        self.names: set[str] = {"main", *(var.name_hint for var in regions(mod))}
        self.kernels: dict[tuple[str, int], list[GlobalVar]] = {}
        self.params: dict[str, relax.Var] = {}
        self.values: dict[str, tvm.runtime.Tensor] = {}
        self.known: dict[tuple[str, str], list[str]] = {}
        self.made: dict[GlobalVar, relax.Call] = {}

    def add(self, region: GlobalVar, place: Place, one: tvm.IRModule) -> None:
        """Put the functions of a region's module back, by names that nothing else has."""
        device, memory = place.name, place.memory
        old = self.calls[region]
        renamed: dict[GlobalVar, GlobalVar] = {}
        main = one.get_global_var("main")
        kernels = [v for v, f in one.functions.items() if isinstance(f, tirx.PrimFunc)]
        for var in kernels:
            if not _called(one[var]):  # what calls another is kept apart
                renamed[var] = self._kernel(var, one[var], device)
        for var, func in one.functions.items():
            if var.same_as(main):
                continue
            if var not in renamed:
                renamed[var] = self._named(var.name_hint, func)
        new = GlobalVar(region.name_hint)
        renamed[main] = new
        weights = get_params(one)
        for var, func in one.functions.items():
            target = renamed[var]
            if target in self.functions:
                continue
            func = tvm_ffi.structural_map(func, [(GlobalVar, lambda var: renamed.get(var, var))])
            if _is_graph(func):
                func = on_device(func, self.devices[memory])
            elif func.attrs and "global_symbol" in func.attrs:
                func = func.with_attr("global_symbol", target.name_hint)
            if var.same_as(main):
                func = (
                    func.without_attr("global_symbol").without_attr(NUM_INPUT).without_attr(REGION)
                )
                func = func.with_attr(INPUTS, num_inputs(one))
            self.functions[target] = func.with_attr(DEVICE, device)
            if _is_graph(func):
                _update_type(target, func.ty)
        count = num_inputs(one)
        given = [self._weight(name, value, memory) for name, value in weights.items()]
        self.made[region] = relax.Call(new, [*old.args[:count], *given])

    def _kernel(self, var: GlobalVar, func: tirx.PrimFunc, device: str) -> GlobalVar:
        bare = func.without_attr("global_symbol") if func.attrs else func
        bare = bare.with_attr(DEVICE, device)
        key = (device, int(tvm_ffi.structural_hash(bare)))
        for found in self.kernels.get(key, ()):
            same = self.functions[found]
            if tvm_ffi.structural_equal(same.without_attr("global_symbol"), bare):
                return found
        new = self._named(var.name_hint, func)
        self.kernels.setdefault(key, []).append(new)
        kept = func.with_attr(DEVICE, device)
        if func.attrs and "global_symbol" in func.attrs:
            kept = kept.with_attr("global_symbol", new.name_hint)
        self.functions[new] = kept
        return new

    def _named(self, name: str, func: Any) -> GlobalVar:
        free, count = name, 0
        while free in self.names:
            count += 1
            free = f"{name}_{count}"
        self.names.add(free)
        var = GlobalVar(free)
        if not _is_graph(func):
            _update_type(var, func.ty)
        return var

    def _weight(self, name: str, value: tvm.runtime.Tensor, memory: str) -> relax.Var:
        """The parameter of ``main`` for a weight in ``memory``, a new one where none has it."""
        names = self.known.setdefault((name.partition("@")[0], memory), [])
        for known in names:
            if self.values[known].same_as(value):
                return self.params[known]
        free, count = name, 0
        if free in self.values and self.values[free].same_as(value):
            free = f"{name}@{memory}"
        while free in self.values:
            count += 1
            free = f"{name}.{count}"
        shape = tuple(map(int, value.shape))
        ty = relax.TensorType(shape, str(value.dtype), self.devices[memory])
        names.append(free)
        self.values[free] = value
        self.params[free] = relax.Var(free, ty)
        return self.params[free]

    def module(self) -> tvm.IRModule:
        main = self.mod["main"]
        count = num_inputs(self.mod)
        bindings = []
        for block in main.body.blocks:
            for binding in block.bindings:
                call = self.made.get(getattr(binding.value, "op", None))
                if call is not None:
                    binding = relax.VarBinding(binding.var, call)
                bindings.append(binding)
        body = relax.SeqExpr([relax.BindingBlock(bindings)], main.body.body)
        params = [*main.params[:count], *self.params.values()]
        new = relax.Function(params, body, main.ret_ty, main.is_pure, main.attrs)
        functions = {self.mod.get_global_var("main"): new, **self.functions}
        attrs = dict(self.mod.attrs.items()) if self.mod.attrs is not None else None
        mod = with_params(tvm.IRModule(functions, attrs=attrs), self.values)
        mod = with_devices(mod, self.devices.values())
        return relax.transform.Normalize()(mod)


__all__ = ["LowerRegions", "region_module"]
