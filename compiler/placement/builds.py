"""Whether an operator builds for a device, tried: alone, by the passes and rules of that device."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import tvm
import tvm_ffi
from tvm import relax

from burnish.compiler.build import build_library
from burnish.compiler.config import CompileConfig
from burnish.compiler.errors import BurnishError
from burnish.compiler.optimizer import lowered
from burnish.compiler.pipeline import graph_phases
from burnish.compiler.placed import support_of
from burnish.passes.params import with_params
from burnish.targets.hetero import Place

_KEPT = 512


def builds(value: relax.Expr, place: Place) -> str:
    """Why an operator of a graph cannot be built for a device; empty where it can.

    The device is asked first; then the operator is lowered, scheduled, compiled and linked for it,
    once for each form of it in this process. A code generator of another is only asked: what it
    makes is of a whole region. So are calls of the model's own functions.
    """
    why = support_of(place).why_not(value)
    calls_model = isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.GlobalVar)
    if why or place.backend or calls_model or not isinstance(value, relax.Call):
        return why
    mod = operator_module(value)
    return _tried(_Form(mod), place)


def operator_module(value: relax.Call) -> tvm.IRModule:
    """A call as ``main`` of a module of its own: all that it reads is an input."""
    read = [v for v in dict.fromkeys(relax.analysis.free_vars(value)) if not tvm.ir.is_prim_var(v)]
    own = {var: relax.Var(f"x{place}", var.ty) for place, var in enumerate(read)}
    call = tvm_ffi.structural_map(value, [(relax.Var, lambda var: own.get(var, var))])
    out = relax.Var("out", value.ty)
    params = list(own.values())
    block = relax.DataflowBlock([relax.VarBinding(out, call)])
    body = relax.SeqExpr([block], out)
    sizes = list(relax.analysis.free_symbolic_vars(relax.Function(params, body, value.ty, True)))
    if sizes:
        params.append(relax.Var("sizes", relax.ShapeType(sizes)))
    main = relax.Function(params, body, value.ty, True)
    main = relax.utils.copy_with_new_vars(main)
    main = main.with_attr({"global_symbol": "main", "num_input": len(params)})
    return relax.transform.Normalize()(with_params(tvm.IRModule({"main": main}), {}))


class _Form:
    """A module, equal to another of the same structure."""

    def __init__(self, mod: tvm.IRModule) -> None:
        self.mod = mod
        self._hash = int(tvm_ffi.structural_hash(mod["main"]))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Form) and bool(
            tvm_ffi.structural_equal(self.mod["main"], other.mod["main"])
        )


@functools.lru_cache(maxsize=_KEPT)
def _tried(form: _Form, place: Place) -> str:
    config, target = CompileConfig(), place.target
    try:
        mod = lowered(form.mod, target, graph_phases(target, config))
        with tempfile.TemporaryDirectory(prefix="burnish-builds-") as folder:
            build_library(mod, target, Path(folder))
    except BurnishError as error:
        return error.message
    return ""
