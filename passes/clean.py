"""Inference clean-up of weights: compute now what needs no input, drop what nothing reads."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax

from burnish.passes.graph import references
from burnish.passes.params import get_params, num_inputs, with_main, with_params


@tvm.transform.module_pass(opt_level=0, name="DropUnusedWeights")
@dataclass(frozen=True)
class DropUnusedWeights:
    """Remove weights that nothing reads, and their values; inputs stay, read or not."""

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        main = mod["main"]
        counts = references(main)
        inputs = num_inputs(mod)
        params = list(main.params)
        kept = params[:inputs] + [var for var in params[inputs:] if counts[var]]
        if len(kept) == len(params):
            return mod
        values = get_params(mod)
        names = [var.name for var in kept[inputs:]]
        slim = relax.Function(kept, main.body, main.ret_ty, main.is_pure, main.attrs)
        return with_params(
            with_main(mod, slim), {name: values[name] for name in names if name in values}
        )
