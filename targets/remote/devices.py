"""What code is made for on a device of another machine."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from burnish.targets.opencl.target import OpenclTarget, parse_opencl
from burnish.targets.remote.address import Address
from burnish.targets.remote.machine import machine_at
from burnish.targets.target import ARCHITECTURES, CpuTarget, parse_target


def device_there(address: Address, device: str) -> CpuTarget | OpenclTarget:
    """The target of ``cpu``, ``cpu:cortex-a76``, ``opencl:0`` or ``opencl:mali:0`` of a server.

    1. Where the name says no CPU, the server is asked for its own.
    2. A CPU is of the architecture, of those with rules, that LLVM knows it of.
    3. OpenCL's host code is for this machine's architecture; the server refuses another.

    ``OSError`` where there is no server; ``ValueError`` for a device that there is not.
    """
    kind, _, which = device.partition(":")
    if kind == "opencl":
        preset, _, index = device.rpartition(":")
        if index.isdecimal() and int(index):
            raise ValueError(f"device {device!r} of {address}: a server has one, opencl:0")
        return parse_opencl(preset if index.isdecimal() else device)
    if kind != "cpu":
        raise ValueError(f"device {device!r} of {address}: a server has cpu, cpu:CPU and opencl:0")
    if not which:
        return machine_at(address).target()
    for machine in ARCHITECTURES:
        with suppress(ValueError):
            named = parse_target(f"llvm -mcpu={which} -mtriple={machine}-linux-gnu")
            return replace(named, name="cpu")
    raise ValueError(
        f"device {device!r} of {address}: LLVM knows no CPU {which!r} of "
        f"{' or '.join(ARCHITECTURES)}"
    )
