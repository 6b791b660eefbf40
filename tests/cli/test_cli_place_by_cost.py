"""Placement by cost on the command line: limits read, and what each placement was to take."""

from __future__ import annotations

import pytest
import torch

from burnish.cli import main
from burnish.cli.placement import parse_memory
from burnish.compiler.errors import ConfigError


def run(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0


def test_memory_is_read():
    assert parse_memory(["cpu=2GB", "opencl:0=512 MiB"]) == {"cpu": "2GB", "opencl:0": "512 MiB"}


@pytest.mark.parametrize("bad", ["cpu", "=2GB", "cpu="])
def test_memory_of_another_form_is_refused(bad):
    with pytest.raises(ConfigError, match="DEVICE=SIZE"):
        parse_memory([bad])


def test_a_cut_by_memory_tells_every_candidate(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / "cache"))
    net = torch.nn.Sequential(
        torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 16), torch.nn.Tanh()
    )
    file, out = tmp_path / "net.pt2", tmp_path / "net.burnish"
    torch.export.save(torch.export.export(net.eval(), (torch.ones(1, 16),)), file)
    said = ["compile", str(file), "-o", str(out), "--target", "hetero:cpu,cpu:1"]
    said += ["--place", "*=auto", "--memory", "cpu=7kB", "--memory", "cpu:1=7kB"]
    run(said)
    told = capsys.readouterr().out
    assert "ilp" in told
    assert "taken" in told
    run(["inspect", str(out)])
    told = capsys.readouterr().out
    assert "predicted ms" in told
    assert "cpu:1" in told
