"""Each verb on a small network, from file to report."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import burnish
from burnish import cli
from opencl_support import require_device

Call = Callable[..., tuple[int, str, str]]


def save_onnx(net: nn.Sequential, path: Path) -> None:
    """The network as an ONNX file whose batch axis is free."""
    nodes, weights, last = [], [], "x"
    for index, layer in enumerate(net):
        out = "y" if index == len(net) - 1 else f"h{index}"
        names = []
        for name, value in layer.state_dict().items():
            names.append(f"{index}.{name}")
            weights.append(numpy_helper.from_array(value.numpy(), names[-1]))
        if names:
            nodes.append(helper.make_node("Gemm", [last, *names], [out], transB=1))
        else:
            nodes.append(helper.make_node("Relu", [last], [out]))
        last = out
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])
    graph = helper.make_graph(nodes, "net", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``net.pt2``, ``net.onnx`` (free batch axis) and ``net.burnish``."""
    where = tmp_path_factory.mktemp("verbs")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).eval()
    program = torch.export.export(net, (torch.randn(1, 64),))
    torch.export.save(program, where / "net.pt2")
    save_onnx(net, where / "net.onnx")
    arguments = ["compile", str(where / "net.pt2"), "-o", str(where / "net.burnish")]
    with pytest.raises(SystemExit) as left:
        cli.main([*arguments, "--quantize", "int8", "--keep-all"])
    assert left.value.code == 0
    return where


@pytest.fixture
def call(
    short_timings: None,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Call:
    """Exit code, stdout and stderr of the command, run in the folder."""
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main(arguments)
        captured = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, captured.out, captured.err

    return run


def document(result: tuple[int, str, str], code: int = 0) -> dict[str, Any]:
    """The JSON on stdout, after a look at the exit code."""
    assert result[0] == code, result[2]
    found = json.loads(result[1])
    assert isinstance(found, dict)
    return found


def test_compile_says_what_each_pass_bought(call: Call) -> None:
    found = document(call("compile", "net.pt2", "-o", "j.burnish", "--prune", "0.5", "--json"))
    assert found["bytes"]["artifact"] == Path("j.burnish").stat().st_size
    rows = {row["name"]: row for row in found["report"]["rows"]}
    assert rows["PruneWeights"]["status"] == "size only"


def test_compile_by_recipe_keeps_the_resolved_copy(call: Call) -> None:
    Path("recipe.toml").write_text(
        'schema = 1\nquantize = "int4"\nthreads = 1\ndo_no_harm = false\n'
    )
    code, out, err = call("compile", "net.pt2", "-o", "r.burnish", "--recipe", "recipe.toml")
    assert code == 0, err
    assert "QuantizeWeights" in out
    config = burnish.load("r.burnish").config
    assert (config.threads, config.quantize.bits) == (1, 4)
    document(
        call(
            "compile",
            "net.pt2",
            "-o",
            "r.burnish",
            "--recipe",
            "recipe.toml",
            "--quantize",
            "int8",
            "--json",
        )
    )
    assert burnish.load("r.burnish").config.quantize.bits == 8


def test_failed_compile_leaves_the_old_artifact(call: Call) -> None:
    before = Path("net.burnish").read_bytes()
    code, _, err = call("compile", "net.pt2", "-o", "net.burnish", "--quantize", "w4g33")
    assert code == 2
    assert "33" in err
    assert Path("net.burnish").read_bytes() == before
    assert not list(Path().glob(".net-*"))


def test_unknown_target_lists_the_known(call: Call) -> None:
    code, _, err = call("compile", "net.pt2", "-o", "t.burnish", "-t", "cpux")
    assert code == 2
    assert "unknown target 'cpux'" in err
    assert "llvm" in err


def test_onnx_file_gets_inputs_from_its_signature(call: Call) -> None:
    code, _, err = call("compile", "net.onnx", "-o", "o.burnish")
    assert code == 0, err
    assert "input 'x': axis 0 (batch) is taken as 1; --input says otherwise" in err
    found = document(call("run", "o.burnish", "--random", "--json"))
    assert found["outputs"][0]["shape"] == "1x10"
    spec = ["--input", "x=3x64:float32"]
    assert call("compile", "net.onnx", "-o", "o.burnish", *spec)[0] == 0
    assert document(call("run", "o.burnish", "--random", "--json"))["outputs"][0]["shape"] == "3x10"


def test_dynamic_axis(call: Call) -> None:
    code, _, err = call("compile", "net.onnx", "-o", "d.burnish", "--dynamic", "x:0=batch")
    assert code == 0, err
    for batch in (1, 5):
        np.savez("in.npz", x=np.ones((batch, 64), "float32"))
        code, _, err = call("run", "d.burnish", "--inputs", "in.npz", "-o", "out.npz")
        assert code == 0, err
        (made,) = np.load("out.npz").values()
        assert made.shape == (batch, 10)


def test_run_saves_what_the_model_returns(call: Call) -> None:
    x = np.linspace(-1, 1, 64, dtype="float32")[None]
    np.savez("in.npz", x)
    code, out, err = call("run", "net.burnish", "--inputs", "in.npz", "-o", "out.npz")
    assert code == 0, err
    assert "1x10" in out
    (made,) = np.load("out.npz").values()
    expected = burnish.load("net.burnish")(torch.from_numpy(x))
    np.testing.assert_allclose(made, expected.numpy(), rtol=1e-6)


def test_run_with_a_wrong_input(call: Call) -> None:
    np.savez("bad.npz", np.ones((1, 65), "float32"))
    code, _, err = call("run", "net.burnish", "--inputs", "bad.npz")
    assert code == 2
    assert "(1, 65)" in err
    assert "(1, 64)" in err


def test_compare_checks_and_reports(call: Call) -> None:
    arguments = ["compare", "net.pt2", "net.burnish", "--json"]
    reports = ["--report", "r.html", "--report", "r.json"]
    found = document(call(*arguments, *reports, "--max-error", "0.2"))
    assert found["baseline"] == "eager"
    assert found["failures"] == []
    assert json.loads(Path("r.json").read_text())["schema"] == found["schema"]
    assert "<html" in Path("r.html").read_text()
    failed = document(call(*arguments, "--max-error", "1e-9", "--min-speedup", "1e6"), code=1)
    assert [line.split(" is ")[0].rsplit(" ", 1)[0] for line in failed["failures"]] == [
        "relative error",
        "speed-up",
    ]


def test_compare_compiles_by_flags(call: Call) -> None:
    code, out, err = call("compare", "net.onnx", "--quantize", "int8", "--keep-all")
    assert code == 0, err
    assert "onnxruntime" in out
    assert "QuantizeWeights" in out


@pytest.mark.parametrize("stage", ["imported", "optimized"])
def test_inspect_a_model_at_a_stage(call: Call, stage: str) -> None:
    found = document(call("inspect", "net.pt2", "--stage", stage, "--ir", "--json"))
    assert found["stage"] == stage
    assert sum(found["ops"].values()) > 0
    assert "def main" in found["ir"]
    if stage == "imported":
        names = {row["name"]: row for row in found["params"]}
        assert names["0.weight"]["shape"] == [32, 64]
        assert names["0.weight"]["bytes"] == 32 * 64 * 4
    code, out, _ = call("inspect", "net.pt2", "--stage", stage)
    assert code == 0
    assert "operators" in out


def test_inspect_says_what_can_be_imported(call: Call) -> None:
    found = document(call("inspect", "net.onnx", "--check", "--json"))
    assert found["importable"]
    assert (found["operator_share"], found["flop_share"]) == (1.0, 1.0)
    assert [row["name"] for row in found["operators"]] == ["Gemm", "Relu"]
    code, out, _ = call("inspect", "net.pt2", "--check")
    assert code == 0
    assert "can be imported: 100.0% of operators and 100.0% of FLOPs are covered" in out

    model = onnx.load("net.onnx")
    model.graph.node[0].op_type = "Mystery"
    model.graph.node[0].domain = "my.domain"
    model.opset_import.append(helper.make_opsetid("my.domain", 2))
    onnx.save(model, "part.onnx")
    found = document(call("inspect", "part.onnx", "--check", "--json"), 1)
    assert [item["name"] for item in found["unsupported"]] == ["my.domain.Mystery"]
    code, out, _ = call("inspect", "part.onnx", "--check")
    assert code == 1
    assert "my.domain.Mystery x1" in out
    assert "cannot be imported: 66.7% of operators" in out


def test_inspect_an_artifact(call: Call) -> None:
    found = document(call("inspect", "net.burnish", "--json"))
    assert found["stage"] == "compiled"
    assert found["inputs"][0]["shape"] == [1, 64]
    assert "QuantizeWeights" in [row["name"] for row in found["passes"]["rows"]]
    assert {"schema", "source", "target", "versions", "members"} <= set(found["manifest"])
    assert "[quantize]" in found["recipe"]
    code, out, _ = call("inspect", "net.burnish")
    assert code == 0
    for said in ("schema", "calibration", "tuning records", "isa", "lib.so", "bits = 8"):
        assert said in out


def test_verify_checks_a_file_and_runs_nothing(call: Call) -> None:
    content = Path("net.burnish").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    found = document(call("verify", "net.burnish", "--sha256", digest, "--json"))
    assert (found["whole"], found["runs_here"], found["sha256"]) == (True, True, digest)
    code, out, _ = call("verify", "net.burnish")
    assert code == 0
    assert "params.safetensors" in out
    assert "it runs here" in out
    code, out, _ = call("verify", "net.burnish", "--sha256", "0" * 64)
    assert (code, "is not the file that was meant" in out) == (1, True)
    Path("cut.burnish").write_bytes(content[:-1])
    found = document(call("verify", "cut.burnish", "--json"), 1)
    assert (found["whole"], "it does not end as such a file does" in found["why"]) == (False, True)
    assert call("verify", "none.burnish")[0] == 2
    code, _, err = call("run", "net.burnish", "--random", "--sha256", "0" * 64)
    assert (code, "is not the file that was meant" in err) == (2, True)


def test_registered_pass_and_evaluation_by_name(call: Call) -> None:
    Path("mine.py").write_text(
        "import burnish\n"
        "from tvm.relax.transform import CanonicalizeBindings\n"
        "burnish.register_pass('tidy', CanonicalizeBindings, phase='clean', replace=True)\n"
    )
    Path("mine.toml").write_text("schema = 1\npasses = ['tidy']\n")
    arguments = ["compile", "net.pt2", "-o", "m.burnish", "--recipe", "mine.toml"]
    found = document(call(*arguments, "--keep-all", "--register", "mine.py", "--json"))
    names = [row["name"] for row in found["report"]["rows"] if row["phase"] == "clean"]
    assert names[-1] == "CanonicalizeBindings"


def test_zoo_lists_every_model(call: Call) -> None:
    found = document(call("zoo", "--json"))
    assert {"minilm", "magika", "whisper-encoder"} <= set(found["models"])
    code, _, err = call("compile", "zoo:magica", "-o", "z.burnish")
    assert code == 2
    assert "magika" in err


def test_the_compile_cache_is_listed_and_cleared(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path))
    monkeypatch.delenv("BURNISH_CACHE_LIMIT")
    code, out, _ = call("cache")
    assert (code, "nothing in" in out) == (0, True)
    compile_ = ("compile", "net.pt2", "-o", "cached.burnish")
    assert "not cached" not in call(*compile_, "--no-cache")[1]
    assert json.loads(call("cache", "--json")[1])["entries"] == []
    assert "kept in the cache" in call(*compile_)[1]
    assert "taken from the cache; compiling took" in call(*compile_)[1]
    (entry,) = json.loads(call("cache", "--json")[1])["entries"]
    assert Path(entry["path"]).stat().st_size == entry["bytes"]
    assert Path(entry["path"]).stem[:16] in call("cache")[1]
    sizes = json.loads(call("cache", "size", "--json")[1])
    assert (sizes["entries"], sizes["bytes"], sizes["limit"]) == (1, entry["bytes"], 10**10)
    assert "1 models, " in call("cache", "size")[1]
    assert json.loads(call("cache", "clear", "--json")[1])["removed"] == 1
    assert "removed 0 files" in call("cache", "clear")[1]


def test_extract_writes_the_members_of_a_whole_artifact(
    folder: Path, call: Call, tmp_path: Path
) -> None:
    code, out, _ = call("inspect", str(folder / "net.burnish"), "--extract", str(tmp_path / "net"))
    assert code == 0
    files = {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()}
    assert out.split() == [
        str(tmp_path / "net" / name) for name in files_in(folder / "net.burnish")
    ]
    with zipfile.ZipFile(folder / "net.burnish") as archive:
        assert files == {name: archive.read(name) for name in archive.namelist()}
    damaged = bytearray((folder / "net.burnish").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "bad.burnish").write_bytes(damaged)
    code, _, err = call(
        "inspect", str(tmp_path / "bad.burnish"), "--extract", str(tmp_path / "bad")
    )
    assert (code, "damaged" in err) == (2, True)
    assert not (tmp_path / "bad").exists()
    code, _, err = call("inspect", str(folder / "net.pt2"), "--extract", str(tmp_path / "bad"))
    assert (code, "--extract is for artifacts" in err) == (2, True)


def files_in(artifact: Path) -> list[str]:
    with zipfile.ZipFile(artifact) as archive:
        return archive.namelist()


@pytest.mark.heavy
def test_the_verbs_work_on_an_opencl_device(call: Call) -> None:
    require_device()
    document(call("compile", "net.pt2", "-o", "device.burnish", "--target", "opencl", "--json"))
    found = document(call("inspect", "device.burnish", "--json"))
    assert found["manifest"]["target"]["kind"] == "opencl"
    document(call("run", "device.burnish", "--random", "--json"))
    arguments = ("--target", "opencl", "--max-error", "1e-5", "--json")
    assert document(call("compare", "net.pt2", *arguments))["failures"] == []
    code, _, err = call("profile", "device.burnish")
    assert code != 0
    assert (
        "a profile of one device is of kernels on the CPU, and the model is built for 'opencl'"
        in err
    )
