"""The child process that reads files: what comes back, and what a crash or a limit becomes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from burnish.compiler.errors import (
    BuildError,
    ImportModelError,
    UnsupportedOperator,
    UnsupportedOperatorError,
)
from burnish.compiler.importers.contained import Arrays, Data, Limits, contained

LIMITS = Limits(seconds=20, bytes=2**30)


def run(work: Callable[[], object], limits: Limits = LIMITS) -> tuple[Data, Arrays]:
    def whole() -> tuple[Data, Arrays]:
        work()
        return {}, {}

    return contained(whole, "m.onnx", limits)


def test_data_and_arrays_come_back() -> None:
    arrays = {
        "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
        "turned": np.arange(6, dtype=np.int64).reshape(2, 3).T,
        "half": np.ones((5,), ml_dtypes.bfloat16),
        "none": np.zeros((0, 3), np.float32),
        "flag": np.array(True),
    }
    data, got = contained(lambda: ({"x": [1, "two"]}, arrays), "m.onnx", LIMITS)
    assert data == {"x": [1, "two"]}
    assert list(got) == list(arrays)
    for name, want in arrays.items():
        assert got[name].dtype == want.dtype
        assert got[name].shape == want.shape
        assert (got[name] == want).all()
        assert got[name].ctypes.data % 64 == 0 or not want.size
    got["a.weight"][0, 0] = 7  # the caller's own memory


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), r"m\.onnx crashes the library .*SIGSEGV"),
        (os.abort, r"m\.onnx crashes the library .*SIGABRT"),
        (lambda: os._exit(3), r"m\.onnx cannot be read"),
        (lambda: bytearray(2**33), r"m\.onnx needs more than 1\.0 GiB .*BURNISH_IMPORT_GIB"),
        (lambda: {}["key"], r"m\.onnx cannot be read; it may be damaged: KeyError: 'key'"),
    ],
)
def test_what_goes_wrong_is_an_import_error(work: Callable[[], object], message: str) -> None:
    with pytest.raises(ImportModelError, match=message):
        run(work)


def spin() -> None:
    while True:
        pass


@pytest.mark.parametrize("work", [spin, lambda: time.sleep(100)])
def test_a_hang_ends(work: Callable[[], object]) -> None:
    with pytest.raises(ImportModelError, match=r"was not read within 1 s.*BURNISH_IMPORT_SECONDS"):
        run(work, Limits(seconds=0.6, bytes=2**30))


def test_errors_of_ours_come_back_whole() -> None:
    def refused() -> None:
        raise BuildError("too wide", op="conv", shape=[1, "batch"], pass_name="Fuse")

    with pytest.raises(BuildError) as caught:
        run(refused)
    error = caught.value
    assert (error.message, error.stage, error.op) == ("too wide", "build", "conv")
    assert (error.shape, error.pass_name) == ((1, "batch"), "Fuse")

    item = UnsupportedOperator("Mystery", 2, ("a", "b"), sources=("m.py:3", ""), version=24)

    def unsupported() -> None:
        raise UnsupportedOperatorError("1 operator", [item])

    with pytest.raises(UnsupportedOperatorError) as listed:
        run(unsupported)
    assert listed.value.operators == (item,)


def test_warnings_come_back_and_prints_do_not(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        print("noise")
        os.write(2, b"more noise")
        warnings.warn("text rounds floats", stacklevel=1)

    with pytest.warns(UserWarning, match="text rounds floats"):
        run(work)
    assert capfd.readouterr() == ("", "")


def test_nothing_of_the_parents_ends_in_the_child(tmp_path: Path) -> None:
    ended = tmp_path / "ended"

    class Owner:
        pass

    owner = Owner()
    owner.circle = owner  # type: ignore[attr-defined]
    weakref.finalize(owner, ended.touch)
    del owner
    run(lambda: __import__("gc").collect())
    assert not ended.exists()


def test_no_descriptor_and_no_process_is_left() -> None:
    def counts() -> int:
        return len(os.listdir("/proc/self/fd"))

    run(lambda: None)
    before = counts()
    for work in (lambda: None, os.abort, lambda: {}["key"]):
        with contextlib.suppress(ImportModelError):
            run(work)
    assert counts() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_limits_are_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Limits.of(10**8).seconds > Limits.of(0).seconds
    monkeypatch.setenv("BURNISH_IMPORT_SECONDS", "7")
    monkeypatch.setenv("BURNISH_IMPORT_GIB", "0.5")
    assert Limits.of(10**8) == Limits(7, 2**29)
    monkeypatch.setenv("BURNISH_IMPORT_GIB", "much")
    with pytest.raises(ImportModelError, match="BURNISH_IMPORT_GIB must be a positive number"):
        Limits.of(0)


def test_the_parent_keeps_its_modules() -> None:
    """What the child imports is not imported here."""
    run(lambda: __import__("this"))
    assert "this" not in sys.modules
