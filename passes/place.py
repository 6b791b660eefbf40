"""Which device each operator of a graph is for: by name, and else the first that can."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tvm
from tvm import relax

from burnish.passes.graph import op_name
from burnish.passes.params import weight_vars
from burnish.passes.support import ON_HOST, Support

AUTO = "auto"
"""In the place of a device: the one that measured costs choose."""


@dataclass(frozen=True)
class Node:
    """A binding that computes: its ``name``, and its ``operator`` (``relax.nn.conv2d``)."""

    name: str
    operator: str
    value: relax.Expr


def nodes(mod: tvm.IRModule) -> list[Node]:
    """What there is to place in ``main``, in program order.

    What reads nothing but weights is no node: it goes with whatever reads it.
    """
    aside = of_weights(mod)
    return [
        Node(str(binding.var.name), operator(binding.value), binding.value)
        for block in mod["main"].body.blocks
        for binding in block.bindings
        if binding.var not in aside and computes(binding)
    ]


def of_weights(mod: tvm.IRModule) -> dict[relax.Var, relax.VarBinding]:
    """Bindings of ``main`` whose values follow from weights alone, each in front of its readers.

    Not those that are returned or follow from one that is needed for that, that are functions of
    the host (a draw is one), or branches.
    """
    main = mod["main"]
    known: set[relax.Var] = set(weight_vars(mod))
    found: dict[relax.Var, relax.VarBinding] = {}
    result = set(relax.analysis.free_vars(main.body.body))
    for block in main.body.blocks:
        for binding in block.bindings:
            value = binding.value
            read = relax.analysis.free_vars(value)
            if isinstance(binding, relax.MatchCast):
                result.update(read)
            elif _repeatable(value) and all(var in known for var in read):
                known.add(binding.var)
                found[binding.var] = binding
    computed: set[relax.Var] = set()
    pending = [var for var in result if var in found]
    while pending:
        var = pending.pop()
        binding = found.pop(var, None)
        if binding is not None:
            computed.add(var)
            pending.extend(relax.analysis.free_vars(binding.value))
    # What reads such a value comes after it, so it cannot go wherever its own readers are.
    for var, binding in list(found.items()):
        if any(read in computed for read in relax.analysis.free_vars(binding.value)):
            computed.add(var)
            del found[var]
    return found


def _repeatable(value: relax.Expr) -> bool:
    if isinstance(value, relax.TupleGetItem | relax.Tuple | tvm.ir.Constant):
        return True
    name = op_name(value)
    return bool(name) and name not in ON_HOST and not isinstance(value.ty, relax.ShapeType)


def computes(binding: relax.Binding) -> bool:
    """Whether a binding is an operator, a function of the module, or branches; no view."""
    return not isinstance(binding, relax.MatchCast) and isinstance(
        binding.value, relax.Call | relax.If
    )


def operator(value: relax.Expr) -> str:
    """``relax.nn.conv2d``, the name of a function that is called, or ``if``."""
    if isinstance(value, relax.If):
        return "if"
    if isinstance(value.op, tvm.ir.GlobalVar):
        return str(value.op.name_hint)
    if isinstance(value.op, relax.ExternFunc):
        return str(value.op.global_symbol)
    if op_name(value) == "relax.call_tir":
        return str(value.args[0].name_hint)
    return op_name(value) or "call"


def assign(
    found: Sequence[Node], placement: Mapping[str, str], devices: Mapping[str, Support]
) -> dict[str, str]:
    """Node name -> device.

    1. ``placement`` maps names, operators (``nn.conv2d``) or shell globs on either to devices.
       A name goes before an operator, that before a glob; among globs the first in order.
    2. Any other node goes to the first of ``devices`` that can compute it.

    Raises ``ValueError`` for a pattern that matches nothing, an unknown device, a device that
    cannot compute what is put there, and for nodes that no device can, all of them at once, with
    the reasons.
    """
    _check(found, placement, devices)
    assigned: dict[str, str] = {}
    refused: list[str] = []
    nowhere: list[str] = []
    for node in found:
        pattern = chosen_by(node, placement)
        if pattern is not None:
            device = placement[pattern]
            why = devices[device].why_not(node.value)
            if why:
                said = "" if pattern == node.name else f" (by {pattern!r})"
                refused.append(f"{node.name}, {node.operator}, on {device}{said}: {why}")
            assigned[node.name] = device
            continue
        reasons = {}
        for device, support in devices.items():
            why = support.why_not(node.value)
            if not why:
                assigned[node.name] = device
                break
            reasons[device] = why
        else:
            told = "; ".join(f"{device}: {why}" for device, why in reasons.items())
            nowhere.append(f"{node.name}, {node.operator} ({told})")
    if refused:
        raise ValueError(
            f"the placement puts operators where they cannot run: {'; '.join(refused)}"
        )
    if nowhere:
        raise ValueError(
            f"no device can run {len(nowhere)} operator{'s' * (len(nowhere) > 1)}: "
            f"{'; '.join(nowhere)}. Add a device that can, as cpu"
        )
    return assigned


def pinned(placement: Mapping[str, str]) -> dict[str, str]:
    """What of ``placement`` names a device."""
    return {name: device for name, device in placement.items() if device != AUTO}


def chosen_by(node: Node, placement: Mapping[str, str]) -> str | None:
    """The name, operator or glob of ``placement`` that decides for a node."""
    kinds = (node.operator, node.operator.removeprefix("relax."), node.operator.rpartition(".")[2])
    for exact in (node.name, *kinds):
        if exact in placement:
            return exact
    for pattern in placement:
        if any(fnmatch.fnmatchcase(one, pattern) for one in (node.name, *kinds)):
            return pattern
    return None


def _check(
    found: Sequence[Node], placement: Mapping[str, str], devices: Mapping[str, Support]
) -> None:
    for pattern, device in placement.items():
        if device not in devices:
            near = difflib.get_close_matches(device, list(devices), n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(
                f"placement of {pattern!r}: no device {device!r} in the target{hint}; its devices "
                f"are {', '.join(devices)}"
            )
        if not any(chosen_by(node, {pattern: device}) for node in found):
            names = list(dict.fromkeys(n for one in found for n in (one.name, one.operator)))
            near = difflib.get_close_matches(pattern, names, n=3) or names[:6]
            raise ValueError(
                f"placement: {pattern!r} names nothing in the model; near are {', '.join(near)} "
                "(burnish inspect MODEL --stage optimized --ir shows all; what reads only weights "
                "goes with what reads it)"
            )
