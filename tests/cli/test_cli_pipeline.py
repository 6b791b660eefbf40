"""``burnish pipeline``: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
from small_nets import Mlp, made

from burnish import cli
from burnish.compiler.bench.peaks import Peaks
from burnish.compiler.pipelines import costs


@pytest.fixture
def call(capfd, tmp_path, monkeypatch):
    """Run the command in a folder with ``net.pt2``; its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    found = lambda threads: Peaks(threads, 200.0, None, None, 40.0)  # noqa: E731
    monkeypatch.setattr(costs, "known_peaks", found)
    torch.export.save(torch.export.export(made(Mlp), (torch.ones(4, 20),)), "net.pt2")

    def run_command(*arguments):
        with pytest.raises(SystemExit) as left:
            cli.main(["pipeline", *arguments])
        out, err = capfd.readouterr()
        return left.value.code, out, err

    return run_command


def test_a_file_and_the_folder_it_was_saved_to(call, tmp_path):
    quick = ("--costs", "counted", "--devices", "cpu;cpu", "--engine", "threads")
    code, out, err = call(
        "net.pt2", *quick, "--batches", "3", "--check", "--save", "kept", "--out", "run"
    )
    assert code == 0, err
    assert (
        "1 micro-batches of 4 rows a batch (expected milliseconds a batch by their number: 1: "
        in out
    )
    assert "3 batches, 3 micro-batches in" in out
    assert "largest difference from the model compiled whole" in out
    assert (tmp_path / "run/timeline.png").read_bytes().startswith(b"\x89PNG")
    assert "predicted ms" in (tmp_path / "run/run.txt").read_text()
    assert json.loads((tmp_path / "run/run.json").read_text())["parity"] < 1e-5
    code, out, err = call("kept", "--engine", "threads", "--batches", "2", "--json")
    assert code == 0, err
    data = json.loads(out)
    assert (data["engine"], data["batches"], data["name"]) == ("threads", 2, "net.pt2")
    assert len(data["timeline"]["measured"]["spans"]) == 4
    code, _, err = call("kept", "--quantize", "int8")
    assert code == 2
    assert "kept is compiled already: it can only be run" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--micro-batches", "many"], "--micro-batches 'many' is no number, and not auto"),
        (["--micro-batches", "2", "--costs", "counted"], "the model is of a fixed batch of 4 rows"),
        (["--devices", "cpu@8000"], "this machine lets us have the cores"),
        (["--engine", "spark"], "engine 'spark' is unknown"),
    ],
)
def test_what_is_refused(call, arguments, said):
    code, _, err = call("net.pt2", *arguments)
    assert code == 2
    assert said in err
