"""TVM's virtual machine for graphs, by the global functions of a library."""

from __future__ import annotations

from typing import Any

CPU, CUDA, OPENCL = 1, 2, 4
"""Types of devices, by DLPack."""
_POOLED = 2
"""TVM's allocator that keeps what was freed for the next call."""


def machine_of(library: Any, device: int = CPU) -> Any:
    """A machine for a loaded library on the first device of a type: ``machine["main"]`` runs it."""
    machine = library["vm_load_executable"]()
    places = [device, 0, _POOLED]
    if device != CPU:  # shapes are computed on the CPU
        places += [CPU, 0, _POOLED]
    machine["vm_initialization"](*places)
    return machine
