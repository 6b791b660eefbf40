"""The C++ example: built, and run without Python on what was compiled here."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import burnish
from burnish import cli
from support import ROOT, require_program

EXAMPLE = ROOT / "examples" / "deploy_cpp"
pytestmark = pytest.mark.heavy


class Many(nn.Module):
    """Two inputs of open sizes; outputs of several dtypes, some sorted by TVM's runtime."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.linear = nn.Linear(16, 24)

    def forward(self, ids, mask):
        hidden = self.linear(self.embedding(ids)) * mask[..., None]
        values, places = torch.topk(hidden, 5)
        return values, {"places": places, "high": hidden > 0.1}, torch.sort(hidden, -1)[0]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, built as its README says."""
    require_program("make", "make")
    require_program("g++", "g++")
    out = tmp_path_factory.mktemp("deploy")
    command = ["make", "-s", "-C", str(EXAMPLE), f"PYTHON={sys.executable}", f"OUT={out}"]
    done = subprocess.run(
        [*command, "CXXFLAGS=-O1 -Wall -Wextra -Werror"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return out / "deploy"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, saved and extracted: ``net`` with int8 weights, ``many`` of open sizes."""
    where = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 900, 40))
    given = (torch.randn(2, 3, 32, 32),)
    options = {"quantize": "int8", "do_no_harm": False, "threads": 2}
    burnish.compile(net.eval(), given, **options).save(where / "net.burnish")
    examples = (torch.randint(0, 50, (2, 7)), torch.rand(2, 7))
    names = {0: "batch", 1: "seq"}
    dynamic = {"ids": names, "mask": names}
    burnish.compile(Many().eval(), examples, dynamic=dynamic).save(where / "many.burnish")
    for name in ("net", "many"):
        arguments = ["inspect", f"{where}/{name}.burnish", "--extract", f"{where}/{name}"]
        with pytest.raises(SystemExit) as left:
            cli.main(arguments)
        assert left.value.code == 0
    return where


def deploy(program: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """With an empty environment: nothing of Python's, and no library path."""
    return subprocess.run(
        [str(program), *map(str, words)], capture_output=True, text=True, env={}, timeout=120
    )


def test_answers_as_in_python(program: Path, folder: Path) -> None:
    loaded = burnish.load(folder / "net.burnish")
    given = np.random.default_rng(1).normal(size=(2, 3, 32, 32)).astype("float32")
    np.save(folder / "x.npy", given)
    given.tofile(folder / "x.bin")
    for word, threads in (("x.npy", 1), ("x.bin", 2)):
        out = folder / f"out-{word}-"
        done = deploy(program, folder / "net", out, folder / word, "--threads", threads)
        assert (done.returncode, done.stderr) == (0, "")
        np.testing.assert_array_equal(np.load(f"{out}0.npy"), loaded(given))
    done = deploy(program, folder / "net", folder / "out", folder / "x.npy", "--repeat", 3)
    assert done.stdout.endswith(" ms a call\n")


def test_open_sizes_and_several_outputs(program: Path, folder: Path) -> None:
    loaded = burnish.load(folder / "many.burnish")
    for batch, length in ((1, 1), (3, 11)):
        ids, mask = torch.randint(0, 50, (batch, length)), torch.rand(batch, length)
        np.save(folder / "ids.npy", ids.numpy())
        np.save(folder / "mask.npy", mask.numpy())
        done = deploy(
            program, folder / "many", folder / "m", folder / "ids.npy", folder / "mask.npy"
        )
        assert (done.returncode, done.stderr) == (0, "")
        values, nested, ordered = loaded(ids, mask)
        for number, want in enumerate((values, *nested.values(), ordered)):
            got = np.load(folder / f"m{number}.npy")
            assert got.dtype == want.numpy().dtype
            np.testing.assert_array_equal(got, want.numpy())


def test_our_threads_run_the_loops(program: Path, folder: Path) -> None:
    """The pool linked into the library starts as many threads as were asked for."""
    np.save(folder / "t.npy", np.zeros((2, 3, 32, 32), "float32"))
    for threads in (1, 3):
        words = [program, folder / "net", folder / "t", folder / "t.npy"]
        words += ["--threads", threads, "--repeat", 100_000_000]
        child = subprocess.Popen([str(word) for word in words], env={}, stdout=subprocess.DEVNULL)
        try:
            most = 0
            deadline = time.monotonic() + 20
            while most < threads and time.monotonic() < deadline:
                most = max(most, len(list(Path(f"/proc/{child.pid}/task").iterdir())))
                time.sleep(0.05)
            time.sleep(0.5)
            assert len(list(Path(f"/proc/{child.pid}/task").iterdir())) == threads
            assert child.poll() is None
        finally:
            child.kill()
            child.wait()


def test_what_it_refuses(program: Path, folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((2, 3, 32, 32)))
    np.save(tmp_path / "f.npy", np.asfortranarray(np.zeros((2, 3), "float32")))
    np.save(tmp_path / "short.npy", np.zeros((2, 3, 31, 32), "float32"))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "wide.npy").read_bytes()[:-1])
    (tmp_path / "x.bin").write_bytes(bytes(12))
    (tmp_path / "empty").mkdir()
    net, many, out = folder / "net", folder / "many", tmp_path / "out"
    for words, message in (
        ((net,), "usage: deploy FOLDER OUT INPUT..."),
        ((net, out), "the model takes 1 inputs: input"),
        ((tmp_path / "empty", out, "x"), "cannot read "),
        ((net, out, tmp_path / "none.npy"), "cannot read "),
        ((net, out, tmp_path / "wide.npy"), "is float32 2x3x32x32, got float64 2x3x32x32"),
        ((net, out, tmp_path / "short.npy"), "is float32 2x3x32x32, got float32 2x3x31x32"),
        ((net, out, tmp_path / "f.npy"), "is in Fortran order"),
        ((net, out, tmp_path / "cut.npy"), "is cut off"),
        ((net, out, tmp_path / "x.bin"), "holds 12 bytes, not 24576"),
        ((many, out, tmp_path / "x.bin", tmp_path / "x.bin"), "has an open size"),
        ((net, out, tmp_path / "x.bin", "--threads", "0"), "0 is no whole number of 1 or more"),
        ((net, out, tmp_path / "x.bin", "--repeat"), "--repeat needs a number"),
    ):
        done = deploy(program, *words)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("out*"))
    gpu = tmp_path / "gpu"
    gpu.mkdir()
    manifest = (net / "manifest.json").read_text()
    (gpu / "manifest.json").write_text(manifest.replace('"kind": "cpu"', '"kind": "cuda"'))
    assert "this program runs models for CPUs" in deploy(program, gpu, out, "x").stderr
