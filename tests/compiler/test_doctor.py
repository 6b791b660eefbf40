"""What doctor says where something is missing."""

from __future__ import annotations

import importlib
import os
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

from burnish.compiler import doctor
from burnish.targets.target import host


def test_wrong_tvm_pair_names_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "0.1.15")
    found = doctor.tvm_pair()
    assert found.status == "broken"
    assert "apache-tvm-ffi 0.1.15" in found.detail
    assert found.remedy == "pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1"
    assert doctor.cpu_kernel().detail == "not tried: the TVM pair is wrong"


def test_no_compiler_on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = doctor.cxx()
    assert (found.status, found.needed) == ("missing", True)
    assert "install g++" in found.remedy


def test_what_code_is_made_for() -> None:
    found = doctor.instruction_set()
    assert (found.status, found.needed) == ("ok", True)
    assert f"{host().mcpu}: " in found.detail
    assert f"{host().lanes} floats a vector, {host().registers} vector registers" in found.detail
    assert f"{host().l1 // 1024} KiB + " in found.detail


def test_linkers_for_other_cpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = doctor.other_cpus()
    assert (found.status, found.needed) == ("missing", False)
    assert "aarch64-linux-gnu-g++ is not on PATH" in found.detail
    linker = tmp_path / "aarch64-linux-gnu-g++"
    linker.write_text("#!/bin/sh\n")
    linker.chmod(0o755)
    assert doctor.other_cpus().detail == f"linkers: aarch64: {linker}"


def test_compiler_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "g++"
    fake.write_text("#!/bin/sh\necho 'no headers here' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert "no headers here" in doctor.cxx().detail


def test_extras_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> ModuleType:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    assert doctor.onnxruntime().remedy == "pip install 'burnish[onnx]'"
    assert doctor.openvino().status == "missing"
    assert doctor.tuner().detail.startswith("xgboost: not installed")


def test_zoo_folder_is_where_the_cache_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / "not" / "yet"))
    found = doctor.zoo()
    assert found.status == "ok"
    assert str(tmp_path / "not" / "yet") in found.detail
