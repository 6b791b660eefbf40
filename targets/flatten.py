"""Buffers of several axes made flat, without the simplification that TVM's pass gets wrong.

``FlattenBuffer`` rewrites an index as a map of the loops around it. Where a condition is in the way
it takes the map without the condition, which may start before the loop does, and drops that start
(apache/tvm issue 19524): under ``if i < 24``, ``(i + 3) % 4`` became ``i % 4``, and
``(i // 2 + i % 2) % 2 * 2 + i % 2`` became ``(i + 1) % 4``. Here the remainders and quotients that
are no plain parts of fused loops are put aside while the pass runs.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad
from tvm.tirx import FloorDiv, FloorMod, For, IntImm, Var

from burnish.targets.divisors import terms


@tvm.transform.module_pass(opt_level=0, name="FlattenBuffers")
class FlattenBuffers:
    """TVM's ``FlattenBuffer``; remainders and quotients but plain ones stay as they are written."""

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        aside: dict[Var, tirx.PrimExpr] = {}
        functions = {
            var: func.with_body(_put_aside(func.body, aside))
            if isinstance(func, tirx.PrimFunc)
            else func
            for var, func in mod.functions.items()
        }
        flat = tirx.transform.FlattenBuffer()(
            tvm.IRModule(functions, attrs=mod.attrs, global_infos=mod.global_infos)
        )
        if not aside:
            return flat
        functions = {
            var: func.with_body(_put_back(func.body, aside))
            if isinstance(func, tirx.PrimFunc)
            else func
            for var, func in flat.functions.items()
        }
        return tvm.IRModule(functions, attrs=mod.attrs, global_infos=mod.global_infos)


def _put_aside(body: tirx.Stmt, aside: dict[Var, tirx.PrimExpr]) -> tirx.Stmt:
    """``body`` with a variable for each remainder or quotient, but those of a sum of loops and of
    such a remainder or quotient."""
    loops: set[Var] = set()
    tvm_ffi.structural_walk(
        body,
        [
            (For, lambda loop: loops.add(loop.loop_var)),
            (tirx.AttrStmt, lambda stmt: _add_thread(stmt, loops)),
        ],
        order="post",
    )

    def plain(expr: Any) -> bool:
        parts = terms(expr)
        if [factor for factor, _ in parts] == [1] and isinstance(parts[0][1], FloorMod | FloorDiv):
            return True  # a plain one itself: others are variables by now
        return all(factor > 0 and term in loops for factor, term in parts)

    def replaced(node: FloorMod | FloorDiv) -> Any:
        if (isinstance(node.b, IntImm) and plain(node.a)) or _loads(node):
            return node
        var = Var(f"aside_{len(aside)}", str(node.ty.dtype))
        aside[var] = node
        return var

    rules = [(FloorMod, replaced), (FloorDiv, replaced)]
    return tvm_ffi.structural_map(body, rules, order="post")


def _loads(expr: Any) -> bool:
    """Whether it reads a buffer, which has to be made flat too."""
    found: list[Any] = []
    tvm_ffi.structural_walk(expr, [(TensorLoad, found.append)], order="post")
    return bool(found)


def _put_back(body: tirx.Stmt, aside: dict[Var, tirx.PrimExpr]) -> tirx.Stmt:
    def original(var: Var) -> Any:
        return whole.get(var, var)

    whole: dict[Var, tirx.PrimExpr] = {}
    for var, expr in aside.items():  # an expression holds earlier ones alone
        whole[var] = tvm_ffi.structural_map(expr, [(Var, original)], order="post")
    return tvm_ffi.structural_map(body, [(Var, original)], order="post")


def _add_thread(stmt: tirx.AttrStmt, loops: set[Var]) -> None:
    if isinstance(stmt.node, tirx.IterVar):
        loops.add(stmt.node.var)
