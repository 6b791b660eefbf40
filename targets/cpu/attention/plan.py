"""Sizes of an attention kernel: what is computed at a time, and where a row's keys end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var

from burnish.targets.attention_form import Attention
from burnish.targets.cpu import loops
from burnish.targets.cpu.tiling import RUN
from burnish.targets.target import CpuTarget

VECTORS = 4
"""Vectors of keys, or of value columns, in a register tile."""
_BLOCK_ROWS = 24
FEW_ROWS = 8
"""Rows up to which keys are read where they lie: packing them would cost more."""


@dataclass(frozen=True)
class Plan:
    """``q [B, M, H, D], k [B, N, KV, D], v [B, N, KV, E]``, perhaps ``bias``, ``out``.

    The rows of one key head are the queries of its ``group = H / KV`` heads, ``R = M * group`` in
    number, row ``r`` being query ``r // group`` of head ``r % group``.

    ``mr`` rows by ``width`` keys are a register tile; ``block`` rows and ``keys`` keys are
    worked on at a time.
    """

    q: Var
    k: Var
    v: Var
    bias: Var | None
    out: Var
    depth: int
    values: int
    scale: float
    causal: int
    lanes: int
    group: int
    mr: int
    width: int
    block: int
    keys: int

    @classmethod
    def of(cls, attention: Attention, target: CpuTarget) -> Plan:
        """By the shapes."""
        q, k, sizes = attention.q, attention.k, attention.sizes
        lanes = target.lanes
        width = VECTORS * lanes
        n, rows = loops.as_int(k.shape[1]), loops.as_int(sizes.rows)
        if n is not None:
            width = min(width, max(1, -(-n // lanes)) * lanes)
        most = max(1, min(6, (target.registers - VECTORS - 1) // VECTORS))
        mr = most if rows is None else _even_height(min(rows, _BLOCK_ROWS), most)
        keys = RUN if n is None or n > RUN * 3 // 2 else max(1, -(-n // width)) * width
        return cls(
            q, k, attention.v, attention.bias, attention.out, sizes.depth, sizes.values,
            attention.scale, attention.causal, lanes, sizes.group, mr, width,
            block=max(1, _BLOCK_ROWS // mr) * mr, keys=keys,
        )  # fmt: skip

    @property
    def batch(self) -> loops.Extent:
        return loops.extent(self.q.shape[0])

    @property
    def key_heads(self) -> int:
        return int(self.k.shape[2])

    @property
    def n(self) -> loops.Extent:
        return loops.extent(self.k.shape[1])

    @property
    def rows(self) -> loops.Extent:
        return loops.product([loops.extent(self.q.shape[1]), self.group])

    @property
    def panels(self) -> loops.Extent:
        return loops.divide(self.n + (self.width - 1), self.width)[0]

    @property
    def single(self) -> bool:
        """Whether all keys are worked on at once."""
        known = loops.as_int(self.n)
        return known is not None and known <= self.keys

    def query(self, kv: Expr, row: Expr) -> tuple[Expr, Expr]:
        """Position and head of a row."""
        if self.group == 1:
            return row, kv
        return tirx.floordiv(row, self.group), kv * self.group + tirx.floormod(row, self.group)

    def limit(self, row: Expr) -> Any:
        """Keys that ``row`` may see."""
        if not self.causal:
            return self.n
        shift = 0 if self.causal == 1 else self.n - loops.extent(self.q.shape[1])
        position, _ = self.query(loops.const(0), row)
        return tirx.max(tirx.min(position + (shift + 1), self.n), 0)

    def tails(self) -> tuple[int, ...]:
        """Heights for what is left of a block's rows after tiles of ``mr``.

        Where rows are open that is ``mr`` itself: the rows it has too many cost little beside
        those of a block, and code for every height much.
        """
        known = loops.as_int(self.rows)
        if known is None:
            return (self.mr,)
        rests = {known % self.block % self.mr}
        if known >= self.block:
            rests.add(self.block % self.mr)
        return tuple(sorted(rests - {0}))


def _even_height(rows: int, most: int) -> int:
    """The tallest tile of at most ``most`` rows that needs no more tiles than ``most`` does."""
    return max(1, -(-rows // max(1, -(-rows // most))))
