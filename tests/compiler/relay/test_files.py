"""Relay files by way of the public functions and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from relay_fixtures import network

import burnish
from burnish import cli
from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers import import_model, load_model, survey_model
from burnish.compiler.importers.relay.arrays import read_params


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    """``net.json`` with no parameters beside it; they are in ``other.params``."""
    fixture = network("mlp")
    assert fixture.params is not None
    (tmp_path / "net.json").write_bytes(fixture.json)
    (tmp_path / "other.params").write_bytes(fixture.params)
    return tmp_path / "net.json"


def test_parameters_beside_given_or_as_arrays(mlp: Path) -> None:
    fixture = network("mlp")
    assert fixture.params is not None
    arrays = read_params(fixture.params)
    assert len(import_model(mlp).signature.inputs) == 7
    for params in (mlp.with_name("other.params"), arrays):
        imported = import_model(mlp, params=params)
        assert [spec.name for spec in imported.signature.inputs] == ["input.1"]
    hashes = {load_model(mlp, params=p).hash for p in (None, arrays, mlp.with_name("other.params"))}
    assert len(hashes) == 3
    mlp.with_suffix(".params").write_bytes(fixture.params)
    assert len(import_model(mlp).signature.inputs) == 1


def test_parameters_that_cannot_be(mlp: Path, tmp_path: Path) -> None:
    with pytest.raises(ImportModelError, match="no such parameter file"):
        burnish.compile(mlp, params=tmp_path / "missing.params")
    (tmp_path / "net.onnx").write_bytes(b"x")
    with pytest.raises(ImportModelError, match=r"params is for Relay files \(.json, .relay"):
        burnish.compile(tmp_path / "net.onnx", params={})
    with pytest.raises(ImportModelError, match="params is for Relay files"):
        burnish.compile(object(), params={})
    mlp.write_bytes(b'{"nodes": [')
    with pytest.raises(ImportModelError, match=r"net\.json is no JSON, it may be truncated"):
        burnish.compile(mlp)


def test_survey_counts_flops(mlp: Path) -> None:
    """3 rows through 16 x 24, 24 x 24 and 24 x 10, two FLOPs a weight; from both forms."""
    (mlp.parent / "net.relay").write_bytes(network("mlp").text)
    for path in (mlp, mlp.with_suffix(".relay")):
        survey = survey_model(path)
        rows = {row.name: row for row in survey.rows}
        assert rows["nn.dense"].flops == 2 * 3 * (16 * 24 + 24 * 24 + 24 * 10)
        assert survey.importable
        assert survey.unknown_flops == 0


def test_inspect_and_compile(mlp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["inspect", str(mlp), "--params", str(mlp.with_name("other.params")), "--json"],
        ["inspect", str(mlp), "--check", "--json"],
        ["compile", str(mlp), "--params", str(mlp.with_name("other.params")), "--json", "-o",
         str(mlp.with_name("net.burnish"))],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as left:
            cli.main(words)
        assert left.value.code == 0
        document = json.loads(capsys.readouterr().out)
        assert document["schema"] == 1
    loaded = burnish.load(mlp.with_name("net.burnish"))
    fixture = network("mlp")
    got = np.asarray(loaded(*fixture.inputs.values()))
    np.testing.assert_allclose(got, fixture.outputs[0], rtol=1e-5)
