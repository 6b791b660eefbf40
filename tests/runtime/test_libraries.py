"""What an artifact needs of NVIDIA's libraries, and what stands in for them here."""

from __future__ import annotations

import subprocess

import pytest

from burnish.runtime import libraries, manifest
from burnish.runtime.errors import ArtifactError
from burnish.targets.native import find_compiler

VERSIONS = "unsigned long cublasLtGetVersion(void) { return %d; }"


@pytest.fixture
def told(tmp_path, monkeypatch):
    """A cuBLASLt that tells a version."""

    def make(number: int) -> None:
        path = tmp_path / f"{number}.so"
        command = [*find_compiler(), "-x", "c", "-shared", "-fPIC", "-", "-o", str(path)]
        subprocess.run(command, input=VERSIONS % number, text=True, check=True)
        monkeypatch.setenv("BURNISH_CUBLASLT", str(path))

    return make


def test_an_older_library_is_refused_by_name(told, monkeypatch, tmp_path):
    needs = {"cublas": {"least": "12.0"}}
    told(110901)
    assert libraries.version_here("cublas") == "11.9.1"
    with pytest.raises(ArtifactError, match=r"cuBLASLt 12.0 or later, and 11.9.1 is here: pip"):
        libraries.check_libraries(tmp_path, needs, lambda: 90)
    told(120000)
    libraries.check_libraries(tmp_path, needs, lambda: 90)
    monkeypatch.setenv("BURNISH_CUBLASLT", str(tmp_path / "none.so"))
    assert libraries.version_here("cublas") is None
    libraries.check_libraries(tmp_path, needs, lambda: 90)  # the first call says so


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([], "libraries must be an object of cublas, cudnn, tensorrt"),
        ({"mkl": {"least": "1"}}, "libraries must be an object of"),
        ({"cudnn": {"most": "9"}}, "library cudnn"),
        ({"cudnn": {"least": "9" * 9}}, "the version of cudnn must be numbers"),
    ],
)
def test_what_a_manifest_may_say_of_them(found, message):
    with pytest.raises(ValueError, match=message):
        manifest._libraries(found)
