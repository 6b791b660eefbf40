"""Activations of chosen operators, as further outputs of ``main``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tvm
from tvm import relax

from burnish.passes.graph import op_name
from burnish.passes.params import input_vars, weight_vars, with_main

ACTIVATION = None
"""Origin of a value that depends on a run-time input; all else has its weight's name or ``""``."""


@dataclass(frozen=True)
class Site:
    """One activation operand of operator ``op``, its channels along ``channel_axis``.

    ``name`` is the weight that it meets there, or ``<operator>#<number>`` where it meets none;
    a further operand under the same name gets ``@1``, ``@2`` and so on.
    """

    name: str
    op: str
    channel_axis: int


def observed(mod: tvm.IRModule, ops: Sequence[str]) -> tuple[list[Site], tvm.IRModule]:
    """The activation operands of ``ops`` in ``main``, in program order, and a module for them.

    Its ``main`` returns the first result first, then one tensor a site. The argument is
    untouched.
    """
    # A dataflow variable is not visible outside its block, and so could not be returned.
    flat = relax.transform.ToNonDataflow()(mod)
    main = flat["main"]
    bound = [(b.var, b.value) for block in main.body.blocks for b in block.bindings]
    origins: dict[relax.Var, str | None] = {var: var.name for var in weight_vars(flat)}
    origins.update(dict.fromkeys(input_vars(flat), ACTIVATION))
    sites: list[Site] = []
    variables: list[relax.Var] = []
    taken: dict[str, int] = {}
    for number, (var, value) in enumerate(bound):
        origins[var] = _origin(value, origins)
        if op_name(value) not in ops:
            continue
        operands = [_origin(operand, origins) for operand in value.args]
        met = next((name for name in operands if name), f"{op_name(value)}#{number}")
        for index, (operand, origin) in enumerate(zip(value.args, operands, strict=True)):
            if origin is ACTIVATION and isinstance(operand, relax.Var):
                seen = taken[met] = taken.get(met, -1) + 1
                name = f"{met}@{seen}" if seen else met
                sites.append(Site(name, op_name(value), _channel_axis(value, index)))
                variables.append(operand)
    returned = [main.body.body, *variables]
    result = relax.Var("observed", tvm.ir.TupleType([value.ty for value in returned]))
    last = relax.BindingBlock([relax.VarBinding(result, relax.Tuple(returned))])
    body = relax.SeqExpr([*main.body.blocks, last], result)
    untyped = relax.Function(main.params, body, result.ty, main.is_pure, main.attrs)
    new = relax.BlockBuilder(flat).normalize(untyped)
    return sites, relax.transform.ConvertToDataflow(1)(with_main(flat, new))


def _origin(value: relax.Expr, origins: dict[relax.Var, str | None]) -> str | None:
    """The first weight a value comes from, "" for none; ``ACTIVATION`` if an input has a part."""
    if isinstance(value, relax.Var):
        return origins.get(value, "")
    if isinstance(value, relax.TupleGetItem):
        return _origin(value.tuple_value, origins)
    if isinstance(value, relax.Call):
        parts = [_origin(part, origins) for part in value.args]
    elif isinstance(value, relax.Tuple):
        parts = [_origin(part, origins) for part in value.fields]
    elif isinstance(value, relax.If):
        return ACTIVATION
    else:
        return ""
    if any(part is ACTIVATION for part in parts):
        return ACTIVATION
    return next((part for part in parts if part), "")


def _channel_axis(call: relax.Call, index: int) -> int:
    """The reduced axis of an operand: a matmul's inner one, a convolution's input channels."""
    layout = getattr(call.attrs, "data_layout", None)
    if layout is not None:
        return str(layout).index("C")
    rank = len(call.args[index].ty.shape)
    return rank - 1 if index == 0 or rank == 1 else rank - 2
