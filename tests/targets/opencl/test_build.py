"""Making, caching and loading: the runtime itself, built programs, and ``import tvm``."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from burnish.runtime.reading import cache_folder
from burnish.targets import native
from burnish.targets.opencl import probe, runtime
from opencl_support import kernel, load, python, require_device, zeros
from support import ROOT, require_program


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Path]:
    """An empty folder that built programs are kept in."""
    require_device()
    folder = tmp_path / "programs"
    runtime.cache_programs(folder)
    yield folder
    runtime.cache_programs(cache_folder() / "opencl" / "programs")


def counted(value: float) -> dict[str, int]:
    """Run a kernel that stores ``value``; what it took."""
    before = runtime.counters()
    out = zeros((1,), "float32")
    load(kernel(f"out[0] = {value}f;", ("handle", "__global float* out")))["k"](out, 1, 1)
    assert out.numpy()[0] == value
    return {name: count - before[name] for name, count in runtime.counters().items()}


def test_programs_are_cached_and_a_damaged_entry_is_built_anew(programs: Path) -> None:
    names = ("built", "from_cache", "cache_damaged")

    def took(value: float) -> tuple[int, ...]:
        found = counted(value)
        return tuple(found[name] for name in names)

    assert took(1.5) == (1, 0, 0)
    (entry,) = programs.iterdir()
    assert took(1.5) == (0, 1, 0)
    assert took(2.5) == (1, 0, 0)

    sound = entry.read_bytes()
    flipped = bytes([sound[-9] ^ 1])
    for damaged in (sound[:-7], b"", sound[:60], sound[:-9] + flipped + sound[-8:]):
        entry.write_bytes(damaged)
        assert took(1.5) == (1, 0, 1)
        assert took(1.5) == (0, 1, 0)  # and replaced
    other = next(path for path in programs.iterdir() if path != entry)
    entry.write_bytes(other.read_bytes())  # sound, of another key
    assert took(1.5) == (1, 0, 0)
    assert not list(programs.glob("*.part"))


def test_a_binary_that_the_driver_refuses_is_built_anew(programs: Path) -> None:
    counted(3.5)
    (entry,) = programs.iterdir()
    whole = entry.read_bytes()
    mark = whole.index(b"\n") + 1
    size = int.from_bytes(whole[mark + 8 : mark + 16], "little")
    body = whole[mark + 8 : mark + 16 + size] + b"not what a driver wrote"
    entry.write_bytes(whole[:mark] + _fnv(body).to_bytes(8, "little") + body)
    found = counted(3.5)
    assert (found["built"], found["from_cache"], found["cache_damaged"]) == (1, 0, 1)


def _fnv(data: bytes) -> int:
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def test_a_cache_that_cannot_be_written_changes_nothing(programs: Path) -> None:
    programs.rmdir()
    programs.write_text("a file where the folder should be")
    for _ in range(2):
        found = counted(1.5)
        assert (found["built"], found["from_cache"]) == (1, 0)


def test_old_programs_go_when_there_are_too_many(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for age, name in enumerate("cba"):
        (programs / name).write_bytes(b"x" * 100)
        os.utime(programs / name, (1_000_000 - age, 1_000_000 - age))
    monkeypatch.setattr("burnish.runtime.opencl.CACHED_PROGRAMS", 250)
    runtime.cache_programs(programs)
    assert sorted(path.name for path in programs.iterdir()) == ["b", "c"]


def test_a_damaged_runtime_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_device()
    sound = runtime.cached()
    assert sound is not None
    damaged = tmp_path / "runtime.so"
    damaged.write_bytes(b"no library")
    monkeypatch.setattr(runtime, "_built", lambda: sound)
    assert runtime._open(damaged)._name == str(sound)
    assert not damaged.exists()


def test_the_key_changes_with_compiler_source_and_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "a.cc"
    source.write_text("int a;")
    key = native.source_key([source], ["-O1"])
    assert native.source_key([source], ["-O1"]) == key
    assert native.source_key([source], ["-O2"]) != key
    with monkeypatch.context() as patch:
        patch.setattr(importlib.metadata, "version", lambda name: "0")
        assert native.source_key([source], ["-O1"]) != key
    source.write_text("int b;")
    assert native.source_key([source], ["-O1"]) != key
    compiler = tmp_path / "g++"
    compiler.write_text("1")
    assert native.compiler_key([str(compiler)]) != native.compiler_key([str(compiler), "-m64"])


def test_the_compiler_is_the_one_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own"
    own.write_text("#!/bin/sh\necho 'own compiler says no' >&2\nexit 1\n")
    own.chmod(0o755)
    monkeypatch.setenv("CXX", f"{own} --flag")
    assert native.find_compiler() == [str(own), "--flag"]
    with pytest.raises(RuntimeError, match=r"does not compile a\.cc:\nown compiler says no"):
        native.shared_library(tmp_path / "a.cc", tmp_path / "a.so", native.find_compiler())
    assert not list(tmp_path.glob("building-*"))
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(native.MissingCompilerError, match=r"none of g\+\+, clang\+\+, c\+\+ is on"):
        native.find_compiler()


def test_what_is_missing_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise native.MissingCompilerError("no C++ compiler: none of a, b is on PATH")

    monkeypatch.setattr(runtime, "ensure", fails)
    assert runtime.why_not() == (
        "no C++ compiler: none of a, b is on PATH. Remedy: install a C++ compiler (Debian: apt "
        "install g++), or name one in CXX"
    )


def test_a_library_that_is_no_opencl_is_said(tmp_path: Path) -> None:
    require_device()
    say = "import tvm; from burnish.targets.opencl import runtime; print(runtime.why_not())\n"
    say += "print(tvm.opencl(0).exist); tvm.runtime.empty((1,), 'int8', tvm.opencl(0))"
    library = runtime.cached()  # a library, with nothing of OpenCL in it
    done = python(say, BURNISH_OPENCL=f"{tmp_path / 'absent.so'}:{library}")
    said, exists = done.stdout.strip().splitlines()
    assert "absent.so: cannot open shared object file" in said
    assert f"{library} has no clGetPlatformIDs: neither an OpenCL loader nor" in said
    assert "Remedy: install a driver (Debian, on the CPU: apt install pocl-opencl-icd" in said
    assert exists == "False"
    assert "RuntimeError: no OpenCL device here:" in done.stderr


FIRST_USE = """
import tvm
from burnish.targets.opencl import autoload, runtime
autoload.register()
autoload.register()
assert not runtime._loaded
assert tvm.opencl(0).exist and runtime._loaded
assert tvm.runtime.empty((3,), "int8", tvm.opencl(0)).numpy().shape == (3,)
"""


def test_import_tvm_loads_nothing_and_the_first_use_does() -> None:
    require_device()
    done = python(FIRST_USE)
    assert done.returncode == 0, done.stderr


@pytest.mark.heavy
def test_the_first_use_compiles(tmp_path: Path) -> None:
    require_device()
    code = FIRST_USE.replace("assert not", "assert runtime.cached() is None and not")
    done = python(code, BURNISH_CACHE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    (library,) = (tmp_path / "opencl").glob("*.so")
    assert library.name.startswith("runtime-")
    code = "import tvm\nfrom burnish.targets.opencl import autoload; autoload.register()\n"
    code += "assert tvm.opencl(0).exist is {there}"
    for folder, there in ((tmp_path, True), (tmp_path / "empty", False)):  # compiled earlier, never
        run = code.format(there=there)
        done = python(run, BURNISH_CACHE=str(folder), CXX="no-such-compiler")
        assert done.returncode == 0, done.stderr


def test_tvm_finds_the_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ((name, value),) = project["entry-points"]["tvm.backends"].items()
    entry = importlib.metadata.EntryPoint(name, value, "tvm.backends")
    entry.load()()  # what `import tvm` does with it; registered already, it does nothing


def test_each_device_is_tried_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    device = require_device()
    found = probe.survey()
    assert [one.label for one in found.running] == [
        f"opencl:{one.index} ({one.name}, {one.platform})" for one in runtime.devices()
    ]
    true = require_program("true")
    monkeypatch.setattr(probe, "SOURCE", probe.SOURCE.replace("1.0f", "2.0f"))
    assert probe.try_device(device.index) == "x + 1 came out wrong"
    monkeypatch.setattr(probe, "SOURCE", "not OpenCL")
    assert "does not build" in probe.try_device(device.index)
    monkeypatch.setattr(sys, "executable", true)
    assert probe.survey() == probe.Survey(())


def test_a_driver_that_ends_the_process_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = "opencl:0 (bad, driver)"
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\necho '{json.dumps({'label': label})}'\nkill -SEGV $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    found = probe.survey()
    assert found.running == ()
    assert found.devices[0].label == label
    assert "the process that tried it ended with signal 11" in found.devices[0].problem
