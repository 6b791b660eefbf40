"""Regions of devices that work at the same time: started, and waited for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tvm
from tvm import relax, tirx

from burnish.passes.params import with_main
from burnish.passes.partition_graph import DEVICE, regions

START, FIELD, VALUE = "burnish.start_region", "burnish.region_field", "burnish.region_value"
"""Functions of the host: start a region (its device, its name, its arguments), a field of what it
will return, and what it returned. A region not done yet is an object, argument of others."""


@tvm.transform.module_pass(opt_level=0, name="StartRegions")
@dataclass(frozen=True)
class StartRegions:
    """``main`` starts its regions, and waits for nothing but what it reads itself.

    Each call of a region becomes one of :data:`START`, and what reads a region's result outside
    of regions reads :data:`VALUE` of it. Regions are named by their functions, which stay.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        main, cut = mod["main"], regions(mod)
        started: dict[relax.Var, relax.Var] = {}
        made: list[relax.Binding] = []
        ready: set[relax.Var] = set()

        def called(name: str, arguments: list[relax.Expr], ty: tvm.ir.Type) -> relax.Call:
            return relax.op.call_pure_packed(name, *arguments, ty_args=ty)

        def start(var: relax.Var, name: str, arguments: list[relax.Expr]) -> None:
            started[var] = relax.Var(f"{var.name}_started", relax.ObjectType())
            call = called(name, arguments, relax.ObjectType())
            made.append(relax.VarBinding(started[var], call))

        def wait_for(read: Sequence[relax.Var]) -> None:
            for var in read:
                if var in started and var not in ready:
                    ready.add(var)
                    made.append(relax.VarBinding(var, called(VALUE, [started[var]], var.ty)))

        for block in main.body.blocks:
            for binding in block.bindings:
                value = binding.value
                function = value.op if isinstance(value, relax.Call) else None
                if isinstance(function, tvm.ir.GlobalVar) and function in cut:
                    device = tvm.ir.StringImm(str(cut[function].attrs[DEVICE]))
                    name = tvm.ir.StringImm(function.name_hint)
                    given = [started.get(one, one) for one in value.args]
                    start(binding.var, START, [device, name, *given])
                elif isinstance(value, relax.TupleGetItem) and value.tuple_value in started:
                    place = tirx.IntImm("int64", int(value.index))
                    start(binding.var, FIELD, [started[value.tuple_value], place])
                else:
                    wait_for(relax.analysis.free_vars(value))
                    made.append(binding)
        wait_for(relax.analysis.free_vars(main.body.body))
        body = relax.SeqExpr([relax.BindingBlock(made)], main.body.body)
        new = relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)
        return relax.transform.Normalize()(with_main(mod, new))


__all__ = ["FIELD", "START", "VALUE", "StartRegions"]
