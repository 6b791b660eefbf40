"""When regions of devices that work at the same time start and end, as ``OnCores`` runs them.

A device runs its regions in the order in which ``main`` starts them, each when what it reads is
there: at once where the device has made it itself, after a turn where another has. ``main`` starts
regions without waiting, but for what it reads itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tvm
from tvm import relax

from burnish.passes.partition_graph import DEVICE, regions


@dataclass(frozen=True)
class OrderedRegion:
    """A region, its device, and the regions it ``reads`` of; those ``main`` has waited for before
    it starts the region are in ``after``."""

    function: tvm.ir.GlobalVar
    device: str
    reads: tuple[str, ...]
    after: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.function.name_hint)


def regions_in_order(mod: tvm.IRModule) -> tuple[OrderedRegion, ...]:
    """The regions of a module that is cut, in the order in which ``main`` starts them."""
    cut = regions(mod)
    made: dict[relax.Var, frozenset[str]] = {}
    waited: dict[str, None] = {}
    found = []
    for block in mod["main"].body.blocks:
        for binding in block.bindings:
            value = binding.value
            read = [made[var] for var in relax.analysis.free_vars(value) if var in made]
            before = frozenset[str]().union(*read)
            function = value.op if isinstance(value, relax.Call) else None
            if isinstance(function, tvm.ir.GlobalVar) and function in cut:
                device = str(cut[function].attrs[DEVICE])
                one = OrderedRegion(function, device, tuple(sorted(before)), tuple(waited))
                found.append(one)
                made[binding.var] = frozenset((one.name,))
            elif isinstance(value, relax.TupleGetItem):
                made[binding.var] = before
            else:
                waited.update(dict.fromkeys(sorted(before)))
    return tuple(found)


def schedule(order: Sequence[OrderedRegion], seconds: Mapping[str, float], turn: float) -> float:
    """When the last region ends; ``seconds`` of each by name, ``turn`` between two devices."""
    free: dict[str, float] = {}
    done: dict[str, float] = {}
    home = {region.name: region.device for region in order}
    for region in order:
        ready = [done[name] + turn * (home[name] != region.device) for name in region.reads]
        ready += [done[name] + turn for name in region.after]
        start = max([free.get(region.device, 0.0), *ready])
        free[region.device] = done[region.name] = start + seconds[region.name]
    return max(done.values(), default=0.0)


__all__ = ["OrderedRegion", "regions_in_order", "schedule"]
