"""The examples run, and say something true."""

from __future__ import annotations

import runpy

import pytest

from support import ROOT


@pytest.mark.usefixtures("short_timings")
def test_mlp_prune_quantize(capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(ROOT / "examples" / "mlp_prune_quantize.py"))
    result = example["main"]().to_dict()
    assert "gain" in capsys.readouterr().out
    assert result["accuracy"]["baseline"] > 0.95
    assert result["accuracy"]["compiled"] > 0.9
    fp32 = 4 * (784 * 128 + 128 + 128 * 10 + 10)
    assert result["bytes"]["params"] < fp32 / 3
    statuses = {row["name"]: row["status"] for row in result["passes"]}
    assert statuses["PruneWeights"] == "size only"
    assert "QuantizeWeights" in statuses
