"""Cut a graph into regions that go together: as few, as large as there can be, without circles."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import tvm
from tvm import relax

from burnish.passes.params import with_main

Supported = Callable[[relax.Call], bool]
"""Whether the other compiler can take a call."""
Label = Callable[[relax.Binding], str | None]
"""Where a binding is to be computed; ``None`` leaves it outside of all regions."""


@dataclass(frozen=True)
class Region:
    """Calls that go together: no path between two of them leaves it.

    ``inputs`` are read from outside, run-time values and weights; ``outputs`` are read outside.
    All are in program order. ``label`` is what its calls have in common.
    """

    calls: tuple[relax.VarBinding, ...]
    inputs: tuple[relax.Var, ...]
    outputs: tuple[relax.Var, ...]
    label: str = ""


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
    groups: list[tuple[relax.Binding, ...]] = []
    taken: set[relax.Var] = set()
    for region in find_regions(main, supported):
        made = replace(region)
        if made is not None:
            groups.append(tuple(made))
            taken.update(binding.var for binding in region.calls)
    if not groups:
        return mod
    body = relax.SeqExpr(
        [relax.DataflowBlock(with_groups(blocks[0].bindings, groups, taken))], main.body.body
    )
    new = relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)
    return relax.transform.Normalize()(with_main(mod, new))


Queue = Callable[[relax.Binding], str]
"""The queue whose device computes a binding while the host goes on; empty for the host."""


def with_groups(
    bindings: Sequence[relax.Binding],
    groups: Iterable[tuple[relax.Binding, ...]],
    taken: set[relax.Var],
    queue: Queue = lambda binding: "",
) -> list[relax.Binding]:
    """``bindings`` with ``groups`` in the place of those of ``taken``, each after what it reads.

    Near program order, but for queues: what can go into one, or leads to it, goes first, and what
    waits for one comes after what does not.
    """
    places = {binding.var: place for place, binding in enumerate(bindings)}
    every = [*groups, *((binding,) for binding in bindings if binding.var not in taken)]
    queues = [queue(group[0]) for group in every]
    ordered = _ordered(every, places, _sizes(bindings), queues)
    return [binding for group in ordered for binding in group]


def find_regions(main: relax.Function, supported: Supported) -> list[Region]:
    """Regions of supported calls, in program order; ``main`` is one dataflow block."""
    (block,) = main.body.blocks

    def label(binding: relax.Binding) -> str | None:
        value = binding.value
        return "" if isinstance(value, relax.Call) and supported(value) else None

    return label_regions(list(block.bindings), label, main.body.body)


def label_regions(
    bindings: Sequence[relax.Binding], label: Label, result: relax.Expr
) -> list[Region]:
    """Regions of bindings of one label, in program order; ``result`` is what is returned.

    In program order a binding joins the region of an operand, else the last region of its label,
    where it does not read that region through a value outside it; else it begins a new one.
    """
    home: dict[relax.Var, int] = {}
    above: dict[relax.Var, frozenset[int]] = {}
    regions: list[list[relax.VarBinding]] = []
    labels: list[str] = []
    before: list[frozenset[int]] = []  # regions that each comes after
    last: dict[str, int] = {}
    sizes = _sizes(bindings)
    waits = [_waits(binding, sizes) for binding in bindings]
    for binding, read in zip(bindings, waits, strict=True):
        # Regions that the call reads through anything, and those it reads through an outsider.
        through = {var: above.get(var, frozenset()) for var in read}
        reached = frozenset().union(*through.values()) | {home[v] for v in read if v in home}
        own = label(binding)
        if own is None:
            above[binding.var] = reached
            continue
        wanted = sorted(
            {home[v] for v in read if v in home and labels[home[v]] == own}, reverse=True
        )
        if own in last:
            wanted.append(last[own])
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
            before.append(frozenset())
            labels.append(own)
            last[own] = chosen
        regions[chosen].append(binding)
        home[binding.var] = chosen
        # What the region reads, all of it reads: its calls will run together.
        before[chosen] |= reached - {chosen}
        above[binding.var] = before[chosen]
        _spread(above, before, home, chosen)
    return _regions(regions, labels, bindings, home, result)


def _reads_of(value: relax.Expr) -> list[relax.Var]:
    """Values that an expression reads; sizes are none."""
    free = relax.analysis.free_vars(value)
    return [var for var in dict.fromkeys(free) if not tvm.ir.is_prim_var(var)]


def _sizes(bindings: Iterable[relax.Binding]) -> dict[relax.Expr, relax.Var]:
    """Sizes that become known in the middle (``match_cast``), and the value each is read from."""
    seen: set[relax.Expr] = set()
    found: dict[relax.Expr, relax.Var] = {}
    for binding in bindings:
        sizes = set(relax.analysis.tir_vars_in_type(binding.var.ty))
        if isinstance(binding, relax.MatchCast):
            found.update((size, binding.var) for size in sizes - seen)
        seen |= sizes
    return found


def _waits(binding: relax.Binding, sizes: Mapping[relax.Expr, relax.Var]) -> list[relax.Var]:
    """What a binding comes after: values that it reads, and those its sizes were read from."""
    read: dict[relax.Var, None] = {}
    free = dict.fromkeys(relax.analysis.free_vars(binding.value))
    if sizes:
        free.update(dict.fromkeys(relax.analysis.tir_vars_in_type(binding.var.ty)))
    for var in free:
        value = sizes.get(var) if tvm.ir.is_prim_var(var) else var
        if value is not None and not value.same_as(binding.var):
            read[value] = None
    return list(read)


def _spread(
    above: dict[relax.Var, frozenset[int]],
    before: list[frozenset[int]],
    home: dict[relax.Var, int],
    grown: int,
) -> None:
    """Every region and value that comes after the region ``grown`` comes after what it reads."""
    added = before[grown]
    for one, others in enumerate(before):
        if grown in others:
            before[one] = others | added
    for var, others in above.items():
        if home.get(var) == grown or grown in others:
            above[var] = others | added


def _regions(
    regions: Sequence[Sequence[relax.VarBinding]],
    labels: Sequence[str],
    bindings: Sequence[relax.Binding],
    home: dict[relax.Var, int],
    result: relax.Expr,
) -> list[Region]:
    outside = set(_reads_of(result))
    inputs: list[dict[relax.Var, None]] = [{} for _ in regions]
    for binding in bindings:
        own = home.get(binding.var)
        for var in _reads_of(binding.value):
            if own is None or home.get(var) != own:
                outside.add(var)
                if own is not None:
                    inputs[own][var] = None
    return [
        Region(
            tuple(calls),
            tuple(inputs[at]),
            tuple(binding.var for binding in calls if binding.var in outside),
            labels[at],
        )
        for at, calls in enumerate(regions)
    ]


def _turns(waits: Sequence[set[int]], queues: Sequence[str]) -> list[int]:
    """Of groups that are ready, which goes first; ``waits`` are those that each comes after.

    0. One that goes into a queue, 1. one that leads to such a one, 2. one that needs no result of
    a queue, 3. and 4. those that do, and wait for it: what leads to a queue, and what does not.
    """
    leads: set[int] = set()
    pending = [at for at, queue in enumerate(queues) if queue]
    while pending:
        for other in waits[pending.pop()] - leads:
            leads.add(other)
            pending.append(other)
    found = []
    for at, (needed, own) in enumerate(zip(waits, queues, strict=True)):
        needs = any(queues[one] not in ("", own) for one in needed)
        found.append((3 if at in leads or own else 4) if needs else 0 if own else 2 - (at in leads))
    return found


def _ordered(
    groups: Sequence[tuple[relax.Binding, ...]],
    places: dict[relax.Var, int],
    sizes: Mapping[relax.Expr, relax.Var],
    queues: Sequence[str],
) -> list[tuple[relax.Binding, ...]]:
    """Groups with readers after what they read; ``queues`` is the queue of each."""
    maker = {binding.var: at for at, group in enumerate(groups) for binding in group}
    waits: list[set[int]] = []
    readers: dict[int, list[int]] = {}
    for at, group in enumerate(groups):
        read = {var for binding in group for var in _waits(binding, sizes)}
        waits.append({maker[var] for var in read if var in maker} - {at})
        for other in waits[-1]:
            readers.setdefault(other, []).append(at)
    turn = _turns(waits, queues)
    rank = [max((places[b.var] for b in group if b.var in places), default=0) for group in groups]
    ready = [(turn[at], rank[at], at) for at, needed in enumerate(waits) if not needed]
    heapq.heapify(ready)
    done = []
    while ready:
        *_, at = heapq.heappop(ready)
        done.append(groups[at])
        for reader in readers.get(at, ()):
            waits[reader].discard(at)
            if not waits[reader]:
                heapq.heappush(ready, (turn[reader], rank[reader], reader))
    if len(done) != len(groups):
        raise RuntimeError("regions read each other in a circle")
    return done
