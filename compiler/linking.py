"""The program that links the library of a target: this machine's, or one for another machine."""

from __future__ import annotations

import platform
import shutil

from tvm.support import cc

from burnish.compiler.errors import BuildError
from burnish.targets.isa import machine_name
from burnish.targets.target import CpuTarget

_PACKAGES = {"aarch64": "g++-aarch64-linux-gnu", "x86_64": "g++-x86-64-linux-gnu"}


def linker(target: CpuTarget) -> str:
    """The C++ compiler that links for ``target``: the machine's own, ``$CXX`` first, or TRIPLE-g++.

    Raises :class:`BuildError` naming what is missing.
    """
    names = cross_linkers(target)
    if not names:
        own = cc.get_cc()
        if own is None or shutil.which(own) is None:
            raise BuildError("building needs a C++ linker driver (g++ or clang++) on PATH")
        return str(own)
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        debian = "linux" in (target.mtriple or "") and _PACKAGES.get(target.machine)
        raise BuildError(
            f"building for {target.mtriple or target.machine} on {platform.machine()} needs a "
            f"linker for it: {' or '.join(names)} is not on PATH"
            + (f" (Debian: apt install {debian})" if debian else "")
        )
    return found


def cross_linkers(target: CpuTarget) -> list[str]:
    """Programs that would link for another machine's target, best first; none for this one's."""
    triple = target.mtriple or ""
    linux = not triple or "linux" in triple or triple == target.machine
    if linux and target.machine == machine_name(platform.machine()):
        return []
    names = [f"{triple}-g++"] if triple != target.machine else []
    return list(dict.fromkeys([*names, *([f"{target.machine}-linux-gnu-g++"] if linux else [])]))
