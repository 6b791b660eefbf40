"""Rule for Winograd convolutions, known by the attribute of their first stage.

1. A task takes a block of tiles (:class:`~burnish.targets.cpu.winograd_plan.Layout`). The
   transformed input of a block is ``n * n`` planes ``[tiles, C]``, the products ``n * n`` planes
   ``[tiles, NB]``: both stay in the core's cache.
2. Transforms run on vectors of channels, straight through, halves of the pairs ``+-p`` shared. A
   tile at the border of the image is first copied with its zeros, the others are read in place.
3. Products are register tiles of ``MR`` tiles by ``NB`` channels. While they are computed the next
   plane's weights are fetched, line by line, so that reading memory and computing overlap.
4. Everything fused after the convolution is computed as the output transform stores; what costs
   much (``exp`` and the like) in a loop over the tile, else unrolled.
5. The last block of tiles ends with the last tile: it may begin among those of the block before,
   which are then computed twice, alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops, winograd_transforms
from burnish.targets.cpu.stages import Program, Stage, is_heavy, loads, replace_loads
from burnish.targets.cpu.tiling import stores_alike
from burnish.targets.cpu.winograd_plan import LINE, Convolution, Layout, layout
from burnish.targets.cpu.winograd_transforms import Value, Vectors
from burnish.targets.target import CpuTarget
from burnish.targets.winograd import F2, F4

WINOGRAD = "burnish.winograd"
"""Attribute of the transforms of such a kernel; of the first, ``"m top left bottom right"``."""
_ZERO = tirx.const(0, "float32")


@dataclass(frozen=True)
class Match:
    """One Winograd convolution: its tensors, its geometry, and the store that ends it."""

    x: Var
    u: Var
    output: Stage
    final: Stage
    layout: Layout
    batch: Any
    stages: int = 4


def match(program: Program, position: int, target: CpuTarget) -> Match | None:
    """The convolution that begins with the stage at ``position``, if one does."""
    found = program.stages[position : position + 4]
    words = str(found[0].attrs.get(WINOGRAD, "")).split()
    if len(words) != 5 or len(found) < 4:
        return None
    data, products, output, final = found
    sources = {load.source for load in loads(data.value)}
    weights = {load.source for load in loads(products.value) if not load.source.same_as(data.out)}
    if len(sources) != 1 or len(weights) != 1:
        return None
    m, top, left, bottom, right = map(int, words)
    (x,), (u,) = sources, weights
    height, width, depth, channels = (
        loops.as_int(e) for e in (*x.shape[1:], final.spatial[-1].extent)
    )
    if height is None or width is None or depth is None or channels is None:
        return None
    conv = Convolution(
        loops.as_int(x.shape[0]), height, width, depth, channels, (top, left, bottom, right)
    )
    algorithm = next(known for known in (F2, F4) if known.m == m)
    cut = layout(conv, algorithm, target)
    if cut.nb != loops.as_int(u.shape[4]) or not stores_alike(output, final, cut.nb):
        return None
    return Match(x, u, output, final, cut, x.shape[0])


def emit(found: Match, target: CpuTarget) -> Stmt:
    """The statement that computes ``found.final``."""
    return _Kernel(found, target).body()


class _Kernel:
    """One kernel being written."""

    def __init__(self, found: Match, target: CpuTarget) -> None:
        self.found, self.cut, self.target = found, found.layout, target
        self.conv, self.lanes = found.layout.conv, target.lanes
        self.m, self.n = found.layout.algorithm.m, found.layout.algorithm.n
        cut, planes = self.cut, self.n * self.n
        self.images: Any = found.layout.conv.images or found.batch
        self.total: loops.Extent = cut.total
        self.tasks: loops.Extent = cut.tasks
        self.pitch: loops.Extent = cut.pitch
        if self.conv.images is None:
            self.total = found.batch * cut.total
            self.tasks = tirx.floordiv(self.total + (cut.rows - 1), cut.rows)
            if cut.shared:
                # Filled up to an odd number of cache lines, as in the layout.
                lines = tirx.floordiv(self.total * self.conv.depth + (LINE - 1), LINE)
                self.pitch = (tirx.floordiv(lines, 2) * 2 + 1) * LINE
        self.products = loops.workspace([planes * cut.pitch_out], "float32", "products")
        self.patch = loops.workspace([planes * self.conv.depth], "float32", "patch")

    def body(self) -> Stmt:
        sizes = {"total": self.total, "tasks": self.tasks, "pitch": self.pitch}
        return loops.named(self._named, **sizes)

    def _named(self, total: Any, tasks: Any, pitch: Any) -> Stmt:
        cut, self.pitch = self.cut, pitch
        self.data = loops.workspace([pitch * (self.n * self.n)], "float32", "data")

        def first(block: Expr) -> Expr:
            return tirx.min(block * cut.rows, total - cut.rows)

        def whole(task: Expr) -> Stmt:
            start = first(task)
            return loops.seq(
                *map(loops.allocate, (self.data, self.products, self.patch)),
                loops.serial(cut.rows, lambda t: self.read(start + t, t), "t"),
                loops.serial(cut.blocks, lambda b: self.columns(b, start, loops.const(0)), "b"),
            )

        def prepared(tile: Expr) -> Stmt:
            return loops.seq(loops.allocate(self.patch), self.read(tile, tile))

        def column(p: Expr) -> Stmt:
            block, task = loops.split_two(p, tasks)
            start = first(task)
            return loops.seq(loops.allocate(self.products), self.columns(block, start, start))

        if not cut.shared:
            return loops.parallel(tasks, whole)
        return loops.seq(
            loops.allocate(self.data),
            loops.parallel(total, prepared),
            loops.parallel(loops.product([tasks, cut.blocks]), column),
        )

    def _place(self, tile: Expr) -> tuple[Expr, Expr, Expr]:
        """Image, first output row and first output column of a tile."""
        b, y, x = loops.split_index(tile, [self.images, self.cut.down, self.cut.across])
        return b, y * self.m, x * self.m

    def read(self, tile: Expr, slot: Expr) -> Stmt:
        """The transformed input of a tile, stored as row ``slot`` of the planes."""
        n, conv, x = self.n, self.conv, self.found.x
        b, y0, x0 = self._place(tile)
        y0, x0 = y0 - conv.padding[0], x0 - conv.padding[1]

        def fill(i: Expr, j: Expr) -> Stmt:
            at = (i * n + j) * conv.depth

            def copy(value: Callable[[Expr], Expr]) -> Stmt:
                return loops.span(
                    conv.depth, self.lanes, lambda c: loops.store(self.patch, value(c), [at + c])
                )

            y, z = y0 + i, x0 + j
            inside = tirx.all(y >= 0, y < conv.height, z >= 0, z < conv.width)
            return loops.branch(inside, copy(lambda c: x[b, y, z, c]), copy(lambda _c: _ZERO))

        whole = tirx.all(y0 >= 0, y0 + n <= conv.height, x0 >= 0, x0 + n <= conv.width)
        return loops.branch(
            whole,
            self._transform_in(lambda i, j, c: x[b, y0 + i, x0 + j, c], slot),
            loops.seq(
                loops.serial(n, lambda i: loops.serial(n, lambda j: fill(i, j), "j"), "i"),
                self._transform_in(lambda i, j, c: self.patch[(i * n + j) * conv.depth + c], slot),
            ),
        )

    def _transform_in(self, get: Callable[[int, int, Expr], Expr], slot: Expr) -> Stmt:
        n, cut = self.n, self.cut

        def some(c: Expr, lanes: int) -> Stmt:
            code = Vectors(lanes)

            def element(i: int, j: int) -> Value:
                return lambda v: get(i, j, c + v)

            half: dict[tuple[int, int], Value] = {}
            for j in range(n):
                column = [element(i, j) for i in range(n)]
                for i, value in enumerate(winograd_transforms.into(cut.algorithm, code, column)):
                    half[i, j] = code.keep(value)
            for i in range(n):
                row = [half[i, j] for j in range(n)]
                for j, value in enumerate(winograd_transforms.into(cut.algorithm, code, row)):
                    at = (i * n + j) * self.pitch + slot * self.conv.depth + c
                    code.write(self.data, value, at)
            return code.body()

        full, rest = divmod(self.conv.depth, self.lanes)
        parts = [loops.serial(full, lambda c: some(c * self.lanes, self.lanes), "c")]
        if rest:
            parts.append(some(loops.const(full * self.lanes), rest))
        return loops.seq(*parts)

    def columns(self, block: Expr, first: Expr, held: Expr) -> Stmt:
        """Products and outputs of one block of channels: tiles from ``first``, whose
        transformed input is from row ``held`` of its planes.
        """
        n = self.n
        return loops.seq(
            loops.serial(
                n, lambda i: loops.serial(n, lambda j: self.multiply(i, j, block, held), "j"), "i"
            ),
            loops.serial(self.cut.rows, lambda t: self.write(block, first + t, t), "t"),
        )

    def multiply(self, i: Expr, j: Expr, block: Expr, held: Expr) -> Stmt:
        """One plane of products, ``[rows, C] x [C, NB]``."""
        cut, depth, u = self.cut, self.conv.depth, self.found.u
        mr = cut.register_rows(self.target)
        full, rest = divmod(cut.rows, mr)
        plane = i * self.n + j
        lines = max(1, -(-(cut.nb // LINE) // (full + bool(rest))))

        def tile(number: Expr, row: Expr, count: int) -> Stmt:
            acc = loops.local([count, cut.nb], "float32", "acc")

            def over(body: Callable[[Expr, Expr], Stmt]) -> Stmt:
                return loops.unroll(
                    count, lambda r: loops.vectors(cut.nb, self.lanes, lambda c: body(r, c)), "r"
                )

            def step(k: Expr) -> Stmt:
                def term(r: Expr, c: Expr) -> Stmt:
                    at = plane * self.pitch + (held + row + r) * depth + k
                    return loops.store(
                        acc, acc[r, c] + self.data[at] * u[block, i, j, k, c], [r, c]
                    )

                ahead = [
                    loops.prefetch(
                        u, [block, i, j, depth, ((number * lines + line) * depth + k) * LINE]
                    )
                    for line in range(lines)
                ]
                return loops.seq(*ahead, over(term))

            def keep(r: Expr, c: Expr) -> Stmt:
                at = plane * cut.pitch_out + (row + r) * cut.nb + c
                return loops.store(self.products, acc[r, c], [at])

            return loops.seq(
                loops.allocate(acc),
                over(lambda r, c: loops.store(acc, _ZERO, [r, c])),
                loops.serial(depth, step, "k"),
                over(keep),
            )

        parts = [loops.serial(full, lambda q: tile(q, q * mr, mr), "q")]
        if rest:
            parts.append(tile(loops.const(full), loops.const(full * mr), rest))
        return loops.seq(*parts)

    def write(self, block: Expr, tile: Expr, slot: Expr) -> Stmt:
        """Outputs of one tile and the channels of a block that exist."""
        b, y0, x0 = self._place(tile)
        height, width = self.conv.outputs
        nb, channels = self.cut.nb, self.conv.channels
        ragged = bool(height % self.m or width % self.m)

        def store(i: Any, j: Any, c: Expr, value: Value, lanes: int) -> Stmt:
            place = [b, y0 + i, x0 + j, block * nb + c]
            made = loops.vector(lanes, lambda v: self._finished(place, v, value(v)))
            if not ragged:
                return made
            return loops.branch(tirx.all(y0 + i < height, x0 + j < width), made)

        full: loops.Extent = nb // self.lanes
        if channels % nb:
            full = tirx.min(loops.const(full), tirx.floordiv(channels - block * nb, self.lanes))
        parts = [
            loops.serial(
                full,
                lambda c: self._transform_out(slot, c * self.lanes, self.lanes, store),
                "c",
            )
        ]
        rest = channels % self.lanes
        if rest:
            start = channels % nb - rest
            last = self._transform_out(slot, loops.const(start), rest, store)
            parts.append(loops.branch(block.equal(self.cut.blocks - 1), last))
        return loops.seq(*parts)

    def _finished(self, place: list[Expr], lane: Any, sum_: Expr) -> Stmt:
        """The store of one element, with everything fused into it."""
        final = self.found.final
        index = [*place[:3], place[3] + lane]
        at = dict(zip([it.var for it in final.spatial], index, strict=True))
        value = replace_loads(final.value, self.found.output.out, lambda _indices: sum_)
        return loops.store(
            final.out,
            loops.substitute(value, at),
            [loops.substitute(i, at) for i in final.indices],
        )

    def _transform_out(self, slot: Expr, c: Expr, lanes: int, store: Callable[..., Stmt]) -> Stmt:
        n, m, cut, code = self.n, self.m, self.cut, Vectors(lanes)

        def product(i: int, j: int) -> Value:
            at = (i * n + j) * cut.pitch_out + slot * cut.nb + c
            return lambda v: self.products[at + v]

        half: dict[tuple[int, int], Value] = {}
        for j in range(n):
            column = [product(i, j) for i in range(n)]
            for i, value in enumerate(winograd_transforms.out_of(cut.algorithm, code, column)):
                half[i, j] = code.keep(value)
        heavy = is_heavy(self.found.final.value)
        tile = loops.local([m * m * lanes], "float32", "tile")
        if heavy:
            code.add(loops.allocate(tile))
        for i in range(m):
            row = [half[i, j] for j in range(n)]
            for j, value in enumerate(winograd_transforms.out_of(cut.algorithm, code, row)):
                if heavy:
                    code.write(tile, value, loops.const((i * m + j) * lanes))
                else:
                    code.add(store(i, j, c, value, lanes))

        def rest(i: Expr, j: Expr) -> Stmt:
            return store(i, j, c, lambda v: tile[(i * m + j) * lanes + v], lanes)

        if heavy:
            code.add(loops.serial(m, lambda i: loops.serial(m, lambda j: rest(i, j), "j"), "i"))
        return code.body()
