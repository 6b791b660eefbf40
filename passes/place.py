"""Which device each operator of a graph is for: by name, and else the first that can."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tvm
from tvm import relax

from burnish.passes.graph import op_name
from burnish.passes.module_paths import module_paths
from burnish.passes.params import weight_vars
from burnish.passes.support import ON_HOST, Support

AUTO = "auto"
"""In the place of a device: the one that measured costs choose."""


@dataclass(frozen=True)
class Node:
    """A binding that computes: its ``name``, and its ``operator`` (``relax.nn.conv2d``).

    ``module`` is the part of the model that it is of, ``encoder.layers.0``, told by the weights
    that it and its neighbours read (:func:`burnish.passes.module_paths.module_paths`).
    """

    name: str
    operator: str
    value: relax.Expr
    module: str = ""


def nodes(mod: tvm.IRModule) -> list[Node]:
    """What there is to place in ``main``, in program order.

    What reads nothing but weights is no node: it goes with whatever reads it.
    """
    aside = of_weights(mod)
    names: dict[relax.Var, frozenset[str]] = {
        var: frozenset((str(var.name),)) for var in weight_vars(mod)
    }
    found: list[relax.Binding] = []
    read: list[list[str]] = []
    for block in mod["main"].body.blocks:
        for binding in block.bindings:
            used = [names.get(v, frozenset()) for v in relax.analysis.free_vars(binding.value)]
            weights = frozenset[str]().union(*used)
            if binding.var in aside:
                names[binding.var] = weights
            elif computes(binding):
                found.append(binding)
                read.append(sorted(weights))
    return [
        Node(str(one.var.name), operator(one.value), one.value, ".".join(path))
        for one, path in zip(found, module_paths(read), strict=True)
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

    1. ``placement`` maps names, operators (``nn.conv2d``), parts of the model (``layers.0``,
       which has a dot) or shell globs on any of them to devices. A name goes before an operator,
       that before a part, that before a glob; among globs the first in order, and ``*`` last.
    2. Any other node goes to the first of ``devices`` that can compute it.

    Raises ``ValueError`` as :func:`check_names` does, and for nodes that no device can compute,
    all of them at once, with the reasons.
    """
    check_names(found, placement, devices)
    assigned: dict[str, str] = {}
    nowhere: list[str] = []
    for node in found:
        pattern = chosen_by(node, placement)
        if pattern is not None:
            assigned[node.name] = placement[pattern]
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
    if nowhere:
        raise ValueError(
            f"no device can run {len(nowhere)} operator{'s' * (len(nowhere) > 1)}: "
            f"{'; '.join(nowhere)}. Add a device that can, as cpu"
        )
    return assigned


def check_names(
    found: Sequence[Node], placement: Mapping[str, str], devices: Mapping[str, Support]
) -> None:
    """Raise ``ValueError`` for what ``placement`` cannot say.

    A pattern that matches nothing, or nothing that a glob before it leaves, an unknown device,
    and all operators that are put where they
    cannot run, with the reasons. :data:`AUTO` stands for any device.
    """
    _check_patterns(found, placement, devices)
    refused = []
    for node in found:
        pattern = chosen_by(node, placement)
        device = AUTO if pattern is None else placement[pattern]
        why = "" if device == AUTO else devices[device].why_not(node.value)
        if why:
            said = "" if pattern == node.name else f" (by {pattern!r})"
            refused.append(f"{node.name}, {node.operator}, on {device}{said}: {why}")
    if refused:
        raise ValueError(
            f"the placement puts operators where they cannot run: {'; '.join(refused)}. "
            "Name another device for them"
        )


def pinned(placement: Mapping[str, str]) -> dict[str, str]:
    """What of ``placement`` names a device."""
    return {name: device for name, device in placement.items() if device != AUTO}


def chosen_by(node: Node, placement: Mapping[str, str]) -> str | None:
    """The name, operator, part of the model or glob of ``placement`` that decides for a node."""
    names = _names(node)
    for exact in names:
        if exact in placement:
            return exact
    globs = (one for one in placement if one != ALL and _is_glob(one))
    return next((one for one in globs if _fits(one, node)), ALL if ALL in placement else None)


ALL = "*"
"""The glob for what no other name fits, wherever it stands."""
_WILD = frozenset("*?[")


def _is_glob(pattern: str | None) -> bool:
    return pattern is not None and bool(_WILD.intersection(pattern))


def _fits(glob: str, node: Node) -> bool:
    """``layers.*`` is all that is in ``layers``; without a dot a glob is of operators alone."""
    parts = _parts(node) if "." in glob else []
    names = (node.name, *_kinds(node), *parts, *(f"{part}." for part in parts))
    return any(fnmatch.fnmatchcase(one, glob) for one in names)


def _kinds(node: Node) -> tuple[str, ...]:
    return node.operator, node.operator.removeprefix("relax."), node.operator.rpartition(".")[2]


def _names(node: Node) -> tuple[str, ...]:
    """What names a node in full, the closest first."""
    return (node.name, *_kinds(node), *(part for part in _parts(node) if "." in part))


def _parts(node: Node) -> list[str]:
    """The parts of the model that a node is in, the innermost first."""
    steps = node.module.split(".") if node.module else []
    return [".".join(steps[:count]) for count in range(len(steps), 0, -1)]


def _check_patterns(
    found: Sequence[Node], placement: Mapping[str, str], devices: Mapping[str, Support]
) -> None:
    known = {name for node in found for name in _names(node)}
    for pattern, device in placement.items():
        if device not in devices and device != AUTO:
            near = difflib.get_close_matches(device, [*devices, AUTO], n=1, cutoff=0.5)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(
                f"placement of {pattern!r}: no device {device!r} in the target{hint}; its devices "
                f"are {', '.join(devices)}"
            )
        if pattern in known or pattern == ALL:
            continue
        fitting = [node for node in found if _fits(pattern, node)]
        deciding = dict.fromkeys(chosen_by(node, placement) for node in fitting)
        first = next((one for one in deciding if one and placement[one] != device), None)
        if first and pattern not in deciding and all(map(_is_glob, deciding)):
            raise ValueError(
                f"placement: {pattern!r} says {device}, but {first!r} stands before it, fits the "
                f"same operators and says {placement[first]}: put {pattern!r} first"
            )
        if not fitting:
            names = list(dict.fromkeys(n for one in found for n in _names(one)))
            near = difflib.get_close_matches(pattern, names, n=3) or names[:6]
            raise ValueError(
                f"placement: {pattern!r} names nothing in the model; near are {', '.join(near)} "
                "(burnish inspect MODEL --stage optimized --ir shows all; what reads only weights "
                "goes with what reads it)"
            )
