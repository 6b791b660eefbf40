"""Attention as a schedule rule sees it: sizes, what is masked, and the numbers of a softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var

from burnish.targets.cpu import loops

ATTENTION = "burnish.attention"
"""Attribute of the kernel: ``scale``, ``causal`` (0, 1 = top left, 2 = bottom right), ``bias``."""
LOG2_E = 1.4426950408889634
LEAST = tirx.const(float("-inf"), "float32")


@dataclass(frozen=True)
class Sizes:
    """Extents of ``q [B, M, H, D], k [B, N, KV, D], v [B, N, KV, E]``, and their type.

    The rows of one head of keys are the queries of its ``group = H / KV`` heads, ``M * group`` in
    number: row ``r`` is query ``r // group`` of head ``r % group``.
    """

    batch: loops.Extent
    queries: loops.Extent
    heads: int
    depth: int
    keys: loops.Extent
    key_heads: int
    values: int
    dtype: str

    @property
    def group(self) -> int:
        return self.heads // self.key_heads

    @property
    def rows(self) -> loops.Extent:
        known = loops.as_int(self.queries)
        return self.queries * self.group if known is None else known * self.group


def sizes_of(q: Any, k: Any, v: Any) -> Sizes | None:
    """Of three values with a shape and a dtype; ``None`` where what has to be known is open."""
    shapes = [list(x.shape) for x in (q, k, v)]
    if any(len(shape) != 4 for shape in shapes):
        return None
    numbers = (*shapes[0][2:], *shapes[1][2:], shapes[2][3])
    known = [n for n in map(loops.as_int, numbers) if n]
    if len(known) != len(numbers):
        return None
    heads, depth, key_heads, key_depth, values = known
    if heads % key_heads or depth != key_depth:
        return None
    return Sizes(
        batch=loops.extent(shapes[0][0]),
        queries=loops.extent(shapes[0][1]),
        heads=heads,
        depth=depth,
        keys=loops.extent(shapes[1][1]),
        key_heads=key_heads,
        values=values,
        dtype=str(q.dtype),
    )


@dataclass(frozen=True)
class Attention:
    """The parameters of a kernel, and what its attribute says."""

    q: Var
    k: Var
    v: Var
    bias: Var | None
    out: Var
    sizes: Sizes
    scale: float
    causal: int

    def last_key(self, query: Expr) -> Expr:
        """The last key that a query sees under a causal mask."""
        return query if self.causal == 1 else query + wide(self.sizes.keys - self.sizes.queries)

    def masked(self, score: Expr, batch: Any, head: Any, query: Any, key: Any) -> Expr:
        """The scaled ``score`` of a query and a key, with the bias, and ``-inf`` where hidden.

        The places of the bias exist: both are in range.
        """
        value = score
        if self.bias is not None:
            at = zip(self.bias.shape, (batch, head, query, key), strict=True)
            index = [loops.const(0) if loops.as_int(n) == 1 else wide(i) for n, i in at]
            value = value + as_float32(self.bias[tuple(index)])
        if self.causal:
            value = tirx.Select(key <= self.last_key(query), value, LEAST)
        return value


def read(func: tirx.PrimFunc) -> Attention | None:
    """The attention that ``func`` is by its attribute, or ``None``."""
    attrs = dict(func.attrs.items()) if func.attrs is not None else {}
    if ATTENTION not in attrs:
        return None
    info = {str(k): v for k, v in attrs[ATTENTION].items()}
    q, k, v, *middle, out = [p for p in func.params if hasattr(p, "shape") and len(p.shape)]
    sizes = sizes_of(q, k, v)
    if sizes is None or len(middle) != int(info["bias"]):
        return None
    bias = middle[0] if middle else None
    return Attention(q, k, v, bias, out, sizes, float(info["scale"]), int(info["causal"]))


def as_float32(value: Expr) -> Expr:
    return value if str(value.ty.dtype) == "float32" else value.astype("float32")


def wide(value: Any) -> Any:
    """An index or extent as an expression of int64."""
    if isinstance(value, int):
        return loops.const(value)
    return value if str(value.ty.dtype) == "int64" else value.astype("int64")


def power(score: Expr, top: Expr) -> Expr:
    """``exp(score - top)``; ``top`` is no infinity."""
    return tirx.exp2((score - top) * tirx.const(LOG2_E, "float32"))


def finite(top: Expr) -> Expr:
    """The largest score of a row, or 0 where every key of it is hidden."""
    return tirx.Select(top <= LEAST, tirx.const(0.0, "float32"), top)


def quotient(total: Expr, weight: Expr) -> Expr:
    """``total / weight``, 0 for a row that sees no key."""
    zero = tirx.const(0.0, "float32")
    return tirx.Select(weight <= zero, zero, total / weight)


def up(extent: loops.Extent, by: int) -> loops.Extent:
    """``extent / by``, rounded up."""
    return loops.divide(extent + (by - 1), by)[0]
