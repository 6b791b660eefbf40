"""Machine code of a cubin, instruction by instruction, and its loops: for checks of schedules.

Read from the text of :mod:`burnish.targets.cuda.disassemble`, as ``nvdisasm`` writes it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from burnish.targets.cuda.disassemble import sass

_KERNEL = re.compile(r"^\.text\.(\S+):$")
_LABEL = re.compile(r"^(\.L_\S+):$")
_INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*)$")
_TARGET = re.compile(r"`\((\.L_\S+)\)")
MATRIX = ("HMMA", "IMMA", "HGMMA", "IGMMA", "QGMMA")
"""Products on tensor cores."""
SPILLS = ("LDL", "STL")
"""Loads and stores of a thread's local memory."""


@dataclass(frozen=True)
class Instruction:
    """``opcode`` without its modifiers, which stand in ``form`` too; ``to`` is the address that a
    branch goes to."""

    address: int
    opcode: str
    to: int | None = None
    form: str = ""


def wide_loads(code: Sequence[Instruction], bits: int = 128) -> int:
    """Loads from global memory of that many bits (64 or 128) a thread."""
    return sum(one.opcode == "LDG" and str(bits) in one.form.split(".") for one in code)


@dataclass(frozen=True)
class Kernel:
    """The instructions of one kernel, in order of address."""

    name: str
    code: tuple[Instruction, ...]

    def count(self, *opcodes: str) -> int:
        """Instructions with one of the opcodes."""
        found = Counter(one.opcode for one in self.code)
        return sum(found[opcode] for opcode in opcodes)

    def loops(self) -> list[tuple[Instruction, ...]]:
        """What lies between the target of each branch back and the branch."""
        return [
            tuple(one for one in self.code if branch.to <= one.address <= branch.address)
            for branch in self.code
            if branch.to is not None and branch.to < branch.address
        ]

    def main_loops(self, *opcodes: str) -> list[tuple[Instruction, ...]]:
        """The loops that hold one of the opcodes and no smaller loop that does."""
        holding = [loop for loop in self.loops() if any(one.opcode in opcodes for one in loop)]
        return [
            loop
            for loop in holding
            if not any(set(other) < set(loop) for other in holding if other is not loop)
        ]


def kernels(cubin: bytes) -> dict[str, Kernel]:
    """Kernels by name; ``ValueError`` where the text names none, as that of another program."""
    found = {kernel.name: kernel for kernel in parse(sass(cubin))}
    if not found:
        raise ValueError("no kernels in the text of the disassembler; nvdisasm names them")
    return found


def parse(text: str) -> list[Kernel]:
    """The kernels in what the disassembler prints."""
    found: list[Kernel] = []
    name, labels = "", dict[str, int]()
    lines: list[tuple[int, str, str | None, str]] = []
    waiting: list[str] = []

    def finish() -> None:
        if name:
            code = (
                Instruction(at, op, labels.get(to) if to else None, form)
                for at, op, to, form in lines
            )
            found.append(Kernel(name, tuple(code)))

    for line in text.splitlines():
        if kernel := _KERNEL.match(line):
            finish()
            name, labels, lines, waiting = kernel[1], {}, [], []
        elif label := _LABEL.match(line):
            waiting.append(label[1])
        elif instruction := _INSTRUCTION.match(line):
            address, opcode, rest = int(instruction[1], 16), instruction[2], instruction[3]
            labels.update(dict.fromkeys(waiting, address))
            waiting = []
            name_only = opcode.partition(".")[0]
            to = _TARGET.search(rest) if name_only == "BRA" else None
            lines.append((address, name_only, to[1] if to else None, opcode))
    finish()
    return found
