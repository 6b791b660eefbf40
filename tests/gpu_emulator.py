"""CUDA kernels run on this CPU from their source, instructions in PTX as NVIDIA's manual says.

``gpu_emulator.h`` has the instructions: asynchronous copies and the products of warp groups, which
it reads from shared memory by the bits of their descriptors.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

HEADER = Path(__file__).with_name("gpu_emulator.h")
_KERNEL = re.compile(r'extern "C" __global__ void[^{;]*?(\w+)\(([^)]*)\) \{')
_SHARED = re.compile(r"extern __shared__ __align__\((\d+)\) uchar (\w+)\[\];")
_STATEMENT = re.compile(r"(?:asm volatile|__asm__ __volatile__)\s*\(")
_TEXT = re.compile(r'\s*"((?:[^"\\]|\\.)*)"')
_OPERAND = re.compile(r'\s*"([+=]?)(\w)"\s*\(')


class EmulationError(AssertionError):
    """What the emulated GPU would not do."""


class Kernel:
    """One kernel of a source of TVM's, compiled for this CPU."""

    def __init__(self, source: str) -> None:
        text = _for_cpu(source)
        found = list(_KERNEL.finditer(text))
        if len(found) != 1:
            raise ValueError(f"{len(found)} kernels in the source, not one")
        name, parameters = found[0].groups()
        types = [parameter.rpartition(" ")[0] for parameter in parameters.split(",")]
        self._names = re.findall(r"(\w+?)_ptr\b", parameters)
        given = ", ".join(f"({t}) given[{n}]" for n, t in enumerate(types))
        text += (
            '\nextern "C" const char* run(void** given, const int* grid, const int* block, '
            "int late, int backward) {\n"
            f"  auto kernel = [=] {{ {name}({given}); }};\n"
            "  return emulator::run(kernel, grid, block, late, backward);\n}\n"
        )
        with tempfile.TemporaryDirectory() as folder:
            code, library = Path(folder) / "kernel.cc", Path(folder) / "kernel.so"
            code.write_text(text)
            command = ["g++", "-std=c++17", "-O1", "-w", "-fno-strict-aliasing", "-shared", "-fPIC"]
            done = subprocess.run(
                [*command, f"-I{HEADER.parent}", str(code), "-o", str(library)],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise EmulationError(done.stderr[:4000])
            self._run = ctypes.CDLL(str(library)).run
        self._run.restype = ctypes.c_char_p

    def __call__(
        self,
        arguments: Mapping[str, np.ndarray],
        grid: Sequence[int],
        block: Sequence[int],
        *,
        late: bool = False,
        backward: bool = False,
    ) -> None:
        """Run all blocks on arrays by name; :class:`EmulationError` where the manual leaves
        undefined what comes."""
        addresses = [arguments[name].ctypes.data for name in self._names]
        pointers = (ctypes.c_void_p * len(addresses))(*addresses)
        sizes = [(ctypes.c_int * 3)(*each, *[1] * (3 - len(each))) for each in (grid, block)]
        why = self._run(pointers, *sizes, int(late), int(backward)).decode()
        if why:
            raise EmulationError(why)


def _for_cpu(source: str) -> str:
    """TVM's source less what it starts with, its instructions as calls."""
    start = min(source.index("__forceinline__ __device__ void"), source.index('extern "C"'))
    text = _SHARED.sub(r"uchar* \2 = emulator::shared(\1);", source[start:])
    out, at = [], 0
    for found in _STATEMENT.finditer(text):
        end, call = _statement(text, found.end())
        out += [text[at : found.start()], call]
        at = end
    return '#include "gpu_emulator.h"\n' + "".join(out) + text[at:]


def _statement(text: str, at: int) -> tuple[int, str]:
    """The end of an asm statement that began before ``at``, and the call in its stead."""
    code = ""
    while part := _TEXT.match(text, at):
        code, at = code + part[1], part.end()
    code = code.replace("\\n", " ").strip()
    operands: list[list[tuple[str, str]]] = [[], [], []]
    kind = -1
    while True:
        if found := _OPERAND.match(text, at):
            at = _closing(text, found.end())
            operands[kind].append((found[1], text[found.end() : at - 1]))
        elif clobber := _TEXT.match(text, at):
            at = clobber.end()
        else:
            at = re.compile(r"\s*").match(text, at).end()  # type: ignore[union-attr]
            mark, at = text[at], at + 1
            if mark == ":":
                kind += 1
            elif mark == ")":
                break
    out = ", ".join(f"&({value})" for _, value in operands[0])
    given = ", ".join(f"(emulator::Word)({value})" for _, value in operands[1])
    return at, f'emulator::execute("{code}", {{{out}}}, {{{given}}})'


def _closing(text: str, at: int) -> int:
    """After the bracket that closes what was opened before ``at``."""
    depth = 1
    while depth:
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
    return at
