"""What this machine can do, and why not: found by trying it.

``PROBES`` is the table. A probe is a function of no arguments that returns a
:class:`~burnish.compiler.doctor.check.Check`; a device's probe builds a kernel and runs it, a
library's probe uses it. A new one is a function in the module it belongs to, and a line here.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from burnish.compiler.doctor import cpu, cuda, libraries, machine, opencl, other_cpus, tools
from burnish.compiler.doctor.check import Check, first_line
from burnish.targets.target import usable_cores

PROBES: tuple[tuple[str, Callable[[], Check]], ...] = (
    # the machine
    ("python", machine.python),
    ("tvm", machine.tvm_pair),
    ("torch", machine.torch_),
    ("memory", machine.memory),
    ("zoo", machine.zoo),
    # devices
    ("cpu", cpu.describe),
    ("instruction set", cpu.instruction_set),
    ("cpu kernel", cpu.kernel),
    ("cuda", cuda.kernel),
    ("opencl", opencl.kernel),
    # programs
    ("c++ compiler", tools.cxx),
    ("aarch64", other_cpus.aarch64),
    ("x86_64", other_cpus.x86_64),
    ("disassembler", tools.disassembler),
    # libraries
    ("nvrtc", cuda.nvrtc),
    *((name, libraries.probe(name)) for name in libraries.LIBRARIES),
)


def examine() -> list[Check]:
    """All checks, in the table's order. Takes some seconds: libraries are loaded and used.

    A probe that raises is a check with status ``broken``.
    """

    def tried(name: str, probe: Callable[[], Check]) -> Check:
        try:
            return probe()
        except Exception as error:  # noqa: BLE001  (whatever goes wrong is the finding)
            return Check(name, "broken", first_line(error), "report it with this line")

    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(lambda row: tried(*row), PROBES))


__all__ = ["PROBES", "Check", "examine"]
