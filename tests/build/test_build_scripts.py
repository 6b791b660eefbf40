"""``python -m burnish.build.KIND``: artifacts, the code of kernels, and how a script ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import burnish
from burnish import cli
from burnish.build import cpu, cuda, opencl, script
from burnish.targets.cuda import disassemble
from cuda_support import require_compiler
from support import ROOT, require_program

Call = Callable[..., tuple[int, str, str]]
PAGES = (cpu, cuda, opencl)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network of two kinds of kernels and an open size, as a file."""
    path = tmp_path_factory.mktemp("scripts") / "net.pt2"
    module = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Softmax(-1)).eval()
    rows = ({0: torch.export.Dim("rows")},)
    given = (torch.randn(2, 64),)
    torch.export.save(torch.export.export(module, given, dynamic_shapes=rows), path)
    return str(path)


@pytest.fixture
def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Call:
    """A script, or the command, in this process and an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def called(page: Any, *arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            page.main(arguments)
        captured = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, captured.out, captured.err

    return called


def test_build_for_this_cpu_as_a_build_system_does(net: str, tmp_path: Path) -> None:
    out = tmp_path / "net.burnish"
    (tmp_path / "r.toml").write_text('schema = 1\ndo_no_harm = false\nquantize = "int8"\n')
    command = [sys.executable, "-m", "burnish.build.cpu", net, "-o", str(out), "--json"]
    environment = os.environ | {"BURNISH_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [*command, "--recipe", str(tmp_path / "r.toml")],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=environment,
    )
    assert done.stdout.count("\n") == 1
    said = json.loads(done.stdout)
    assert (said["artifact"], said["code"]) == (str(out), [])
    assert said["bytes"]["artifact"] == out.stat().st_size
    loaded = burnish.load(out)
    assert said["kernels"] == len(loaded.kernels)
    assert any(value.dtype == "int8" for value in loaded.params.values())
    given = torch.randn(2, 64)
    torch.testing.assert_close(loaded(given).sum(-1), torch.ones(2))


def test_the_verb_of_the_python_api_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of the scripts takes the verb's place among the names of burnish."""
    package = sys.modules["burnish.build"]
    monkeypatch.setitem(vars(burnish), "build", package)
    stage = burnish.optimize(burnish.import_model(nn.ReLU().eval(), (torch.randn(3),)))
    for verb in (burnish.build, burnish.__getattr__("build")):
        torch.testing.assert_close(verb(stage)(-torch.ones(3)), torch.zeros(3))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.__name__)
def test_help_teaches(call: Call, page: Any) -> None:
    code, out, _ = call(page, "--help")
    assert code == 0
    assert f"python -m {page.__name__}" in " ".join(out.split("Examples")[1].split())
    for option in ("--recipe", "--dynamic", "--emit", "--kernel", "--json"):
        assert option in out


def test_other_cpus_by_their_instructions(net: str, call: Call, tmp_path: Path) -> None:
    code, old, _ = call(cpu, net, "--mcpu", "x86-64-v2", "--emit", "asm")
    assert code == 0
    _, new, _ = call(cpu, net, "--mcpu", "x86-64-v3", "--emit", "asm", "--kernel", "*gemm*")
    assert "%xmm" in old
    assert "%ymm" not in old
    assert "%ymm" in new
    assert new.count("==> ") == 1
    _, arm, _ = call(cpu, net, "--mtriple", "aarch64-linux-gnu", "--emit", "asm,ir")
    assert "fmla\tv" in arm
    assert arm.count(".py <==") == arm.count(".s <==") == old.count("==> ")
    _, plain, _ = call(cpu, net, "--mcpu", "x86-64-v3", "--mattr=-fma", "--emit", "asm")
    assert "vfmadd" in new
    assert "vfmadd" not in plain
    assert list(tmp_path.iterdir()) == []


def test_code_and_artifact_at_once(net: str, call: Call, tmp_path: Path) -> None:
    arguments = [net, "-o", "net.burnish", "--emit", "llvm", "--emit", "ir", "--emit-to", "code"]
    code, out, _ = call(cpu, *arguments, "--json")
    assert code == 0
    said = json.loads(out)
    # With open sizes the library has a function that computes sizes, which is no kernel.
    kernels = set(burnish.load(tmp_path / "net.burnish").kernels)
    assert {item["kernel"] for item in said["code"]} == kernels
    assert {Path(item["path"]) for item in said["code"]} == set((tmp_path / "code").iterdir())
    for item in said["code"]:
        text = Path(item["path"]).read_text()
        assert (
            f"@__tvm_ffi_{item['kernel']}(" if item["kind"] == "llvm" else "T.prim_func"
        ) in text


def test_cross_built_artifact(net: str, call: Call, tmp_path: Path) -> None:
    require_program("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu")
    arguments = ["--mtriple", "aarch64-linux-gnu", "--mcpu", "cortex-a76"]
    assert call(cpu, net, "-o", "arm.burnish", *arguments)[0] == 0
    code, _, err = call(cli, "run", "arm.burnish", "--random")
    assert (code, "is for aarch64, this machine is x86_64" in err) == (2, True)


def test_cuda_code(net: str, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    require_compiler()
    arguments = ["--arch", "sm_90", "--arch", "sm_75", "--kernel", "softmax*"]
    code, out, _ = call(cuda, net, *arguments, "--emit", "cuda,ptx", "--json")
    assert code == 0
    source, old, new = json.loads(out)["code"]
    assert "__global__" in source["text"]
    assert (old["arch"], ".target sm_75" in old["text"]) == ("sm_75", True)
    assert (new["arch"], ".target sm_90" in new["text"]) == ("sm_90", True)
    monkeypatch.setattr(disassemble, "_from_pip", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = call(cuda, net, *arguments, "--emit", "sass")
    assert (code, "is on PATH or from pip: pip install 'burnish[cuda]'" in err) == (
        2,
        True,
    )


def test_sass(net: str, call: Call) -> None:
    require_compiler()
    code, out, _ = call(cuda, net, "--arch", "sm_80", "--emit", "sass", "--kernel", "softmax")
    assert code == 0
    assert out.startswith("==> softmax.sm_80.sass <==")
    assert "/*0000*/" in out
    assert "EXIT" in out


def test_opencl_code_and_artifact(net: str, call: Call, tmp_path: Path) -> None:
    arguments = [net, "-o", "o.burnish", "--device", "adreno", "--emit", "cl", "--json"]
    code, out, _ = call(opencl, *arguments)
    assert code == 0
    said = json.loads(out)
    assert said["target"] == "opencl:adreno"
    assert all("__kernel void" in item["text"] for item in said["code"])
    assert len(said["code"]) == said["kernels"] > 1
    assert b"__kernel void" in (tmp_path / "o.burnish").read_bytes()


def test_inspect_shows_the_same_code(net: str, call: Call) -> None:
    shown = call(cli, "inspect", net, "--emit", "ir", "--kernel", "softmax*")
    assert shown == call(cpu, net, "--emit", "ir", "--kernel", "softmax*")
    assert shown[0] == 0


@pytest.mark.parametrize(
    ("page", "arguments", "message"),
    [
        (cpu, [], "nothing to do: say -o FILE, --emit KIND, or both"),
        (cpu, ["-o", "no/o"], "no folder"),
        (cpu, ["-o", "o", "--mcpu", "z80"], "LLVM knows no CPU 'z80' of x86_64"),
        (cpu, ["-o", "o", "--mtriple", "riscv64-linux-gnu"], "no schedule rules for riscv64"),
        (cpu, ["-o", "o", "--mtriple", "armv7l-linux-gnueabihf"], "no schedule rules for armv7l"),
        (cpu, ["-o", "o", "--mtriple", "aarch64-linux-gnu"], "apt install g++-aarch64-linux-gnu"),
        (cpu, ["-o", "o", "--mtriple", "aarch64-none-elf"], "aarch64-none-elf-g++ is not on PATH"),
        (cpu, ["-o", "o", "--recipe", "no.toml"], "no recipe file no.toml"),
        (cpu, ["--emit", "ptx"], "ptx is of the target cuda"),
        (cpu, ["-o", "o", "--kernel", "a*"], "--kernel needs --emit KIND"),
        (cpu, ["-o", "o", "--emit-to", "a"], "--emit-to needs --emit KIND"),
        (cpu, ["--emit", "ir", "--emit-to", "a/b"], "no folder, and none can be made there"),
        (cpu, ["--emit", "ir", "--kernel", "a*"], "no kernel matches 'a*'; there are "),
        (opencl, ["-o", "o", "--device", "adrno"], "did you mean opencl:adreno?"),
        (cuda, ["-o", "o", "--arch", "sm_91"], "no architecture 'sm_91'; known: sm_75"),
        (cuda, ["--emit", "asm"], "no 'asm' of kernels for 'cuda', only cuda, ptx, sass, ir"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    net: str,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    page: Any,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    code, out, err = call(page, net, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith(f"python -m {page.__name__}: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_script_has_the_options_of_compile() -> None:
    import inspect

    from burnish.cli import compile

    own = {"out", "target"}
    shared = set(inspect.signature(compile.compile).parameters) - own
    assert shared <= set(inspect.signature(script.build).parameters)
