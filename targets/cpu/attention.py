"""Rule for attention kernels: scores, softmax and weighted sum, a few query rows at a time.

1. Keys are first packed per head into panels ``[N / NB, D, NB]``, zeros at the end, so that
   scores are register tiles like any packed GEMM; this costs ``1 / M`` of the scores.
2. A task is one head and ``MR`` query rows. Its scores, ``[MR, N]``, stay in the cache: softmax
   runs on them in place, and the weighted sum of values reads them as the left side of a second
   register tile.
3. Under a causal mask, key panels to the right of the tile's last row are not computed.

(The idea of never writing the score matrix out is that of FlashAttention, Dao et al. 2022; here
a whole row of scores fits a core's cache, so no running rescaling is needed.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops, maps, rows
from burnish.targets.cpu.tiling import RUN
from burnish.targets.target import CpuTarget

ATTENTION = "burnish.attention"
_KEY_VECTORS = 4
_LOCAL_BYTES = 512 * 1024


def emit(func: tirx.PrimFunc, target: CpuTarget) -> tirx.PrimFunc | None:
    """The fused kernel of an attention function, or ``None`` for any other function.

    Parameters are those of the function: ``q [B, M, H, D], k [B, N, H, D], v [B, N, H, E]``,
    perhaps ``bias``, and the result ``[B, M, H, E]``.
    """
    attrs = dict(func.attrs.items()) if func.attrs is not None else {}
    if ATTENTION not in attrs:
        return None
    info = {str(k): v for k, v in attrs[ATTENTION].items()}
    tensors = [p for p in func.params if hasattr(p, "shape") and len(p.shape) >= 1]
    q, k, v, *middle, out = tensors
    depth, values = loops.as_int(q.shape[3]), loops.as_int(v.shape[3])
    if depth is None or values is None or len(middle) != int(info["bias"]):
        return None
    kernel = _Kernel(
        q,
        k,
        v,
        middle[0] if middle else None,
        out,
        depth,
        values,
        float(info["scale"]),
        int(info["causal"]),
        target,
    )
    body = kernel.body()
    if body is None:
        return None
    return loops.prim_func(
        func.params, body, {**{str(a): b for a, b in attrs.items()}, "s_tir": True}
    )


class _Kernel:
    """One attention kernel being written."""

    def __init__(
        self,
        q: Var,
        k: Var,
        v: Var,
        bias: Var | None,
        out: Var,
        depth: int,
        values: int,
        scale: float,
        causal: int,
        target: CpuTarget,
    ) -> None:
        self.q, self.k, self.v, self.bias, self.out = q, k, v, bias, out
        self.depth, self.values, self.scale, self.causal = depth, values, scale, causal
        self.lanes = target.lanes
        self.batch, self.m, self.heads, _ = q.shape
        self.n = k.shape[1]
        value_vectors = -(-values // self.lanes)
        fit = (target.registers - _KEY_VECTORS - 1) // _KEY_VECTORS
        fit_values = (target.registers - value_vectors - 1) // value_vectors
        self.mr = max(1, min(fit, max(1, fit_values), 6))
        known = loops.as_int(self.m)
        if known is not None:
            self.mr = min(self.mr, known)
            while self.mr > 3 and known % self.mr:
                self.mr -= 1
            if known % self.mr:
                self.mr = min(max(1, min(fit, 6)), known)
        self.width = _KEY_VECTORS * self.lanes
        size = loops.as_int(self.n)
        if size is not None:
            self.width = min(self.width, -(-size // self.lanes) * self.lanes)
        self.panels, _rest = loops.divide(self._n() + (self.width - 1), self.width)

    def _n(self) -> Any:
        known = loops.as_int(self.n)
        return known if known is not None else self.n

    def _m(self) -> Any:
        known = loops.as_int(self.m)
        return known if known is not None else self.m

    def body(self) -> Stmt | None:
        size = loops.as_int(self.n)
        row_tiles, _ = loops.divide(self._m() + (self.mr - 1), self.mr)
        padded = loops.times(self.panels, self.width)
        packed = loops.workspace(
            [self.batch, self.heads, loops.times(self.panels, 1), self.depth, self.width],
            "float32",
            "keys",
        )
        if size is not None and self.mr * (size + self.width) * 4 <= _LOCAL_BYTES:
            scores, shared = loops.local([self.mr, padded], "float32", "scores"), None
            at_scores = lambda task: lambda r, x: [r, x]  # noqa: E731
        else:
            shared = loops.workspace(
                [loops.product([self.batch, self.heads, row_tiles]), self.mr, padded],
                "float32",
                "scores",
            )
            scores = shared
            at_scores = lambda task: lambda r, x: [task, r, x]  # noqa: E731

        def pack(p: Expr) -> Stmt:
            rest, panel = loops.split_two(p, self.panels)
            b, h = loops.split_two(rest, self.heads)

            def element(d: Expr, x: Expr) -> Stmt:
                at = panel * self.width + x
                inside = tirx.min(at, self.n - 1)
                value = self.k[b, inside, h, d]
                return loops.store(packed, value, [b, h, panel, d, x])

            return loops.serial(
                self.width,
                lambda x: loops.serial(self.depth, lambda d: element(d, x), "d"),
                "x",
            )

        def task(p: Expr) -> Stmt:
            rest, tile = loops.split_two(p, row_tiles)
            b, h = loops.split_two(rest, self.heads)
            parts = [] if shared is not None else [loops.allocate(scores)]
            parts.append(self._tile(b, h, tile * self.mr, scores, at_scores(p), packed))
            return loops.seq(*parts)

        pack_tasks = loops.product([self.batch, self.heads, self.panels])
        tasks = loops.product([self.batch, self.heads, row_tiles])
        work = loops.as_int(loops.product([self.batch, self.heads, self.m, self.n]))
        work = None if work is None else work * (self.depth + self.values + 16)
        statements = [loops.allocate(packed)]
        if shared is not None:
            statements.append(loops.allocate(shared))
        statements.append(maps.parallel_or_serial(pack_tasks, work, pack))
        statements.append(maps.parallel_or_serial(tasks, work, task))
        return loops.seq(*statements)

    def _tile(
        self,
        b: Expr,
        h: Expr,
        first: Expr,
        scores: Var,
        at: Callable[[Any, Any], list[Any]],
        packed: Var,
    ) -> Stmt:
        last_row = tirx.min(first + (self.mr - 1), self.m - 1)
        n: Any = self.n
        panels: Any = self.panels
        if self.causal:
            shift = 0 if self.causal == 1 else self.n - self.m
            n = tirx.max(tirx.min(self.n, last_row + 1 + shift), 1)
            panels = tirx.floordiv(n + (self.width - 1), self.width)
        limit = None if _divides(self.mr, self.m) else last_row

        def row(r: Any) -> Expr:
            return first + r if limit is None else tirx.min(first + r, limit)

        return loops.seq(
            self._scores(b, h, row, scores, at, packed, panels),
            loops.serial(self.mr, lambda r: self._softmax(r, scores, at, n), "r"),
            self._mix(b, h, first, row, scores, at, n),
        )

    def _scores(
        self,
        b: Expr,
        h: Expr,
        row: Callable[[Any], Expr],
        scores: Var,
        at: Callable[[Any, Any], list[Any]],
        packed: Var,
        panels: Any,
    ) -> Stmt:
        acc = loops.local([self.mr, self.width], "float32", "acc")

        def over(body: Callable[[Any, Any], Stmt]) -> Stmt:
            return loops.unroll(
                self.mr,
                lambda r: loops.vectors(self.width, self.lanes, lambda x: body(r, x)),
                "r",
            )

        def finished(r: Any, x: Any, panel: Expr) -> Expr:
            value = acc[r, x] * tirx.const(self.scale, "float32")
            key = panel * self.width + x
            if self.bias is not None:
                index = [b, h, row(r), tirx.min(key, self.n - 1)]
                where = [
                    loops.const(0) if loops.as_int(extent) == 1 else i
                    for extent, i in zip(self.bias.shape, index, strict=True)
                ]
                value = value + self.bias[tuple(where)]
            if self.causal:
                shift = 0 if self.causal == 1 else self.n - self.m
                value = tirx.Select(key <= row(r) + shift, value, tirx.min_value("float32"))
            return value

        def panel_of(panel: Expr) -> Stmt:
            return loops.seq(
                over(lambda r, x: loops.store(acc, tirx.const(0, "float32"), [r, x])),
                loops.serial(
                    self.depth,
                    lambda d: over(
                        lambda r, x: loops.store(
                            acc,
                            acc[r, x] + self.q[b, row(r), h, d] * packed[b, h, panel, d, x],
                            [r, x],
                        )
                    ),
                    "d",
                ),
                over(
                    lambda r, x: loops.store(
                        scores, finished(r, x, panel), at(r, panel * self.width + x)
                    )
                ),
            )

        return loops.seq(loops.allocate(acc), loops.serial(panels, panel_of, "panel"))

    def _softmax(self, r: Any, scores: Var, at: Callable[[Any, Any], list[Any]], n: Any) -> Stmt:
        """In place; the row ends divided by its sum. Rows with no key at all become zeros."""
        lanes = self.lanes
        top = loops.local([lanes], "float32", "top")
        total = loops.local([lanes], "float32", "total")
        zero = loops.const(0)
        lowest = tirx.min_value("float32")

        def score(x: Any) -> Expr:
            return scores[tuple(at(r, x))]

        def power(x: Any, lane: Any) -> Stmt:
            return loops.seq(
                loops.store(scores, tirx.exp(score(x) - top[zero]), at(r, x)),
                loops.store(total, total[lane] + score(x), [lane]),
            )

        def both(full: Callable[[Any, Any], Stmt], single: Callable[[Any], Stmt]) -> Stmt:
            whole, rest = loops.divide(n, lanes)
            start = loops.times(whole, lanes)
            return loops.seq(
                loops.serial(
                    whole, lambda c: loops.vector(lanes, lambda v: full(c * lanes + v, v))
                ),
                loops.serial(rest, lambda s: single(start + s)),
            )

        inverse = tirx.Select(
            total[zero] > 0, tirx.const(1, "float32") / total[zero], tirx.const(0, "float32")
        )
        share = loops.local([1], "float32", "share")
        return loops.seq(
            loops.allocate(top),
            loops.allocate(total),
            loops.allocate(share),
            loops.vector(lanes, lambda v: loops.store(top, lowest, [v])),
            loops.vector(lanes, lambda v: loops.store(total, tirx.const(0, "float32"), [v])),
            both(
                lambda x, v: loops.store(top, tirx.max(top[v], score(x)), [v]),
                lambda x: loops.store(top, tirx.max(top[zero], score(x)), [zero]),
            ),
            rows.folded(top, lanes, lanes, tirx.max),
            both(power, lambda x: power(x, zero)),
            rows.folded(total, lanes, lanes, lambda a, c: a + c),
            loops.store(share, inverse, [zero]),
            both(
                lambda x, v: loops.store(scores, score(x) * share[zero], at(r, x)),
                lambda x: loops.store(scores, score(x) * share[zero], at(r, x)),
            ),
        )

    def _mix(
        self,
        b: Expr,
        h: Expr,
        first: Expr,
        row: Callable[[Any], Expr],
        scores: Var,
        at: Callable[[Any, Any], list[Any]],
        n: Any,
    ) -> Stmt:
        acc = loops.local([self.mr, self.values], "float32", "mixed")
        total = loops.local([self.mr, self.values], "float32", "sum")

        def over(body: Callable[[Any, Any], Stmt]) -> Stmt:
            return loops.unroll(
                self.mr,
                lambda r: loops.vectors(self.values, self.lanes, lambda e: body(r, e)),
                "r",
            )

        def cleared(buffer: Var) -> Stmt:
            return over(lambda r, e: loops.store(buffer, tirx.const(0, "float32"), [r, e]))

        def run(start: Expr, count: Any) -> Stmt:
            """Keys ``start`` to ``start + count``, added to the total; see rule 6 of ``tiles``."""
            return loops.seq(
                cleared(acc),
                loops.serial(
                    count,
                    lambda x: over(
                        lambda r, e: loops.store(
                            acc,
                            acc[r, e]
                            + scores[tuple(at(r, start + x))] * self.v[b, start + x, h, e],
                            [r, e],
                        )
                    ),
                    "x",
                ),
                over(lambda r, e: loops.store(total, total[r, e] + acc[r, e], [r, e])),
            )

        def out_row(r: Any) -> Stmt:
            stores = loops.vectors(
                self.values,
                self.lanes,
                lambda e: loops.store(self.out, total[r, e], [b, first + r, h, e]),
            )
            return stores if _divides(self.mr, self.m) else loops.branch(first + r < self.m, stores)

        full, rest = loops.divide(n, RUN)
        return loops.seq(
            loops.allocate(acc),
            loops.allocate(total),
            cleared(total),
            loops.serial(full, lambda c: run(c * RUN, RUN), "run"),
            run(loops.times(full, RUN), rest),
            loops.unroll(self.mr, out_row, "r"),
        )


def _divides(by: int, extent: Any) -> bool:
    known = loops.as_int(extent)
    return known is not None and known % by == 0
