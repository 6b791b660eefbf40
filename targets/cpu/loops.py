"""Loop nests as Python functions: the vocabulary the schedule rules write kernels in.

Every builder takes a body function from the loop variable to a statement. Loops of extent 1
vanish, so that a rule writes one nest for every shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, Var
from tvm.sym import Analyzer
from tvm.tirx import (
    AllocBuffer,
    Bind,
    BufferStore,
    Evaluate,
    For,
    ForKind,
    IfThenElse,
    SeqStmt,
    Stmt,
)

Extent: TypeAlias = int | Expr
Body = Callable[[Any], Stmt]


def _dtype(extent: Extent) -> str:
    return "int64" if isinstance(extent, int) else str(extent.ty.dtype)


def as_int(value: object) -> int | None:
    """The value of a constant extent, or ``None`` for a symbolic one."""
    if isinstance(value, int):
        return value
    if isinstance(value, tirx.IntImm):
        return int(value.value)
    return None


def extent(value: Expr) -> Extent:
    """A number where it is a constant."""
    known = as_int(value)
    return value if known is None else known


def const(value: int, dtype: str = "int64") -> Expr:
    return tirx.const(value, dtype)


def _loop(kind: ForKind, extent: Extent, body: Body, name: str) -> Stmt:
    known = as_int(extent)
    dtype = _dtype(extent)
    if known == 0:
        return Evaluate(const(0))
    if known == 1:
        return body(const(0, dtype))
    var = Var(name, dtype)
    return For(
        var, const(0, dtype), const(known, dtype) if known is not None else extent, kind, body(var)
    )


def serial(extent: Extent, body: Body, name: str = "i") -> Stmt:
    return _loop(ForKind.SERIAL, extent, body, name)


def parallel(extent: Extent, body: Body, name: str = "p") -> Stmt:
    return _loop(ForKind.PARALLEL, extent, body, name)


def unroll(extent: int, body: Body, name: str = "u") -> Stmt:
    return _loop(ForKind.UNROLLED, extent, body, name)


def vector(extent: int, body: Body, name: str = "v") -> Stmt:
    return _loop(ForKind.VECTORIZED, extent, body, name)


def vectors(extent: int, lanes: int, body: Body) -> Stmt:
    """``extent`` elements as unrolled vectors of ``lanes``, the last one narrower."""
    full, rest = divmod(extent, lanes)
    parts: list[Stmt] = []
    if full:
        parts.append(unroll(full, lambda u: vector(lanes, lambda v: body(u * lanes + v))))
    if rest:
        parts.append(vector(rest, lambda v: body(v + const(full * lanes))))
    return seq(*parts)


def seq(*statements: Stmt) -> Stmt:
    """One statement of several; sequences in it are joined, so that allocations reach on."""
    flat: list[Stmt] = []
    for statement in statements:
        flat.extend(statement.seq if isinstance(statement, SeqStmt) else [statement])
    if not flat:
        return Evaluate(const(0))
    return flat[0] if len(flat) == 1 else SeqStmt(flat)


def branch(condition: Expr, then: Stmt, otherwise: Stmt | None = None) -> Stmt:
    return IfThenElse(condition, then, otherwise)


def named(body: Callable[..., Stmt], **values: Extent) -> Stmt:
    """``body`` of the values, each computed once here if it is not a constant.

    TVM simplifies every index it meets, again and again: long ones make it slow.
    """
    bound: list[Stmt] = []
    variables: list[Extent] = []
    for name, value in values.items():
        known = as_int(value)
        if known is not None or isinstance(value, Var):
            variables.append(value if known is None else const(known))
            continue
        variables.append(Var(name, _dtype(value)))
        bound.append(Bind(variables[-1], value))
    return seq(*bound, body(*variables))


def store(buffer: Var, value: Expr, indices: Sequence[Expr]) -> Stmt:
    return BufferStore(buffer, value, list(indices))


def prefetch(buffer: Var, indices: Sequence[Expr], *, near: bool = False) -> Stmt:
    """Ask for a line of memory, to be read from the second-level cache, or ``near`` the first.

    The place may lie behind the end of ``buffer``: nothing is read there.
    """
    place = tirx.address_of(buffer[tuple(indices)])
    flags = [const(n, "int32") for n in (0, 3 if near else 2, 1)]
    return Evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", place, *flags))


def allocate(buffer: Var) -> Stmt:
    """Give ``buffer`` its memory, from here to the end of the sequence it stands in.

    A workspace is named once as a whole: TVM would otherwise widen one of bfloat16 to float32,
    and what reads its bits would read other bits.
    """
    if buffer.scope() != "global":
        return AllocBuffer(buffer)
    return SeqStmt([AllocBuffer(buffer), Evaluate(buffer.data)])


def local(shape: Sequence[Extent], dtype: str, name: str) -> Var:
    """A buffer private to one iteration: registers or stack."""
    return tirx.decl_buffer(list(shape), dtype, name, scope="local")


def workspace(shape: Sequence[Extent], dtype: str, name: str) -> Var:
    """A buffer in main memory that lives for one call."""
    return tirx.decl_buffer(list(shape), dtype, name)


def substitute(node: Any, mapping: Mapping[Var, Any]) -> Any:
    """``node`` with variables replaced."""
    if not mapping:
        return node
    return tvm_ffi.structural_map(node, [(Var, lambda var: mapping.get(var, var))], order="post")


def split_index(flat: Expr, extents: Sequence[Extent]) -> list[Expr]:
    """Row-major indices: flat, [a, b, c] -> [flat // (b * c), flat // c % b, flat % c].

    The first extent that is not 1 needs no remainder, which is slow by a symbolic extent.
    """
    ones = next((i for i, n in enumerate(extents) if as_int(n) != 1), len(extents))
    indices: list[Expr] = []
    for extent in reversed(extents[ones + 1 :]):
        if as_int(extent) == 1:
            indices.append(const(0))
            continue
        flat, index = _quotient(flat, extent)
        indices.append(index)
    if ones < len(extents):
        indices.append(flat)
    return [const(0)] * ones + indices[::-1]


def product(extents: Sequence[Extent]) -> Extent:
    total: Extent = 1
    for extent in extents:
        known, other = as_int(extent), as_int(total)
        if known is not None and other is not None:
            total = known * other
        elif other == 1:
            total = extent
        elif known != 1:
            total = total * extent
    return total


def prim_func(params: Sequence[Var], body: Stmt, attrs: Mapping[str, Any]) -> tirx.PrimFunc:
    return tirx.PrimFunc(list(params), body, attrs=tvm.ir.make_node("ir.DictAttrs", **dict(attrs)))


def divide(extent: Extent, by: int) -> tuple[Extent, Extent]:
    """Quotient and remainder of an extent that may be symbolic."""
    known = as_int(extent)
    if known is not None:
        return known // by, known % by
    return tirx.floordiv(extent, by), tirx.floormod(extent, by)


def times(extent: Extent, by: int) -> Expr:
    known = as_int(extent)
    return const(known * by) if known is not None else extent * by


def simplify_equal(a: Extent, b: Extent) -> bool:
    """Whether two extents are provably equal."""
    first, second = as_int(a), as_int(b)
    if first is not None and second is not None:
        return first == second
    return bool(Analyzer().can_prove(a == b))


def span(extent: Extent, lanes: int, body: Body) -> Stmt:
    """All of ``extent`` in vectors of ``lanes``, then what is left of it."""
    full, rest = divide(extent, lanes)
    parts: list[Stmt] = []
    if as_int(full) != 0:
        parts.append(serial(full, lambda b: vector(lanes, lambda v: body(b * lanes + v))))
    start = times(full, lanes)
    known = as_int(rest)
    if known is None:
        parts.append(serial(rest, lambda r: body(start + r)))
    elif known:
        parts.append(vector(known, lambda v: body(start + v)))
    return seq(*parts)


def split_two(flat: Expr, inner: Extent) -> tuple[Expr, Expr]:
    """``flat // inner, flat % inner``."""
    if as_int(inner) == 1:
        return flat, const(0)
    return _quotient(flat, inner)


def _quotient(flat: Expr, by: Extent) -> tuple[Expr, Expr]:
    """Quotient and remainder of what is not negative.

    Floor division by an open size is lowered by a proof of its sign, at the cost of seconds.
    """
    if as_int(by) is None:
        return tirx.truncdiv(flat, by), tirx.truncmod(flat, by)
    return tirx.floordiv(flat, by), tirx.floormod(flat, by)
