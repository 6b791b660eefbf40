"""``burnish profile``: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from burnish import cli
from burnish.compiler.bench.peaks import Peaks
from burnish.compiler.profile import run


@pytest.fixture
def call(capfd, tmp_path, monkeypatch):
    """Run the command in a folder with ``net.pt2``; its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "known_peaks", lambda threads: Peaks(threads, 200.0, None, None, 40.0))
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU()).eval()
    torch.export.save(torch.export.export(net, (torch.ones(2, 8),)), "net.pt2")

    def run_command(*arguments):
        with pytest.raises(SystemExit) as left:
            cli.main([*arguments])
        out, err = capfd.readouterr()
        return left.value.code, out, err

    return run_command


def test_a_file_and_its_artifact(call, tmp_path):
    code, out, err = call("profile", "net.pt2", "--rounds", "1", "--least", "0", "--out", "report")
    assert code == 0, err
    assert "fused_gemm_add_relu" in out
    assert "profile.json, profile.txt, profile.png hold the same" in out
    assert "fused_gemm_add_relu" in (tmp_path / "report/profile.txt").read_text()
    assert (tmp_path / "report/profile.png").read_bytes().startswith(b"\x89PNG")
    data = json.loads((tmp_path / "report/profile.json").read_text())
    assert data["model"] == "net.pt2"
    assert call("compile", "net.pt2", "-o", "net.burnish")[0] == 0
    code, out, err = call("profile", "net.burnish", "--rounds", "1", "--calls", "--json")
    assert code == 0, err
    (again,) = json.loads(out)["calls"]
    (before,) = data["calls"]
    keys = ("kernel", "work", "rule", "path", "shapes")
    assert {key: again[key] for key in keys} == {key: before[key] for key in keys}
    code, _, err = call("profile", "net.burnish", "--quantize", "int8")
    assert code == 2
    assert "net.burnish is compiled already: of the settings only --threads can be given" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["net.pt2", "--least", "lots"], "--least 'lots' is no share of the time, as 2% or 0.02"),
        (["net.pt2", "--least", "300%"], "--least '300%' is no share of the time"),
        (["missing.pt2"], "missing.pt2"),
        (["missing.burnish"], "no artifact missing.burnish"),
        (["resnet5"], "no benchmark network 'resnet5'; near it: resnet50"),
        (["resnet50", "--input", "x=1:float32"], "a network of the benchmark brings its inputs"),
    ],
)
def test_refusals(call, arguments, said):
    code, _, err = call("profile", *arguments)
    assert code == 2
    assert said in err
