"""Programs: the C++ compiler, and the disassembler of GPU code."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

from burnish.compiler.doctor.check import Check, first_line

COMPILERS = ("g++", "clang++", "c++")
_SOURCE = """#include <vector>
extern "C" int three() { return static_cast<int>(std::vector<int>(3).size()); }
"""


def cxx() -> Check:
    """Link a shared library, as there is one in each artifact, and call it."""
    name, remedy = "c++ compiler", "install g++ (Debian: apt install g++)"
    path = next(filter(None, map(shutil.which, COMPILERS)), None)
    if path is None:
        said = f"none of {', '.join(COMPILERS)} on PATH"
        return Check(name, "unavailable", said, remedy, needed=True)
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "a.cc"), Path(folder, "a.so")
        source.write_text(_SOURCE)
        command = [path, "-shared", "-fPIC", "-o", str(library), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = f"{path}: {first_line(done.stderr)}"
            return Check(name, "broken", said, remedy, needed=True)
        try:
            right = ctypes.CDLL(str(library)).three() == 3
        except OSError as error:
            return Check(name, "broken", f"{path}: {first_line(error)}", remedy, needed=True)
    if not right:
        return Check(name, "broken", f"{path}: its code counts wrong", remedy, needed=True)
    return Check(name, "run", f"{path} makes a shared library that runs", needed=True)


def disassembler() -> Check:
    """Show the instructions of a kernel for a GPU."""
    from burnish.compiler.doctor.cuda import SOURCE
    from burnish.targets.cuda import disassemble, nvrtc
    from burnish.targets.cuda.target import DEFAULT_ARCHITECTURES

    name, arch = "disassembler", DEFAULT_ARCHITECTURES[-1]
    try:
        program = disassemble.disassembler()[0]
    except disassemble.MissingDisassemblerError as error:
        return Check(name, "unavailable", first_line(error), disassemble.INSTALL)
    try:
        code = nvrtc.compile_source(SOURCE, arch)
    except RuntimeError as error:
        return Check(
            name, "unavailable", f"{program}, nothing to show: {first_line(error)}", "see nvrtc"
        )
    try:
        text = disassemble.sass(code.cubin)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return Check(name, "broken", first_line(error), disassemble.INSTALL)
    if "FADD" not in text:
        return Check(name, "broken", f"{program}: no addition in x + 1", disassemble.INSTALL)
    return Check(name, "run", f"{program} shows code for {arch}")
