"""A stand-in for NVIDIA's driver (``cuda_stub.c``), and programs run under it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from burnish.targets.native import find_compiler

SOURCE = Path(__file__).with_suffix(".c")
NAMES = ("libcuda.so.1", "libcudart.so.13")


def build_stub(folder: Path) -> Path:
    """A folder with both libraries, for ``LD_LIBRARY_PATH``: one file by two names."""
    first, second = (folder / name for name in NAMES)
    versions = folder / "versions"
    versions.write_text(f"{NAMES[1]} {{ global: cu*; local: *; }};\n")
    options = [
        "-x",
        "c",
        "-std=gnu11",
        "-Werror",
        "-O1",
        "-shared",
        "-fPIC",
        f"-Wl,--version-script={versions}",
    ]
    subprocess.run([*find_compiler(), *options, str(SOURCE), "-o", str(first)], check=True)
    second.symlink_to(first)
    return folder


def run_under_stub(
    stub: Path, program: str, arguments: Sequence[str], arch: str
) -> tuple[str, list[list[str]]]:
    """What a Python program prints, and the calls written down, each as words.

    Fails with what the program says where it fails.
    """
    log = stub / "log"
    log.write_text("")
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "LD_LIBRARY_PATH": str(stub),
            "BURNISH_STUB_LOG": str(log),
            "BURNISH_STUB_SM": arch.removeprefix("sm_"),
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, [line.split() for line in log.read_text().splitlines()]
