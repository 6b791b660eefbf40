"""When a call ends whose devices work through queues while the host goes on.

As ``main`` of a cut model gives them work (:mod:`burnish.passes.send_early`): the host begins a
region of such a device and goes on, and waits for it where it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import tvm
from tvm import relax

from burnish.passes.graph import op_name
from burnish.passes.partition_graph import DEVICE, regions
from burnish.passes.virtual_devices import memory_of
from burnish.targets.hetero import HeteroTarget
from burnish.targets.opencl import runtime


@dataclass(frozen=True)
class Step:
    """A region by name, in the memory it works in, or a move of ``bytes`` to another memory."""

    memory: str
    region: str = ""
    target: str = ""
    bytes: int = 0


def beside_host(target: HeteroTarget) -> frozenset[str]:
    """Memories of devices that work while the host does; an OpenCL device that is the CPU is none.

    Both would work on the same cores.
    """
    found = set()
    for place in target.places:
        if place.name not in target.queued:
            continue
        known = runtime.devices() if place.target.kind == "opencl" else ()
        if place.index >= len(known) or known[place.index].kind != "cpu":
            found.add(place.memory)
    return frozenset(found)


def steps_in_order(mod: tvm.IRModule, memory: Callable[[str], str]) -> tuple[Step, ...]:
    """What ``main`` of a cut module does; ``memory`` of a device by name."""
    cut = regions(mod)
    found = []
    for block in mod["main"].body.blocks:
        for binding in block.bindings:
            value = binding.value
            function = value.op if isinstance(value, relax.Call) else None
            if isinstance(function, tvm.ir.GlobalVar) and function in cut:
                device = str(cut[function].attrs[DEVICE])
                found.append(Step(memory(device), region=str(function.name_hint)))
            elif op_name(value) == "relax.to_vdevice":
                source, target = (str(memory_of(one.ty)) for one in (value.args[0], value))
                found.append(Step(source, target=target, bytes=_bytes(value.ty)))
    return tuple(found)


def queued_seconds(
    steps: Sequence[Step],
    beside: Collection[str],
    seconds: Callable[[Step], float],
    begin: Callable[[Step], float],
) -> float:
    """When all is done, in seconds; ``begin`` is what the host takes to begin a region.

    1. A region on the host, and one on a device that is not ``beside`` it, takes the host's time.
    2. One on a device beside it starts when the device is free, and the host goes on.
    3. A move to OpenCL takes the device's time, in its turn, and no time of the host. Any other
       waits for the device, and takes the time of both.
    """
    host = 0.0
    free = dict.fromkeys(beside, 0.0)
    for step in steps:
        taken = seconds(step)
        if step.region:
            started, host = host, host + begin(step)
            if step.memory in free:
                free[step.memory] = max(free[step.memory], started) + taken
            else:
                host += taken
        elif step.target in free and step.target.startswith("opencl"):
            free[step.target] = max(free[step.target], host) + taken
        else:
            ends = [one for one in (step.memory, step.target) if one in free]
            host = max([host, *(free[one] for one in ends)]) + taken
            free.update(dict.fromkeys(ends, host))
    return max([host, *free.values()])


def _bytes(ty: relax.TensorType) -> int:
    count = 1
    for size in ty.shape:
        count *= int(size)
    return count * int(tvm.DataType(str(ty.dtype)).itemsize)


__all__ = ["Step", "beside_host", "queued_seconds", "steps_in_order"]
