"""What every importer does to its module at the end."""

from __future__ import annotations

import tvm
from tvm import relax

from burnish.passes.params import get_params, input_vars, weight_vars, with_main, with_params


def drop_unused(mod: tvm.IRModule) -> tvm.IRModule:
    """The module without results and weights that nothing reads (such as batch counters)."""
    main = relax.analysis.remove_all_unused(mod["main"])
    mod = with_main(mod, main)
    read = set(relax.analysis.free_vars(main.body))
    kept = [var for var in weight_vars(mod) if var in read]
    if len(kept) == len(weight_vars(mod)):
        return mod
    lean = relax.Function(
        [*input_vars(mod), *kept], main.body, main.ret_ty, main.is_pure, main.attrs, main.span
    )
    values = get_params(mod)
    return with_params(with_main(mod, lean), {var.name: values[var.name] for var in kept})
