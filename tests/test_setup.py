"""The set-up scripts: their help, their syntax, and the refusal of gigabytes of CUDA."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT, require_program

FAKE_PYTHON = """#!/bin/bash
# "-m pip install ...": write the report that --report names; anything else: the real Python
if [[ "$1" != "-m" ]]; then exec "{python}" "$@"; fi
echo "$*" >>"{log}"
while (($#)); do if [[ "$1" == "--report" ]]; then cp "{report}" "$2"; fi; shift; done
"""


def _install_torch(folder: Path, packages: list[str], **environment: str) -> tuple[int, str, str]:
    """Exit code, stderr, and the pip calls of ``.ci/install-torch`` under a pip that only plans."""
    report, log, fake = folder / "report.json", folder / "log", folder / "python"
    plan = {"install": [{"metadata": {"name": name}} for name in packages]}
    report.write_text(json.dumps(plan))
    fake.write_text(FAKE_PYTHON.format(python=sys.executable, log=log, report=report))
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    done = subprocess.run(
        [str(ROOT / ".ci" / "install-torch")],
        env={**os.environ, "PIP": f"{fake} -m pip", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr, log.read_text()


def test_cuda_build_of_torch_is_refused_before_any_download(tmp_path: Path) -> None:
    code, err, calls = _install_torch(tmp_path, ["torch", "nvidia-nccl-cu13", "nvidia-cublas"])
    assert code == 2
    assert "brings: nvidia-cublas nvidia-nccl-cu13" in err
    assert "TORCH_INDEX_URL=" in err
    assert [line for line in calls.splitlines() if "--dry-run" not in line] == []


def test_cpu_build_of_torch_is_installed_from_the_index_given(tmp_path: Path) -> None:
    index = "https://wheels.example/cpu"
    code, _, calls = _install_torch(tmp_path, ["torch", "sympy"], TORCH_INDEX_URL=index)
    assert code == 0
    plan, install = calls.splitlines()
    assert "--dry-run" in plan
    assert "--dry-run" not in install
    assert all(f"--index-url {index} -c constraints.txt torch" in call for call in (plan, install))


@pytest.mark.parametrize("script", [".ci/run", ".ci/install-torch"])
def test_scripts_parse_and_can_be_executed(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


def test_make_help_lists_the_targets() -> None:
    make = require_program("make")
    done = subprocess.run([make, "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = [line.split()[1] for line in done.stdout.splitlines()]
    assert {
        "demo",
        "test",
        "test-all",
        "lint",
        "types",
        "imports",
        "venv",
        "clean",
        "bench",
        "test-tensorflow",
    } <= set(listed)
