"""C and C++ of ours, compiled on this machine against the headers of the installed TVM FFI."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import tvm_ffi.libinfo

COMPILERS = ("g++", "clang++", "c++")
INSTALL_COMPILER = "install a C++ compiler (Debian: apt install g++), or name one in CXX"


class MissingCompilerError(RuntimeError):
    """No C++ compiler is on PATH; ``reason`` is the message without the remedy."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}. Remedy: {INSTALL_COMPILER}")
        self.reason = reason


def ffi_includes() -> list[str]:
    """Compiler flags for the headers of the installed TVM FFI."""
    folders = (tvm_ffi.libinfo.find_include_path(), tvm_ffi.libinfo.find_dlpack_include_path())
    return [f"-I{folder}" for folder in folders]


def find_compiler() -> list[str]:
    """The command of a C++ compiler: ``$CXX`` if set, else the first of ``COMPILERS`` on PATH.

    Raises :class:`MissingCompilerError`.
    """
    own = shlex.split(os.environ.get("CXX", ""))
    for command in [own] if own else [[name] for name in COMPILERS]:
        if found := shutil.which(command[0]):
            return [found, *command[1:]]
    said = f"CXX is {own[0]!r}, which is not" if own else f"none of {', '.join(COMPILERS)} is"
    raise MissingCompilerError(f"no C++ compiler: {said} on PATH")


def run_compiler(command: Sequence[str], source: Path) -> None:
    """Run a compiler; ``RuntimeError`` with what it said where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} does not compile {source.name}:\n{done.stderr.strip()}")


def source_key(sources: Sequence[Path], flags: Sequence[str]) -> str:
    """Changes with the sources, the flags, and the versions of TVM and its FFI."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(f"{source.name}\n".encode() + source.read_bytes())
    versions = [metadata.version(name) for name in ("apache-tvm", "apache-tvm-ffi")]
    digest.update("\n".join([*flags, *versions]).encode())
    return digest.hexdigest()[:16]


def compiler_key(command: Sequence[str]) -> str:
    """Changes with the compiler: its place, size and date, and its fixed arguments."""
    file = Path(command[0]).resolve()
    found = file.stat()
    text = "\n".join([str(file), str(found.st_size), str(found.st_mtime_ns), *command[1:]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shared_library(
    source: Path, path: Path, command: Sequence[str], libraries: Sequence[str] = ()
) -> Path:
    """Compile ``source`` to the shared library ``path``, whole or not at all.

    ``command`` is the compiler with its flags, ``libraries`` the flags of what to link. Raises
    ``RuntimeError`` with what the compiler said, or with why the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="building-") as folder:
            partial = Path(folder) / path.name
            run_compiler([*command, str(source), "-o", str(partial), *libraries], source)
            os.replace(partial, path)
    except OSError as error:
        raise RuntimeError(
            f"cannot write {path.parent} ({error.strerror}): set BURNISH_CACHE to a folder that "
            "can be written"
        ) from error
    return path
