"""Hand regions of a graph to another code generator, a call of what it made in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from burnish.passes.backends import Backend, Code, ReadsModule
from burnish.passes.params import get_params, with_main, with_params
from burnish.passes.place import nodes
from burnish.passes.region_modules import REGION
from burnish.passes.regions import Region, replace_regions

SOURCES = "burnish.sources"
"""Attribute of a function: the C source of what it calls, by symbol."""


@tvm.transform.module_pass(opt_level=0, name="OffloadRegions")
@dataclass(frozen=True)
class OffloadRegions:
    """Put one call in the place of each region that ``backend`` can take and thinks worth it.

    1. ``whole`` wants all of ``main`` taken, worth it or not, and refuses what is not.
    2. Arrays that the code keeps become weights; weights that only regions read leave the module
       (``DropUnusedWeights``).
    3. C source is an attribute of ``main``, for whoever builds.
    """

    backend: Backend
    whole: bool = False

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        new = offloaded(mod, self.backend, worth_it=not self.whole)
        if self.whole:
            left = [one for one in nodes(new) if one.operator != "relax.call_dps_packed"]
            if left:
                said = ", ".join(f"{one.name} ({one.operator})" for one in left)
                raise ValueError(
                    f"the device {self.backend.name!r} said that it computes {said}, and did not "
                    "take it"
                )
        return new


def offloaded(mod: tvm.IRModule, backend: Backend, *, worth_it: bool = True) -> tvm.IRModule:
    """What :class:`OffloadRegions` does; the argument is untouched."""
    weights = get_params(mod)
    maker = backend.within(mod) if isinstance(backend, ReadsModule) else backend
    stored: dict[relax.Var, np.ndarray] = {}
    sources: dict[str, str] = {}
    count = 0

    def replaced(region: Region) -> Sequence[relax.VarBinding] | None:
        nonlocal count
        if worth_it and backend.why_not_region(region):
            return None
        own = {var.name: weights[var.name].numpy() for var in region.inputs if var.name in weights}
        name = _symbol(mod, backend, count)
        code = maker.compile(region, own, name)
        count += 1
        kept = []
        for array in code.stored:
            ty = relax.TensorType(array.shape, str(array.dtype))
            kept.append(relax.Var(f"{backend.name}.{len(stored)}", ty))
            stored[kept[-1]] = array
        if code.source:
            sources[code.symbol] = code.source
        held = own if code.holds_weights else {}
        inputs = [var for var in region.inputs if var.name not in held]
        return _called(code, [*kept, *map(_literal, code.said), *inputs], region.outputs, name)

    new = replace_regions(mod, lambda call: not backend.why_not(call), replaced)
    if not count:
        return mod
    main = new["main"]
    params = [*main.params, *stored]
    grown = relax.Function(params, main.body, main.ret_ty, main.is_pure, main.attrs)
    if sources:
        grown = grown.with_attr(SOURCES, sources)
    values = {**weights, **{var.name: tvm.runtime.tensor(array) for var, array in stored.items()}}
    return with_params(with_main(new, grown), values)


def _symbol(mod: tvm.IRModule, backend: Backend, count: int) -> str:
    where = str((mod["main"].attrs or {}).get(REGION, ""))
    return "_".join(filter(None, (backend.name.replace("-", "_"), where, str(count))))


def _literal(value: str | int | float) -> relax.Expr:
    return tvm.ir.StringImm(value) if isinstance(value, str) else relax.prim_value(value)


def _called(
    code: Code, arguments: Sequence[relax.Expr], outputs: Sequence[relax.Var], name: str
) -> list[relax.VarBinding]:
    types = [var.ty for var in outputs]
    given = relax.Tuple(list(arguments))
    if len(outputs) == 1:
        return [relax.VarBinding(outputs[0], relax.call_dps_packed(code.symbol, given, types[0]))]
    call = relax.call_dps_packed(code.symbol, given, types)
    whole = relax.DataflowVar(f"{name}.out", relax.TupleType(types))
    fields = [
        relax.VarBinding(var, relax.TupleGetItem(whole, place)) for place, var in enumerate(outputs)
    ]
    return [relax.VarBinding(whole, call), *fields]
