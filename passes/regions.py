"""Cut what another compiler can take out of a graph: as few, as large regions as there can be."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tvm
from tvm import relax

from burnish.passes.params import with_main

Supported = Callable[[relax.Call], bool]
"""Whether the other compiler can take a call."""


@dataclass(frozen=True)
class Region:
    """Calls that go together: no path between two of them leaves it.

    ``inputs`` are read from outside, run-time values and weights; ``outputs`` are read outside.
    All are in program order.
    """

    calls: tuple[relax.VarBinding, ...]
    inputs: tuple[relax.Var, ...]
    outputs: tuple[relax.Var, ...]


Replace = Callable[[Region], Sequence[relax.VarBinding] | None]
"""Bindings that give a region's ``outputs`` without its calls; ``None`` leaves the calls."""


def replace_regions(mod: tvm.IRModule, supported: Supported, replace: Replace) -> tvm.IRModule:
    """``mod`` with the regions of ``main`` replaced; the argument is untouched.

    ``main`` is one dataflow block, as importers make it; one with branches is left alone.
    """
    main = mod["main"]
    blocks = main.body.blocks
    if len(blocks) != 1 or not isinstance(blocks[0], relax.DataflowBlock):
        return mod
    groups: list[tuple[relax.VarBinding, ...]] = []
    taken: set[relax.Var] = set()
    for region in find_regions(main, supported):
        made = replace(region)
        if made is not None:
            groups.append(tuple(made))
            taken.update(binding.var for binding in region.calls)
    if not groups:
        return mod
    places = {binding.var: place for place, binding in enumerate(blocks[0].bindings)}
    groups += [(binding,) for binding in blocks[0].bindings if binding.var not in taken]
    ordered = [binding for group in _ordered(groups, places) for binding in group]
    body = relax.SeqExpr([relax.DataflowBlock(ordered)], main.body.body)
    new = relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)
    return relax.transform.Normalize()(with_main(mod, new))


def find_regions(main: relax.Function, supported: Supported) -> list[Region]:
    """Regions of supported calls, in program order.

    In program order a call joins the region of an operand, else the last region, where it does not
    read that region through a value outside it; else it begins a new one.
    """
    (block,) = main.body.blocks
    home: dict[relax.Var, int] = {}
    above: dict[relax.Var, frozenset[int]] = {}
    regions: list[list[relax.VarBinding]] = []
    for binding in block.bindings:
        read = list(dict.fromkeys(relax.analysis.free_vars(binding.value)))
        # Regions that the call reads through anything, and those it reads through an outsider.
        through = {var: above.get(var, frozenset()) for var in read}
        reached = frozenset().union(*through.values()) | {home[v] for v in read if v in home}
        call = binding.value
        if not isinstance(call, relax.Call) or not supported(call):
            above[binding.var] = reached
            continue
        wanted = sorted({home[var] for var in read if var in home}, reverse=True)
        if regions:
            wanted.append(len(regions) - 1)
        chosen = next(
            (
                one
                for one in wanted
                if not any(one in through[var] for var in read if home.get(var) != one)
            ),
            len(regions),
        )
        if chosen == len(regions):
            regions.append([])
        regions[chosen].append(binding)
        home[binding.var] = chosen
        # What the region reads, all of it reads: its calls will run together.
        added = reached - {chosen}
        above[binding.var] = added
        if added:
            _spread(regions, above, home, chosen, added)
    return [_region(calls, main, block) for calls in regions]


def _spread(
    regions: list[list[relax.VarBinding]],
    above: dict[relax.Var, frozenset[int]],
    home: dict[relax.Var, int],
    grown: int,
    added: frozenset[int],
) -> None:
    """Every value that the region ``grown`` is above of comes after ``added`` too."""
    for var, regions_above in above.items():
        if home.get(var) == grown or grown in regions_above:
            above[var] = regions_above | added


def _region(
    calls: Sequence[relax.VarBinding], main: relax.Function, block: relax.DataflowBlock
) -> Region:
    own = {binding.var for binding in calls}
    read: dict[relax.Var, None] = {}
    for binding in calls:
        read.update((v, None) for v in relax.analysis.free_vars(binding.value) if v not in own)
    outside = set(relax.analysis.free_vars(main.body.body))
    for binding in block.bindings:
        if binding.var not in own:
            outside.update(relax.analysis.free_vars(binding.value))
    outputs = tuple(binding.var for binding in calls if binding.var in outside)
    return Region(tuple(calls), tuple(read), outputs)


def _ordered(
    groups: Sequence[tuple[relax.VarBinding, ...]], places: dict[relax.Var, int]
) -> list[tuple[relax.VarBinding, ...]]:
    """Groups with readers after what they read, near program order otherwise."""
    maker = {binding.var: at for at, group in enumerate(groups) for binding in group}
    waits: list[set[int]] = []
    readers: dict[int, list[int]] = {}
    for at, group in enumerate(groups):
        read = {v for binding in group for v in relax.analysis.free_vars(binding.value)}
        waits.append({maker[var] for var in read if var in maker} - {at})
        for other in waits[-1]:
            readers.setdefault(other, []).append(at)
    rank = [max((places[b.var] for b in group if b.var in places), default=0) for group in groups]
    ready = [(rank[at], at) for at, needed in enumerate(waits) if not needed]
    heapq.heapify(ready)
    done = []
    while ready:
        _, at = heapq.heappop(ready)
        done.append(groups[at])
        for reader in readers.get(at, ()):
            waits[reader].discard(at)
            if not waits[reader]:
                heapq.heappush(ready, (rank[reader], reader))
    if len(done) != len(groups):
        raise RuntimeError("regions read each other in a circle")
    return done
