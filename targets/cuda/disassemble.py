"""Machine code of NVIDIA GPUs as text, by NVIDIA's own disassembler where one is found."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

PROGRAMS = {"nvdisasm": ("-c",), "cuobjdump": ("-sass",)}
"""Best first: programs, and what to call them with before the file."""
INSTALL = "pip install 'burnish[cuda]' (nvidia-cuda-nvdisasm)"
_SECONDS = 120


class MissingDisassemblerError(RuntimeError):
    """No disassembler is here; says how to get one."""


def disassembler() -> tuple[str, ...]:
    """The command that takes a cubin's path as its last word: on ``PATH``, else from pip.

    Raises :class:`MissingDisassemblerError`.
    """
    for name, options in PROGRAMS.items():
        found = shutil.which(name) or _from_pip(name)
        if found is not None:
            return (found, *options)
    raise MissingDisassemblerError(
        f"SASS is shown by {' or '.join(PROGRAMS)}, and neither is on PATH or from pip: {INSTALL}"
    )


def sass(cubin: bytes) -> str:
    """The instructions of each kernel of a cubin.

    Raises :class:`MissingDisassemblerError`, and ``RuntimeError`` with what the program says.
    """
    command = disassembler()
    with tempfile.TemporaryDirectory(prefix="burnish-sass-") as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        done = subprocess.run(
            [*command, str(path)], capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    if done.returncode:
        raise RuntimeError(f"{command[0]} does not read the machine code: {done.stderr.strip()}")
    return done.stdout


def _from_pip(name: str) -> str | None:
    """A program among the packages of NVIDIA's that pip installed."""
    spec = importlib.util.find_spec("nvidia")
    for place in (spec.submodule_search_locations if spec is not None else None) or ():
        for path in sorted(Path(place).glob(f"*/bin/{name}")):
            if path.is_file():
                return str(path)
    return None
