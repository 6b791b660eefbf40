"""Networks, from file to compiled model, against what TVM 0.19 computed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from import_support import worst
from relay_fixtures import NETWORKS, Fixture, network, results

import burnish
from burnish.compiler.importers import import_model

OPEN = {"dynamic": {"tokens": {0: "batch", 1: "seq"}}}
# Compiled by the project's own pipeline in the default tier too.
FAST = ("control", "mlp")
LOSSY = ("bert", "quantized_mlp")


def flat(value: Any) -> list[np.ndarray]:
    if isinstance(value, (tuple, list)):
        return [array for item in value for array in flat(item)]
    return [np.asarray(value)]


def written(fixture: Fixture, form: str, folder: Path) -> Path:
    """The module as a file, its parameters beside it."""
    path = folder / f"{fixture.name}.{form}"
    path.write_bytes(fixture.forms[form])
    if fixture.params is not None:
        path.with_suffix(".params").write_bytes(fixture.params)
    return path


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("control", "dynamic", "gru", "mlp", "quantized_mlp"), id="small"),
        pytest.param(("bert", "cnn", "lstm"), id="middle"),
        pytest.param(
            ("detector", "mobilenet", "quantized_cnn"), id="slow", marks=pytest.mark.heavy
        ),
    ],
)
def test_imported_networks_match(names: tuple[str, ...], tmp_path: Path) -> None:
    """From both forms; text may lose digits, and says so."""
    fixtures = [network(name) for name in names]
    mods, inputs, outputs = [], [], []
    for fixture in fixtures:
        path = written(fixture, "json", tmp_path)
        exact = import_model(path, dynamic=OPEN.get(fixture.name))
        assert exact.kind == "relay"
        path = written(fixture, "relay", tmp_path)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            read = import_model(path, dynamic=OPEN.get(fixture.name))
        lossy = any("numbers have six digits" in str(item.message) for item in caught)
        assert lossy == (fixture.name in LOSSY)
        if not lossy:
            tvm.ir.assert_structural_equal(
                exact.mod.without_attr("params"), read.mod.without_attr("params")
            )
        for imported in (exact, read) if lossy else (exact,):
            mods.append(imported.mod)
            inputs.append(fixture.inputs)
            outputs.append(list(fixture.outputs))
    errors = [worst(a, b) for a, b in zip(results(mods, inputs), outputs, strict=True)]
    assert max(errors) <= 1e-5


def test_every_network_is_compared() -> None:
    groups = [mark for mark in test_imported_networks_match.pytestmark if mark.args]  # type: ignore[attr-defined]
    names = [name for case in groups[0].args[1] for name in case.values[0]]
    assert sorted(names) == NETWORKS


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in FAST else [pytest.mark.heavy]) for n in NETWORKS],
)
def test_compiled_networks_match(name: str, tmp_path: Path) -> None:
    fixture = network(name)
    path = written(fixture, "json", tmp_path)
    model = burnish.compile(path, dynamic=OPEN.get(name))
    outputs = flat(model(**fixture.inputs))
    assert worst(outputs, list(fixture.outputs)) <= 1e-5
    params = {key for key in model.params if not key.startswith(("constant_", "anchors"))}
    assert fixture.params is None or params


def test_open_sizes_run_at_sizes_not_seen(tmp_path: Path) -> None:
    """The same network, whole and in pieces of the batch, at other lengths."""
    fixture = network("dynamic")
    model = burnish.compile(written(fixture, "json", tmp_path), dynamic=OPEN["dynamic"])
    assert worst(flat(model(**fixture.inputs)), list(fixture.outputs)) <= 1e-5
    assert str(model.signature.inputs[0]) == "tokens: float32[batch, seq, 8]"
    rng = np.random.default_rng(7)
    for batch, seq in ((1, 3), (2, 9), (5, 1)):
        x = rng.standard_normal((batch, seq, 8)).astype("float32")
        whole = flat(model(x))
        parts = [flat(model(x[i : i + 1])) for i in range(batch)]
        again = [np.concatenate(items) for items in zip(*parts, strict=True)]
        assert worst(whole, again) <= 1e-6


def test_the_branch_that_tvm_did_not_take(tmp_path: Path) -> None:
    """The fixture's flag is true; the other branch is small enough to write down."""
    model = burnish.compile(written(network("control"), "json", tmp_path))
    x = np.random.default_rng(3).standard_normal((2, 3)).astype("float32")
    doubled = np.maximum(2 * x, 0)
    outputs = flat(model(np.asarray(False), x))
    assert worst(outputs, [doubled + np.exp(x), np.exp(x)]) <= 1e-6


def test_weights_keep_their_names(tmp_path: Path) -> None:
    """Raw names as exporters write them, in JSON and in text."""
    fixture = network("mlp")
    for form in ("json", "relay"):
        imported = import_model(written(fixture, form, tmp_path))
        names = list(imported.mod.attrs["params"].keys())
        assert [str(n) for n in names] == [
            *("onnx::Gemm_0", "f.0.bias", "onnx::Gemm_1", "f.1.bias", "onnx::Gemm_2", "f.2.bias")
        ]
        assert [spec.name for spec in imported.signature.inputs] == ["input.1"]


def test_results_keep_their_nesting(tmp_path: Path) -> None:
    imported = import_model(written(network("lstm"), "json", tmp_path))
    assert imported.signature.output_tree == {"tuple": [0, {"tuple": [1, 2]}]}
