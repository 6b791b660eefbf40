"""Ranks of a split model as threads of this process: the real group, with no processes."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import tvm
from tvm import relax

from burnish.compiler.parallel.group import HALVES, Group, join, meshed
from burnish.passes.params import get_params
from burnish.passes.split_tensors import SplitTensors
from relax_support import apply

HALF = 1 << 20


def split(mod: tvm.IRModule, parts: int, least: int = 1) -> list[tvm.IRModule]:
    """The module of every rank; the argument is untouched, and each is well formed."""
    return [apply(SplitTensors(parts, rank, least), mod) for rank in range(parts)]


def run_ranks(mods: Sequence[tvm.IRModule], *inputs: np.ndarray) -> list[list[np.ndarray]]:
    """Outputs of every rank, run at the same time."""
    memory = bytearray(HALVES * HALF)
    groups = [
        Group(rank, channels, memory, HALF, timeout_s=20.0)
        for rank, channels in enumerate(meshed(len(mods)))
    ]
    join(groups[0], thread=True)
    mains = []
    for mod in mods:
        with tvm.transform.PassContext():
            ready = relax.transform.DecomposeOpsForInference()(mod.without_attr("params"))
            machine = relax.VirtualMachine(relax.build(ready, "llvm"), tvm.cpu())
        weights = list(get_params(mod).values())
        mains.append((machine, [*map(tvm.runtime.tensor, inputs), *weights]))
    found: list[list[np.ndarray]] = [[] for _ in mods]
    errors: list[BaseException] = []

    def work(rank: int) -> None:
        try:
            join(groups[rank], thread=True)
            machine, arguments = mains[rank]
            out = machine["main"](*arguments)
            single = isinstance(out, tvm.runtime.Tensor)
            found[rank] = [x.numpy() for x in ([out] if single else out)]
        except BaseException as error:  # noqa: BLE001 - told by the caller
            errors.append(error)
        finally:
            groups[rank].close()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(mods))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
    return found
