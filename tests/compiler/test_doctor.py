"""What doctor says where something is missing."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

import pytest

from burnish.compiler import doctor
from burnish.compiler.doctor import cpu, cuda, libraries, machine, opencl, other_cpus, tools
from burnish.compiler.doctor.check import Check
from burnish.targets.cuda import nvrtc
from burnish.targets.cuda import target as cuda_target
from burnish.targets.opencl import probe
from burnish.targets.target import host
from support import require_program


def test_wrong_tvm_pair_names_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "0.1.15")
    found = machine.tvm_pair()
    assert found.status == "broken"
    assert "apache-tvm-ffi 0.1.15" in found.detail
    assert found.remedy == "pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1"
    assert cpu.kernel().detail == "not tried: the TVM pair is wrong"


def test_a_probe_that_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Check:
        raise ZeroDivisionError("one\ntwo")

    rows = (("odd", fails), ("python", machine.python))
    monkeypatch.setattr(doctor, "PROBES", rows)
    odd, python = doctor.examine()
    assert (odd.name, odd.status, odd.detail) == ("odd", "broken", "one")
    assert python.status == "ok"


def test_no_compiler_on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = tools.cxx()
    assert (found.status, found.needed) == ("unavailable", True)
    assert "install g++" in found.remedy


def test_compiler_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _program(tmp_path / "g++", "echo 'no headers here' >&2\nexit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = tools.cxx()
    assert found.status == "broken"
    assert "no headers here" in found.detail


def test_compiler_whose_library_cannot_be_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _program(tmp_path / "g++", 'while [ "$1" != -o ]; do shift; done\necho no > "$2"\n')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert tools.cxx().status == "broken"


def test_what_code_is_made_for() -> None:
    found = cpu.instruction_set()
    assert (found.status, found.needed) == ("ok", True)
    assert f"{host().mcpu}: " in found.detail
    assert f"{host().lanes} floats a vector, {host().registers} vector registers" in found.detail
    assert f"{host().l1 // 1024} KiB + " in found.detail


def test_another_cpu_without_its_linker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = other_cpus.aarch64()
    assert (found.status, found.needed) == ("unavailable", False)
    assert "aarch64-linux-gnu-g++ is not on PATH" in found.detail
    assert found.remedy == "Debian: apt install g++-aarch64-linux-gnu"
    _program(tmp_path / "aarch64-linux-gnu-g++", "echo 'bad linker' >&2\nexit 1\n")
    found = other_cpus.aarch64()
    assert (found.status, "bad linker" in found.detail) == ("broken", True)


def test_another_cpu_runs_a_kernel_or_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = require_program("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu")
    require_program("qemu-aarch64", "qemu-user")
    found = other_cpus.aarch64()
    assert found.status == "run", found
    assert compiler in found.detail
    os.symlink(compiler, tmp_path / "aarch64-linux-gnu-g++")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = other_cpus.aarch64()
    assert (found.status, found.remedy) == ("compile only", "Debian: apt install qemu-user")
    _program(tmp_path / "qemu-aarch64", "exit 1\n")
    found = other_cpus.aarch64()
    assert (found.status, found.detail.endswith("ends with code 1")) == ("broken", True)


def test_libraries_that_are_missing_or_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(python))
    script = "import runpy, sys\nsys.modules['openvino'] = None\n"
    script += "sys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    (tmp_path / "without.py").write_text(script)
    _program(python, f'shift\nexec "{sys.base_prefix}/bin/python3" "{tmp_path}/without.py" "$@"\n')
    found = libraries.trial("openvino")
    assert (found.status, found.remedy) == ("unavailable", "pip install 'burnish[bench]'")
    assert "not installed" in found.detail
    _program(python, "echo 'ValueError: bad build' >&2\nexit 1\n")
    found = libraries.trial("openvino")
    assert (found.status, found.detail.split(";")[0]) == ("broken", "ValueError: bad build")
    assert found.remedy == "pip install --force-reinstall openvino"
    _program(python, "kill -SEGV $$\n")
    assert "ended with code -11" in libraries.trial("openvino").detail


@pytest.mark.parametrize("name", ["onnx", "tflite", "tokenizers"])
def test_a_library_is_used(name: str) -> None:
    found = libraries.trial(name)
    assert found.status == "run", found
    assert metadata.version(name) in found.detail


@pytest.mark.heavy
def test_everything_is_tried_here() -> None:
    found = {check.name: check for check in doctor.examine()}
    assert list(found) == [name for name, _ in doctor.PROBES]
    for name in ("onnxruntime", "openvino", "keras", "transformers", "xgboost"):
        assert found[name].status == "run", found[name]
    assert all(check.remedy for check in found.values() if not check.fine)


def test_cuda_without_a_compiler_or_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(source: str, arch: str) -> nvrtc.Code:
        raise RuntimeError("no NVRTC here\nat all")

    monkeypatch.setattr(cuda_target, "device_capability", lambda: "there is no GPU")
    monkeypatch.setattr(nvrtc, "compile_source", absent)
    found = cuda.kernel()
    assert (found.status, found.remedy) == ("unavailable", "pip install 'burnish[cuda]'")
    assert found.detail == "no NVRTC here; no model runs: there is no GPU"
    assert cuda.nvrtc().status == "unavailable"
    monkeypatch.setattr(nvrtc, "compile_source", lambda source, arch: nvrtc.Code(arch, b"", b""))
    found = cuda.kernel()
    assert (found.status, "there is no GPU" in found.detail) == ("compile only", True)
    assert "save the model" in found.remedy


def test_cuda_with_a_driver_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_target, "device_capability", lambda: 90)
    monkeypatch.setattr(nvrtc, "compile_source", lambda source, arch: nvrtc.Code(arch, b"", b""))

    def run(cubin: bytes) -> tuple[str, list[float]]:
        raise RuntimeError("cuModuleLoadData failed with CUDA error 200")

    monkeypatch.setattr(cuda, "_run", run)
    found = cuda.kernel()
    assert (found.status, "CUDA error 200" in found.detail) == ("compile only", True)
    monkeypatch.setattr(cuda, "_run", lambda cubin: ("H100", [0.0] * cuda.COUNT))
    assert cuda.kernel().status == "broken"
    right = [index + 1.0 for index in range(cuda.COUNT)]
    monkeypatch.setattr(cuda, "_run", lambda cubin: ("H100", right))
    assert cuda.kernel().detail == "built for sm_90, ran on H100, right"


def test_zoo_folder_is_where_the_cache_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / "not" / "yet"))
    found = machine.zoo()
    assert found.status == "ok"
    assert str(tmp_path / "not" / "yet") in found.detail


def _program(path: Path, script: str) -> None:
    """A shell script that stands for a program."""
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)


def test_opencl_runs_or_says_which_device_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    good = probe.Finding("opencl:0 (one, some)", float16=True)
    bad = probe.Finding("opencl:1 (two, some)", "does not build\nat all")
    monkeypatch.setattr(probe, "survey", lambda: probe.Survey((good, bad)))
    found = opencl.kernel()
    assert (found.status, found.remedy) == ("run", "")
    assert found.detail == (
        "opencl:0 (one, some) ran a kernel, right, float16 too; opencl:1 (two, some) fails: does "
        "not build"
    )
    monkeypatch.setattr(probe, "survey", lambda: probe.Survey((bad,)))
    found = opencl.kernel()
    assert (found.status, "install a driver" in found.remedy) == ("compile only", True)
    assert "kernels are generated, and cannot run here; opencl:1" in found.detail
    none = probe.Survey((), "no C++ compiler", "install g++")
    monkeypatch.setattr(probe, "survey", lambda: none)
    found = opencl.kernel()
    assert (found.status, found.remedy) == ("compile only", "install g++")
    assert found.detail.endswith("; no C++ compiler")


def test_opencl_without_its_code_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise ValueError("target opencl is not enabled")

    monkeypatch.setattr(opencl, "_generate", fails)
    monkeypatch.setattr(probe, "survey", lambda: probe.Survey((), "no driver"))
    found = opencl.kernel()
    assert (found.status, found.detail) == ("unavailable", "target opencl is not enabled")
    assert found.remedy == "reinstall apache-tvm"
