"""Generated kernels on Oclgrind, a simulator that notes what devices let pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from opencl_support import require_device
from support import ROOT, require, require_program

SCRIPT = ROOT / "tests" / "oclgrind_run.py"


def run(log: Path, *names: str, **settings: str) -> list[dict[str, object]]:
    """Run ``oclgrind_run.py``; its rows. What Oclgrind finds is in ``log``."""
    program = Path(require_program("oclgrind", "oclgrind")).resolve()
    library = program.parents[1] / "lib" / "oclgrind" / "liboclgrind-rt.so"
    require(library.is_file(), f"{program} has no {library} beside it")
    require_device()
    environment = {
        "BURNISH_OPENCL": str(library),
        "OCLGRIND_CHECK_API": "1",
        "OCLGRIND_DATA_RACES": "1",
        "OCLGRIND_LOG": str(log),
        **settings,
    }
    done = subprocess.run(
        [sys.executable, "-P", str(SCRIPT), *names],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.heavy
def test_planted_errors_are_found(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run(log, "planted")
    found = log.read_text()
    for said in (
        "Invalid write of size 4 at global memory address",
        "Kernel: beyond",
        "Write-write data race at global memory",
        "Kernel: global_race",
        "Read-write data race at local memory",
        "Kernel: local_race",
    ):
        assert said in found


@pytest.mark.heavy
def test_generated_kernels_stay_in_bounds_and_do_not_race(tmp_path: Path) -> None:
    log = tmp_path / "log"
    rows = run(log)
    assert [row["net"] for row in rows] == [
        *("steps", "mlp", "classifier", "transformer", "images", "attentions", "orders"),
        *("decoder", "vectors", "int4", "int8"),
    ]
    for row in rows:
        assert row["difference"] < 1e-5, row
    assert log.read_text() == ""
