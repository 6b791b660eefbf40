"""Mutated artifacts: each is refused with a reason, or harmless."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_nets import Block, Mlp, made

import burnish
from support import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three artifacts: quantized, convolutional, and with open sizes."""
    where = tmp_path_factory.mktemp("mutants")
    burnish.compile(
        made(Mlp), (torch.ones(2, 20),), quantize="int4", do_no_harm=False, cache=False
    ).save(where / "mlp.burnish")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten())
    burnish.compile(net.eval(), (torch.ones(1, 3, 8, 8),), cache=False).save(where / "cnn.burnish")
    sizes = {0: "batch", 1: "seq"}
    tokens = torch.ones(2, 7, dtype=torch.int64)
    burnish.compile(
        made(Block), (tokens, tokens), dynamic={"tokens": sizes, "mask": sizes}, cache=False
    ).save(where / "block.burnish")
    return where


def outcomes(folder: Path, where: Path, first: int, count: int) -> dict[str, int]:
    """What became of the mutants of these seeds, in a process whose own places stay empty."""
    places = {name: where / name for name in ("home", "tmp", "work", "cache")}
    for place in places.values():
        place.mkdir()
    environment = {
        **os.environ,
        "HOME": str(places["home"]),
        "TMPDIR": str(places["tmp"]),
        "BURNISH_CACHE": str(places["cache"]),
        "PYTHONPATH": os.pathsep.join((str(ROOT / "tests"), os.environ.get("PYTHONPATH", ""))),
    }
    script = str(ROOT / "tests" / "mutate_artifacts.py")
    done = subprocess.run(
        [sys.executable, "-P", script, str(folder), str(first), str(count)],
        capture_output=True,
        text=True,
        check=False,
        cwd=places["work"],
        env=environment,
    )
    seed = (folder / "seed").read_text() if (folder / "seed").exists() else "none"
    assert done.returncode == 0, f"the mutant of seed {seed}: {done.stderr[-3000:]}"
    for name in ("home", "tmp", "work"):
        assert list(places[name].rglob("*")) == [], f"{name} was written to"
    kept = {path.name for path in places["cache"].rglob("*") if path.is_file()}
    assert kept <= {"lib.so"}
    found: dict[str, int] = json.loads(done.stdout)
    assert sum(found.values()) == 2 * count  # both loaders
    return found


def check(found: dict[str, int]) -> None:
    """Only who writes the hashes anew gets past them, and never with another library's outputs."""
    for outcome in found:
        kind = outcome.partition(":")[0]
        if kind not in ("manifest", "swap and hash"):
            assert outcome.endswith(("refused", "the same outputs")), found


def test_fifty_mutants(folder, tmp_path):
    check(outcomes(folder, tmp_path, 0, 50))


@pytest.mark.heavy
def test_two_thousand_mutants(folder, tmp_path):
    found = outcomes(folder, tmp_path, 1000, 2000)
    check(found)
    assert sum(count for name, count in found.items() if name.endswith("refused")) > 3000, found
