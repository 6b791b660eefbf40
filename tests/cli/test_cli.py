"""The command's manners: exit codes, one-line errors, JSON alone on stdout, help that teaches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from burnish import cli
from burnish.cli import console
from burnish.compiler import doctor
from burnish.compiler.doctor import Check
from burnish.compiler.doctor.libraries import LIBRARIES
from support import ROOT

VERBS = (
    *("compile", "run", "compare", "inspect", "verify", "zoo", "doctor", "demo", "place", "cache"),
    "devices",
)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command, run in this process."""
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    captured = capsys.readouterr()
    code = left.value.code
    assert isinstance(code, int)
    return code, captured.out, captured.err


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    """An ONNX file with a free batch axis."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [given], [made])
    path = tmp_path / "relu.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_has_examples(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    code, out, _ = call(capsys, verb, "--help")
    assert code == 0
    assert f"burnish {verb}" in out.split("Examples")[1]


def test_help_and_bare_call_list_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--help")
    assert code == 0
    assert all(verb in out for verb in VERBS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compilr"], "No such command 'compilr'"),
        (["compile", "a.onnx"], "Missing option '--out'"),
        (["compile", "none.onnx", "-o", "out.burnish"], "no such model file: none.onnx"),
        (["compile", "net.h5", "-o", "out.burnish"], "no such model file: net.h5"),
        (["compile", "a.onnx", "-o", "none/out.burnish"], "no folder"),
        (["compile", "a.onnx", "-o", "o", "--prune", "2"], "sparsity must be from 0 to 1, got 2"),
        (["compile", "a.onnx", "-o", "o", "--quantize", "int9"], "quantize 'int9' is unknown"),
        (["compile", "a.onnx", "-o", "o", "--tune", "0"], "trials must be a whole number"),
        (["compile", "a.onnx", "-o", "o", "--threads", "0"], "threads must be a whole number"),
        (["compile", "a.onnx", "-o", "o", "--recipe", "no.toml"], "no recipe file no.toml"),
        (["compile", "a.onnx", "-o", "o", "--register", "no.py"], "--register: no file no.py"),
        (["compile", "a.onnx", "-o", "o", "--dynamic", "x"], "is not NAME:AXIS=SYMBOL"),
        (["compile", "a.onnx", "-o", "o", "--input", "x"], "is not NAME=SHAPE:DTYPE"),
        (["run", "none.burnish", "--random"], "no artifact none.burnish"),
        (["run", "a.burnish"], "one of --inputs, --random, --zoo"),
        (["compare", "a.onnx", "b.burnish", "--prune", "0.5"], "not both"),
        (["compare", "a.onnx", "--report", "out.txt"], "must end in .json or .html"),
        (["inspect", "none.burnish"], "no artifact none.burnish"),
        (["inspect", "a.onnx", "--stage", "late"], "'late'"),
    ],
)
def test_errors_are_one_line_on_stderr(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.startswith("burnish: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    contents = {"a.onnx": b"hello", "b.onnx": b"", "c.pt2": b"hello", "d.h5": b"hello"}
    said = ("a.onnx ", "b.onnx is empty", "c.pt2 is no .pt2 archive", "known are .onnx, ")
    for (name, content), message in zip(contents.items(), said, strict=True):
        (tmp_path / name).write_bytes(content)
        out_file = str(tmp_path / "out.burnish")
        code, _, err = call(capsys, "compile", str(tmp_path / name), "-o", out_file)
        assert code == 2
        assert message in err.splitlines()[-1]


def test_truncated_onnx_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, relu: Path
) -> None:
    relu.write_bytes(relu.read_bytes()[:-7])
    code, _, err = call(capsys, "compile", str(relu), "-o", str(tmp_path / "out.burnish"))
    assert code == 2
    assert "relu.onnx" in err


def test_traceback_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Traceback" not in call(capsys, "run", "none.burnish", "--random")[2]
    assert "Traceback" in call(capsys, "run", "none.burnish", "--random", "-v")[2]
    assert "Traceback" in call(capsys, "-v", "run", "none.burnish", "--random")[2]


def test_a_needed_check_that_fails_exits_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = Check("cpu", "ok", "here", needed=True)
    bad = Check("c++ compiler", "unavailable", "none on PATH", "install g++", needed=True)
    extra = Check("openvino", "unavailable", "not installed")
    monkeypatch.setattr("burnish.compiler.doctor.examine", lambda: [fine, extra])
    code, out, _ = call(capsys, "doctor")
    assert code == 0
    assert "Burnish can compile here." in out
    monkeypatch.setattr("burnish.compiler.doctor.examine", lambda: [fine, bad, extra])
    code, out, _ = call(capsys, "doctor", "--json")
    assert code == 1
    data = json.loads(out)
    assert data["ok"] is False
    assert data["checks"][1]["remedy"] == "install g++"


def test_doctor_tries_this_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = tuple(row for row in doctor.PROBES if row[0] not in LIBRARIES)
    monkeypatch.setattr(doctor, "PROBES", quick)
    code, out, _ = call(capsys, "--json", "doctor")
    found = {check["name"]: check for check in json.loads(out)["checks"]}
    assert code == 0
    assert found["cpu kernel"]["detail"].endswith("ran, right")
    assert found["tvm"]["status"] == "ok"


def test_json_is_alone_on_stdout_whatever_libraries_print() -> None:
    code = (
        "import os, sys\n"
        "from burnish.cli import console\n"
        "with console.redirected_stdout():\n"
        "    print('from python'); sys.stdout.flush(); os.system('echo from a child')\n"
        "    os.write(1, b'from C\\n')\n"
        "    console.print_json({'a': 1})\n"
        "print('after')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == '{\n  "a": 1\n}\nafter\n'
    assert run.stderr.split("\n") == ["from python", "from a child", "from C", ""]


def test_json_takes_arrays_and_paths(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"a": np.float32(1.5), "b": np.arange(2), "c": Path("x")})
    assert json.loads(capsys.readouterr().out) == {"a": 1.5, "b": [0, 1], "c": "x"}


def test_interrupt_exits_with_130(tmp_path: Path) -> None:
    waiting = tmp_path / "wait.py"
    waiting.write_text("import time\nprint('waiting', flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, "-c", "from burnish.cli import main; main()"]
    command += ["compile", "a.onnx", "-o", str(tmp_path / "o.burnish"), "--register", str(waiting)]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # A shell ignores interrupts in what it runs in the background, and so would this.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "waiting\n"
    time.sleep(0.1)
    os.kill(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert err == "burnish: interrupted\n"
    assert list(tmp_path.iterdir()) == [waiting]
