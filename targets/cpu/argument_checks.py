"""The checks of a kernel's arguments, gathered: four branches where TVM writes ten an argument.

TVM checks each field of each argument on its own, with a message of its own. For a small kernel
that is more code, and more of LLVM's time, than its loops. Here the same fields are checked at the
same moment, before anything is computed; what is gathered is the branch and the message:

1. how many arguments there are, before they are read (as TVM wrote it);
2. that each has the right type and is not null, before a field is read;
3. rank, dtype and kind of device, before a shape is read;
4. all the rest: shapes, strides, offsets, data, the device's number.

A kernel marked :data:`SETTLED` has none: whoever compiles it knows what it is called with.
"""

from __future__ import annotations

import functools
from typing import Any

from tvm import tirx
from tvm.ir import Call, Expr, StringImm, Var
from tvm.tirx import AssertStmt, AttrStmt, Bind, IfThenElse, SeqStmt, Stmt

from burnish.targets.cpu.stages import walk

SETTLED = "burnish.settled"
"""Attribute of a kernel whose arguments are known to fit when it is compiled."""
_OF_ARGUMENT = {13, 15}
"""What ``tvm_struct_get`` calls the type and the value of an argument,"""
_FIRST = {4, 5, 6, 7, 10}
"""the rank, the three parts of the dtype, and the kind of device."""
_AROUND = {"storage_alignment", "device_id", "device_type"}
"""Attributes that TVM puts around what follows."""
_PACKED = 1
"""The calling convention of functions that ``MakePackedAPI`` made."""


@tirx.transform.prim_func_pass(opt_level=0, name="GatherArgumentChecks")
def gather_argument_checks(func: tirx.PrimFunc, _mod: Any, _ctx: Any) -> tirx.PrimFunc:
    """Gather the checks that ``MakePackedAPI`` wrote before a kernel's own statements.

    For a kernel marked :data:`SETTLED`, leave them out.
    """
    if not func.attrs or int(func.attrs.get("calling_conv", 0)) != _PACKED:
        return func
    return func.with_body(_Checks(func).gathered())


class _Checks:
    """What a function does before its own statements: read its arguments, and check them."""

    def __init__(self, func: tirx.PrimFunc) -> None:
        self.body = func.body
        self.settled = bool(func.attrs.get(SETTLED, False))
        self.known = set(func.params)
        self.head: list[Stmt] = []
        self.conditions: dict[int, list[Expr]] = {2: [], 3: [], 4: []}
        self.signature: list[StringImm] = []

    def gathered(self) -> Stmt:
        rest = self._rest(_flat(self.body))
        if self.settled:
            self.head = [stmt for stmt in self.head if not isinstance(stmt, AssertStmt)]
        return tirx.stmt_seq(*self.head, *self._check(2), *self._check(3), *rest)

    def _rest(self, statements: list[Stmt]) -> list[Stmt]:
        """The statements less those of the head, with the check of group 4 in its place."""
        rest: list[Stmt] = []
        for place, stmt in enumerate(statements):
            inside = stmt.then_case if isinstance(stmt, IfThenElse) and not stmt.else_case else None
            if isinstance(stmt, AssertStmt):
                self._take(stmt)
            elif isinstance(inside, AssertStmt):
                true = tirx.const(True, "bool")
                self.conditions[4].append(tirx.if_then_else(stmt.condition, inside.condition, true))
            elif isinstance(stmt, Bind):
                early = _fields(stmt.value) <= _OF_ARGUMENT and self._early(stmt.value)
                (self.head if early else rest).append(stmt)
                if early:
                    self.known.add(stmt.var)
            elif isinstance(stmt, AttrStmt) and stmt.attr_key in _AROUND:
                body = tirx.stmt_seq(*self._rest(_flat(stmt.body)))
                rest.append(AttrStmt(stmt.node, stmt.attr_key, stmt.value, body))
                return [*rest, *statements[place + 1 :]]
            else:
                return [*rest, *self._check(4), *statements[place:]]
        return [*rest, *self._check(4)]

    def _take(self, stmt: AssertStmt) -> None:
        """Put an assertion where it belongs."""
        fields = _fields(stmt.condition)
        if not self._early(stmt.condition) or not fields <= _FIRST:
            self.conditions[4].append(stmt.condition)
        elif not any(isinstance(before, Bind) for before in self.head):
            self.head.append(stmt)
            self.signature = list(stmt.message_parts[-3:])
        else:
            self.conditions[3 if fields else 2].append(stmt.condition)

    def _early(self, value: Expr) -> bool:
        """Whether ``value`` is made of arguments and what is bound to them."""
        return all(var in self.known for var in walk(value, Var))

    def _check(self, group: int) -> list[Stmt]:
        found = self.conditions[group]
        if not found or self.settled:
            return []
        kind = "ValueError" if group == 4 else "TypeError"
        words = [StringImm(_SAID[group]), *self.signature]
        # TVM's Python names the first two the other way round.
        return [AssertStmt(functools.reduce(tirx.And, found), StringImm(kind), words)]


_SAID = {
    2: "An argument is no tensor",
    3: "An argument has another rank, dtype or device",
    4: "An argument has another shape, strides, offset or device, or no data",
}


def _flat(stmt: Stmt) -> list[Stmt]:
    return list(stmt.seq) if isinstance(stmt, SeqStmt) else [stmt]


def _fields(value: Expr) -> set[int]:
    """The kinds of fields that an expression reads."""
    calls = walk(value, Call)
    return {int(c.args[2]) for c in calls if getattr(c.op, "name", "") == "tirx.tvm_struct_get"}


__all__ = ["gather_argument_checks"]
