"""What a split model is: bytes of weights a rank, and what the ranks tell each other a call."""

from __future__ import annotations

import math
from dataclasses import dataclass

import tvm
from tvm import relax

from burnish.passes.graph import bindings, static_shape
from burnish.passes.shardings import ALL_GATHER, ALL_REDUCE


@dataclass(frozen=True)
class Collective:
    """``kind`` "all_reduce" or "all_gather"; ``bytes`` of its result."""

    kind: str
    bytes: int


@dataclass(frozen=True)
class ParallelReport:
    """A model over ranks.

    ``parameter_bytes`` are those of each rank's weights, ``whole_bytes`` those of the model;
    ``stored_bytes`` what each artifact holds of them, packed for its kernels. ``collectives`` run
    in this order on every rank.
    """

    devices: tuple[str, ...]
    whole_bytes: int
    parameter_bytes: tuple[int, ...]
    stored_bytes: tuple[int, ...]
    collectives: tuple[Collective, ...]

    @property
    def shares(self) -> tuple[float, ...]:
        """Each rank's weights as a part of the whole."""
        return tuple(size / self.whole_bytes for size in self.parameter_bytes)

    def __str__(self) -> str:
        lines = [
            f"rank {rank} on {device}: {size / 1e6:.2f} MB of weights, {share:.3f} of the whole"
            for rank, (device, size, share) in enumerate(
                zip(self.devices, self.parameter_bytes, self.shares, strict=True)
            )
        ]
        for kind in ("all_reduce", "all_gather"):
            sizes = [one.bytes for one in self.collectives if one.kind == kind]
            lines.append(f"{len(sizes)} {kind} a call, {sum(sizes) / 1e6:.2f} MB")
        return "\n".join(lines)


def collectives_of(mod: tvm.IRModule) -> tuple[Collective, ...]:
    """The collectives of ``main`` in order."""
    found = []
    for binding in bindings(mod["main"]):
        value = binding.value
        if not isinstance(value, relax.Call) or len(value.args) < 2:
            continue
        function = value.args[0]
        name = function.global_symbol if isinstance(function, relax.ExternFunc) else ""
        if name in (ALL_REDUCE, ALL_GATHER):
            item = int(tvm.DataType(str(value.ty.dtype)).itemsize)
            size = math.prod(static_shape(value) or ()) * item
            found.append(Collective(str(name).removeprefix("burnish."), size))
    return tuple(found)
