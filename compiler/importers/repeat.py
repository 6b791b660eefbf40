"""Bodies that run again and again: written out, or as functions that call each other.

Few rounds are written out one after the other, so that what is known of them is folded. More are
``log2`` functions: one runs the body once, each next one runs the one before it twice. So the
code stays small, the stack shallow, and the results of the rounds are joined in pairs. Where the
number of rounds is known only at run time, each function stops as soon as the state says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm
import tvm_ffi
from tvm import relax

from burnish.compiler.importers.hoist import hoisted
from burnish.compiler.importers.unsupported import Refused
from burnish.passes.outline_branches import as_function

op = relax.op

WRITTEN_OUT = 32
"""Rounds up to which bodies are written out."""
NODES = 2048
"""Nodes up to which they are."""
LEVELS = 31
"""Where the number of rounds is open: 2^31 at most."""

State = list[relax.Expr]
Body = Callable[[State], tuple[State, list[relax.Expr]]]
"""State -> next state, and what this round gives."""


def few(rounds: int, nodes: int) -> bool:
    """Whether a body of so many nodes is written out."""
    return rounds <= 1 or (rounds <= WRITTEN_OUT and rounds * nodes <= NODES)


def repeat(
    bb: relax.BlockBuilder, body: Body, state: State, rounds: int
) -> tuple[State, list[relax.Expr]]:
    """``rounds`` rounds as functions; what each gives is joined along a new first axis."""
    state = [_variable(bb, value) for value in state]
    level = _first_level(bb, body, state)
    levels = [level]
    while 2 ** len(levels) <= rounds:
        levels.append(_twice(bb, levels[-1], state, joined=True))
    parts: list[list[relax.Expr]] = []
    for power in reversed(range(len(levels))):
        if rounds >> power & 1:
            results = levels[power].call(bb, state)
            state, given = results[: len(state)], results[len(state) :]
            parts.append(given)
    joined = [
        columns[0] if len(columns) == 1 else bb.emit(op.concat(list(columns), 0))
        for columns in zip(*parts, strict=True)
    ]
    return state, joined


def repeat_while(bb: relax.BlockBuilder, body: Body, state: State) -> State:
    """Rounds as long as the first of the state, a bool, is true."""
    state = [_variable(bb, value) for value in state]
    level = _first_level(bb, body, state, guarded=True)
    for _ in range(LEVELS):
        level = _twice(bb, level, state, joined=False)
    return level.call(bb, state)


class _Function:
    """A function of a state, and of what its body reads from around it."""

    def __init__(self, var: tvm.ir.GlobalVar, around: Sequence[relax.Expr], ty: Any) -> None:
        self.var, self.around, self.ty = var, list(around), ty

    def call(self, bb: relax.BlockBuilder, state: State) -> list[relax.Expr]:
        made = bb.emit(relax.Call(self.var, [*state, *self.around]))
        return [bb.emit(relax.TupleGetItem(made, i)) for i in range(len(self.ty.fields))]


def _variable(bb: relax.BlockBuilder, value: relax.Expr) -> relax.Expr:
    return value if isinstance(value, relax.Var) else bb.emit(value)


def _first_level(
    bb: relax.BlockBuilder, body: Body, state: State, *, guarded: bool = False
) -> _Function:
    params = [relax.Var(f"s{i}", value.ty) for i, value in enumerate(state)]

    def make() -> relax.Expr:
        after, given = body(list(params))
        for was, now in zip(params, after, strict=True):
            if not same_type(was.ty, now.ty):
                raise Refused(
                    f"a value that it carries changes from {_text(was.ty)} to {_text(now.ty)} in a "
                    "round: give it a fixed number of rounds, few enough to write out"
                )
        return relax.Tuple([*after, *given])

    return _function(bb, params, make, guarded=guarded)


def _twice(bb: relax.BlockBuilder, before: _Function, state: State, *, joined: bool) -> _Function:
    """A function that calls ``before`` twice; not the second time where its state says to stop."""
    params = [relax.Var(f"s{i}", value.ty) for i, value in enumerate(state)]
    count = len(params)

    def make() -> relax.Expr:
        first = before.call(bb, list(params))
        if not joined:
            again = sequence(bb, lambda: relax.Tuple(before.call(bb, first)))
            return _guarded(bb, first, again)
        second = before.call(bb, first[:count])
        pairs = zip(first[count:], second[count:], strict=True)
        return relax.Tuple([*second[:count], *[bb.emit(op.concat([a, b], 0)) for a, b in pairs]])

    return _function(bb, params, make)


def _function(
    bb: relax.BlockBuilder,
    params: list[relax.Var],
    make: Callable[[], relax.Expr],
    *,
    guarded: bool = False,
) -> _Function:
    """What ``make`` emits as a private function; what it reads beside ``params`` is passed on."""
    made = hoisted(bb, sequence(bb, make), params)
    if guarded:
        made = sequence(bb, lambda: _guarded(bb, list(params), made))
    var, around = as_function(bb, made, params, "round")
    return _Function(var, around, made.body.ty)


def _guarded(bb: relax.BlockBuilder, state: State, run: relax.SeqExpr) -> relax.Expr:
    """``run`` if the first of the state is true, else the state."""
    return relax.If(state[0], run, sequence(bb, lambda: relax.Tuple(list(state))))


def sequence(bb: relax.BlockBuilder, make: Callable[[], relax.Expr]) -> relax.SeqExpr:
    """What ``make`` emits and returns, as a sequence of its own."""
    bb._begin_binding_block()
    try:
        result = bb.emit(make())
    finally:
        block = bb._end_block()
    return relax.SeqExpr([block], result)


def same_type(a: Any, b: Any) -> bool:
    """Whether two tensors have one element type and provably one shape."""
    return bool(tvm_ffi.structural_equal(a, b, map_free_vars=False))


def _text(ty: Any) -> str:
    return f"{ty.dtype}{ty.shape if ty.shape is not None else '?'}"
