"""What an operand reads in ``lanes`` steps of a loop, as whole vectors where memory allows it.

Loads whose places are neighbours (a row of weights), or that several steps share (a word of 4-bit
codes, the scale of a group), are made once, up to 16 bytes an instruction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.sym import Analyzer
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.stages import loads, same_indices
from burnish.targets.divisors import without_negative_divisors
from burnish.targets.gpu.contraction import flat_index

VECTOR_BYTES = 16
Bounds = Mapping[Var, tuple[Any, Any]]


@dataclass(frozen=True)
class Fetch:
    """A load whose places in ``lanes`` steps are ``count`` neighbours, each for ``share`` steps.

    ``together`` of them are read by one instruction.
    """

    load: TensorLoad
    count: int
    share: int
    together: int

    @property
    def dtype(self) -> str:
        return str(self.load.source.dtype)

    @property
    def bytes(self) -> int:
        """Of one instruction, where there is more than one element; else 0."""
        return self.together * tvm.DataType(self.dtype).itemsize if self.together > 1 else 0


@dataclass(frozen=True)
class Operand:
    """``value`` at ``lanes`` steps of ``lane``, and what it reads."""

    value: Expr
    lane: Var
    lanes: int
    fetches: tuple[Fetch, ...]
    bounds: Bounds

    @property
    def bytes(self) -> int:
        """Of the widest instruction that reads it."""
        return max((fetch.bytes for fetch in self.fetches), default=0)

    @property
    def span(self) -> int:
        """Bytes of the most that lies side by side."""
        return max(
            (fetch.count * tvm.DataType(fetch.dtype).itemsize for fetch in self.fetches), default=0
        )

    def simplify(self, value: Any) -> Any:
        return without_negative_divisors(_analyzer(self.bounds).simplify(value))

    def read(self, name: str, at: Mapping[Var, Any]) -> tuple[list[Stmt], list[Var]]:
        """Statements that read all into buffers of the work item, one a fetch."""
        parts: list[Stmt] = []
        buffers = []
        for number, fetch in enumerate(self.fetches):
            buffer = loops.local([fetch.count], fetch.dtype, f"{name}{number}")
            buffers.append(buffer)
            parts.append(loops.allocate(buffer))
            for first in range(0, fetch.count, fetch.together):
                copy = partial(self._copy, fetch, buffer, first, at)
                parts.append(loops.vector(fetch.together, copy))
        return parts, buffers

    def _copy(self, fetch: Fetch, buffer: Var, first: int, at: Mapping[Var, Any], v: Any) -> Stmt:
        place = v + loops.const(first)
        step = self.simplify(place * fetch.share)
        indices = [
            loops.substitute(self.simplify(loops.substitute(index, {self.lane: step})), at)
            for index in fetch.load.indices
        ]
        return loops.store(buffer, fetch.load.source[tuple(indices)], [place])

    def at(self, lane: Any, buffers: Sequence[Var], at: Mapping[Var, Any]) -> Expr:
        """The value at a step, from what was read."""

        def read(load: TensorLoad) -> Any:
            for fetch, buffer in zip(self.fetches, buffers, strict=True):
                if _same(fetch.load, load):
                    return buffer[(tirx.floordiv(self.lane, fetch.share),)]
            return load

        value = tvm_ffi.structural_map(self.value, [(TensorLoad, read)], order="post")
        value = self.simplify(loops.substitute(value, {self.lane: lane}))
        return loops.substitute(value, at)


def operand(
    value: Expr, lane: Var, lanes: int, bounds: Bounds, *, aligned: bool = True
) -> Operand | None:
    """``value`` read in ``lanes`` steps; ``None`` where its loads are not as :class:`Fetch` says.

    ``bounds`` are of all other variables, ``[low, high)``. Places of vectors are multiples of
    their size, unless ``aligned`` is false.
    """
    fetches: list[Fetch] = []
    for load in loads(value):
        if any(_same(load, fetch.load) for fetch in fetches):
            continue
        found = _fetch(load, lane, lanes, bounds, aligned)
        if found is None:
            return None
        fetches.append(found)
    every = {**bounds, lane: (0, lanes)}
    return Operand(value, lane, lanes, tuple(fetches), every)


def _same(one: TensorLoad, other: TensorLoad) -> bool:
    return one.source.same_as(other.source) and same_indices(one.indices, other.indices)


def _fetch(load: TensorLoad, lane: Var, lanes: int, bounds: Bounds, aligned: bool) -> Fetch | None:
    flat = flat_index(load.indices, list(load.source.shape))
    analyzer = _analyzer(bounds)
    start = analyzer.simplify(loops.substitute(flat, {lane: loops.const(0)}))
    offsets = []
    for step in range(lanes):
        here = loops.substitute(flat, {lane: loops.const(step)})
        offset = loops.as_int(analyzer.simplify(here - start))
        if offset is None:
            return None
        offsets.append(offset)
    count = offsets[-1] + 1
    if count < 1 or lanes % count:
        return None
    share = lanes // count
    if offsets != [step // share for step in range(lanes)]:
        return None
    most = max(1, VECTOR_BYTES // tvm.DataType(str(load.source.dtype)).itemsize)
    together = min(count, most)
    if aligned and together > 1:
        known = analyzer.modular_set(start)
        if int(known.coeff) % together or int(known.base) % together:
            return None
    return Fetch(load, count, share, together)


def _analyzer(bounds: Bounds) -> Any:
    found = Analyzer()
    for var, (low, high) in bounds.items():
        found.bind(var, tvm.ir.Range(low, high))
    return found
