"""Bodies that run again and again: written out, or as functions that call each other.

Few rounds are written out one after the other, so that what is known of them is folded. More are
``log2`` functions: one runs the body once, each next one runs the one before it twice. So the
code stays small, the stack shallow, and the results of the rounds are joined in pairs. Where the
number of rounds is known only at run time, each function stops as soon as the state says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm_ffi
from tvm import relax

from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused

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


def repeat(node: Node, body: Body, state: State, rounds: int) -> tuple[State, list[relax.Expr]]:
    """``rounds`` rounds as functions; what each gives is joined along a new first axis."""
    node.graph.allow_branches()
    state = [_variable(node, value) for value in state]
    level = _first_level(node, body, state)
    levels = [level]
    while 2 ** len(levels) <= rounds:
        levels.append(_twice(node, levels[-1], state, joined=True))
    parts: list[list[relax.Expr]] = []
    for power in reversed(range(len(levels))):
        if rounds >> power & 1:
            results = levels[power].call(node, state)
            state, given = results[: len(state)], results[len(state) :]
            parts.append(given)
    joined = [
        columns[0] if len(columns) == 1 else node.emit(op.concat(list(columns), 0))
        for columns in zip(*parts, strict=True)
    ]
    return state, joined


def repeat_while(node: Node, body: Body, state: State) -> State:
    """Rounds as long as the first of the state, a bool, is true."""
    node.graph.allow_branches()
    state = [_variable(node, value) for value in state]
    level = _first_level(node, body, state, guarded=True)
    for _ in range(LEVELS):
        level = _twice(node, level, state, joined=False)
    return level.call(node, state)


class _Function:
    """A function of a state, and of what its body reads from around it."""

    def __init__(self, var: relax.Expr, captured: Sequence[relax.Var], ty: Any) -> None:
        self.var, self.captured, self.ty = var, list(captured), ty

    def call(self, node: Node, state: State) -> list[relax.Expr]:
        made = node.emit(relax.Call(self.var, [*state, *self.captured]))
        return [node.emit(relax.TupleGetItem(made, i)) for i in range(len(self.ty.fields))]


def _variable(node: Node, value: relax.Expr) -> relax.Expr:
    return value if isinstance(value, relax.Var) else node.emit(value)


def _first_level(node: Node, body: Body, state: State, *, guarded: bool = False) -> _Function:
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

    return _function(node, params, make, guarded=guarded)


def _twice(node: Node, before: _Function, state: State, *, joined: bool) -> _Function:
    """A function that calls ``before`` twice; not the second time where its state says to stop."""
    params = [relax.Var(f"s{i}", value.ty) for i, value in enumerate(state)]
    count = len(params)

    def make() -> relax.Expr:
        first = before.call(node, list(params))
        if not joined:
            return _guarded(node, first, lambda: relax.Tuple(before.call(node, first)))
        second = before.call(node, first[:count])
        pairs = zip(first[count:], second[count:], strict=True)
        return relax.Tuple([*second[:count], *[node.emit(op.concat([a, b], 0)) for a, b in pairs]])

    return _function(node, params, make)


def _function(
    node: Node, params: list[relax.Var], make: Callable[[], relax.Expr], *, guarded: bool = False
) -> _Function:
    """What ``make`` emits as a private function; what it reads beside ``params`` is passed on."""

    def body() -> relax.Expr:
        return _guarded(node, list(params), make) if guarded else make()

    sequence = _sequence(node, body)
    own = set(params)
    captured = [var for var in relax.analysis.free_vars(sequence) if var not in own]
    inner = {var: relax.Var(var.name, var.ty) for var in captured}
    renamed = tvm_ffi.structural_map(sequence, [(relax.Var, lambda v: inner.get(v, v))])
    func = relax.Function([*params, *inner.values()], renamed, sequence.body.ty, True)
    var = node.bb.add_func(relax.utils.copy_with_new_vars(func), "round")
    return _Function(var, captured, sequence.body.ty)


def _guarded(node: Node, state: State, make: Callable[[], relax.Expr]) -> relax.Expr:
    """``make()`` if the first of the state is true, else the state."""
    run = _sequence(node, make)
    keep = _sequence(node, lambda: relax.Tuple(list(state)))
    return relax.If(state[0], run, keep)


def _sequence(node: Node, make: Callable[[], relax.Expr]) -> relax.SeqExpr:
    node.bb._begin_binding_block()
    try:
        result = node.bb.emit(make())
    finally:
        block = node.bb._end_block()
    return relax.SeqExpr([block], result)


def same_type(a: Any, b: Any) -> bool:
    """Whether two tensors have one element type and provably one shape."""
    return bool(tvm_ffi.structural_equal(a, b, map_free_vars=False))


def _text(ty: Any) -> str:
    return f"{ty.dtype}{ty.shape if ty.shape is not None else '?'}"
