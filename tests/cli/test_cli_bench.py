"""``burnish bench``: what it writes, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from burnish import cli
from burnish.compiler.bench import run
from burnish.compiler.bench.peaks import Peaks


@pytest.fixture
def call(capfd, tmp_path, monkeypatch):
    """Run the command in a folder with ``net.pt2``; its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "measure_peaks", lambda n, s: Peaks(n, 200.0, None, None, 40.0))
    monkeypatch.setattr(run, "keep_peaks", lambda peaks: None)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU()).eval()
    torch.export.save(torch.export.export(net, (torch.ones(2, 8),)), "net.pt2")

    def run_command(*arguments):
        with pytest.raises(SystemExit) as left:
            cli.main(["bench", *arguments])
        out, err = capfd.readouterr()
        return left.value.code, out, err

    return run_command


def test_a_file_beside_eager(call, tmp_path):
    code, out, _ = call("net.pt2", "--peers", "eager", "--rounds", "2", "--out", "report")
    assert code == 0
    assert "burnish is no slower than the fastest peer on" in out
    data = json.loads((tmp_path / "report/bench.json").read_text())
    assert data["schema"] == "burnish.bench/1"
    assert data["complete"] is True
    assert set(data["rows"][0]["times"]) == {"burnish", "eager"}
    assert "over the fastest" in (tmp_path / "report/bench.txt").read_text()
    assert (tmp_path / "report/bench.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = call(
        "net.pt2", "--peers", "eager", "--rounds", "2", "--out", "report", "--json", "--resume"
    )
    assert code == 0
    assert [row["times"] for row in json.loads(out)["rows"]] == [data["rows"][0]["times"]]


def test_interruption_writes_and_leaves_with_130(call, monkeypatch, tmp_path):
    def interrupted(self, case):
        raise KeyboardInterrupt

    monkeypatch.setattr(run._Run, "row", interrupted)
    code, out, err = call("mlp-b32", "--peers", "eager", "--out", "report")
    assert code == 130
    assert "! not complete" in out
    assert "--resume goes on where this ended" in err
    assert json.loads((tmp_path / "report/bench.json").read_text())["complete"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet-50"], "no benchmark network 'resnet-50'; near it: resnet50"),
        (["mlp-b32", "--peers", "tensorrt"], "no peer 'tensorrt' (known: autotune"),
        (["mlp-b32", "--rounds", "0"], "Invalid value for '--rounds'"),
        (["zoo:magika", "--peers", "eager"], "needs a torch model, for eager is a peer"),
        (["missing.pt2", "--peers", "eager"], "missing.pt2"),
    ],
)
def test_refusals(call, arguments, message):
    code, _, err = call(*arguments)
    assert code == 2
    assert message in " ".join(err.split())


def test_a_result_that_cannot_be_resumed(call, tmp_path):
    (tmp_path / "bench.json").write_text("{")
    code, _, err = call("mlp-b32", "--resume", "--out", ".")
    assert code == 2
    assert "--resume:" in err
    (tmp_path / "bench.json").write_text("{}")
    _, _, err = call("mlp-b32", "--resume", "--out", ".")
    assert "this is no result of a benchmark" in err
