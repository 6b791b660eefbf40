"""The operators of a fused module, as they are timed: distinct kernels, and their calls."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import tvm
from tvm import relax, tirx

from burnish.compiler.profile.kernel import Kernel
from burnish.compiler.profile.records import record
from burnish.compiler.tune.tasks import Spec, anonymous, task_key
from burnish.passes.params import get_params
from burnish.passes.partition_graph import DEVICE
from burnish.passes.virtual_devices import memory_of

_CALL = tvm.ir.Op.get("relax.call_tir")
_MOVE = tvm.ir.Op.get("relax.to_vdevice")


@dataclass(frozen=True)
class Operator:
    """One kernel with what it is called with.

    ``key`` is its structural hash, equal under any name and in any process. ``arguments`` are
    its tensors, the last ``outputs`` of them written; ``weights`` are the places of those that
    are weights of the model, which come from memory rather than from the kernel before.
    ``device`` is the one it is for, in a module that is cut.
    """

    key: int
    name: str
    func: tirx.PrimFunc = field(repr=False, compare=False)
    arguments: tuple[Spec, ...]
    weights: tuple[int, ...]
    outputs: int
    device: str = ""

    @property
    def signature(self) -> str:
        """What tells its time from others' on one device."""
        return f"{self.key:016x} weights={','.join(map(str, self.weights))}"

    def record(self) -> Kernel:
        """What it does: operators, arithmetic, bytes."""
        return record(self.name, self.func, "")


@dataclass(frozen=True)
class Move:
    """A value of ``bytes`` that is moved from one memory to another, by their names."""

    source: str
    target: str
    bytes: int


@dataclass(frozen=True)
class Operators:
    """Of one ``main``: each operator with its calls a run, and what is none.

    A branch (``If``) counts each of its sides half: ``uncertain`` has the calls of the first side
    less those of the second, halved. ``others`` are functions called that are no kernels.
    """

    calls: tuple[tuple[Operator, float], ...]
    uncertain: tuple[tuple[Operator, float], ...] = ()
    others: tuple[str, ...] = ()
    moves: tuple[Move, ...] = ()
    weight_bytes: int = 0


def operators_of(mod: tvm.IRModule) -> Operators:
    """The operators of a fused module, in order of first call.

    Raises ``ValueError`` for a kernel whose sizes are open: a time is of known shapes.
    """
    values = get_params(mod)
    main = mod["main"]
    weights = {param for param in main.params if str(param.name) in values}
    found: dict[tuple[str, str], tuple[Operator, float]] = {}
    apart: dict[tuple[str, str], tuple[Operator, float]] = {}
    others: list[str] = []
    moves: list[Move] = []
    for call, inside, share, side in _calls(mod, main.body, weights, 1.0, 0.0):
        if call.op == _MOVE:
            moves.append(_move(call))
            continue
        if call.op != _CALL:
            others.append(_name(call))
            continue
        operator = _operator(mod[call.args[0]], call, inside)
        key = operator.device, operator.signature
        found[key] = operator, found.get(key, (operator, 0.0))[1] + share
        if side:
            apart[key] = operator, apart.get(key, (operator, 0.0))[1] + side
    size = sum(value.numpy().nbytes for value in values.values())
    return Operators(
        tuple(found.values()), tuple(apart.values()), tuple(others), tuple(moves), size
    )


_Found = tuple[relax.Call, frozenset[relax.Var], float, float]


def _calls(
    mod: tvm.IRModule, body: relax.Expr, weights: Iterable[relax.Var], share: float, side: float
) -> Iterator[_Found]:
    """Calls with the variables that are weights where they stand, and their shares."""
    known = frozenset(weights)
    for block in body.blocks if isinstance(body, relax.SeqExpr) else ():
        for binding in block.bindings:
            value = binding.value
            if isinstance(value, relax.If):
                yield from _calls(mod, value.true_branch, known, share / 2, share / 2)
                yield from _calls(mod, value.false_branch, known, share / 2, -share / 2)
            elif isinstance(value, relax.Call) and not _free(value):
                inner = mod.functions.get(value.op)
                if isinstance(inner, relax.Function):
                    pairs = zip(inner.params, value.args, strict=True)
                    held = [param for param, given in pairs if given in known]
                    yield from _calls(mod, inner.body, held, share, side)
                else:
                    yield value, known, share, side


def _free(call: relax.Call) -> bool:
    """Whether a call becomes a view, or nothing."""
    return isinstance(call.op, tvm.ir.Op) and str(call.op.name) in (
        "relax.reshape",
        "relax.memory.view",
        "relax.memory.ensure_zero_offset",
    )


def _name(call: relax.Call) -> str:
    if isinstance(call.op, tvm.ir.Op):
        first = call.args[0] if call.args else None
        return str(getattr(first, "global_symbol", call.op.name))
    return str(getattr(call.op, "global_symbol", None) or getattr(call.op, "name_hint", call.op))


def _operator(func: tirx.PrimFunc, call: relax.Call, weights: frozenset[relax.Var]) -> Operator:
    specs: list[Spec] = []
    name = str(call.args[0].name_hint)
    for param in func.params:
        shape = param.ty.shape if isinstance(param.ty, tirx.BufferType) else ()
        if not isinstance(param.ty, tirx.BufferType) or not all(
            isinstance(extent, tirx.IntImm) for extent in shape
        ):
            raise ValueError(
                f"kernel {name} has the open size or scalar {param.name}: times are of known "
                "shapes; import the model without dynamic sizes"
            )
        specs.append((tuple(map(int, shape)), str(param.ty.dtype)))
    given = list(call.args[1].fields)
    places = tuple(place for place, value in enumerate(given) if value in weights)
    out = call.ty_args[0]
    outputs = len(out.fields) if isinstance(out, relax.TupleType) else 1
    device = str(func.attrs[DEVICE]) if func.attrs and DEVICE in func.attrs else ""
    bare = anonymous(func.without_attr(DEVICE) if device else func)
    return Operator(task_key(bare), name, bare, tuple(specs), places, outputs, device)


def _move(call: relax.Call) -> Move:
    size = math.prod(int(n) for n in call.ty.shape) * int(tvm.DataType(str(call.ty.dtype)).itemsize)
    return Move(str(memory_of(call.args[0].ty)), str(memory_of(call.ty)), size)
