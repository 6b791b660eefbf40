"""Bindings of a function that may be reordered, as dataflow blocks: what fusion looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax
from tvm.ir.transform import module_pass


@module_pass(opt_level=0, name="MakeDataflow")
@dataclass(frozen=True)
class MakeDataflow:
    """``relax.transform.ConvertToDataflow`` for the functions that read no size from a value.

    Where a size becomes known in the middle of a function (``match_cast``), the order of bindings
    counts: FuseOps moves what only mentions the size to before the place where it is read.
    ``least`` bindings make a block.
    """

    least: int = 2

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        made = relax.transform.ConvertToDataflow(self.least)(mod)
        kept = {
            var: func
            for var, func in mod.functions.items()
            if isinstance(func, relax.Function) and _reads_sizes(func.body)
        }
        if not kept:
            return made
        return tvm.IRModule(
            {var: kept.get(var, func) for var, func in made.functions.items()},
            attrs=made.attrs,
            global_infos=made.global_infos,
        )


def _reads_sizes(body: relax.Expr) -> bool:
    """Whether a sequence, or a branch in it, has a ``match_cast``."""
    if not isinstance(body, relax.SeqExpr):
        return False
    for block in body.blocks:
        for binding in block.bindings:
            if isinstance(binding, relax.MatchCast):
                return True
            value = binding.value
            if isinstance(value, relax.If) and (
                _reads_sizes(value.true_branch) or _reads_sizes(value.false_branch)
            ):
                return True
    return False
