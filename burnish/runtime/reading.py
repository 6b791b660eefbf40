"""An artifact read and checked, as data: nothing of it is run here.

1. The file is, byte for byte, a zip as :mod:`.archive` writes it; so no member can be elsewhere,
   twice, compressed, a link, or under another name.
2. The manifest has the fields and types of :mod:`.manifest`, and no others.
3. Size and sha256 of every member are those of the manifest.
4. The weights fill their file, and are those that the manifest names.

Only then :func:`check_machine` compares what the code needs with what is here, and
:func:`unpacked` writes the library into the cache folder, under its own hash: the one place that
loading writes to. A sha256 of the whole file, where the caller gives one, comes before all.
"""

from __future__ import annotations

import hashlib
import hmac
import mmap
import os
import platform
import re
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import archive, isa, jsons, manifest
from .errors import ArtifactError
from .manifest import MEMBERS, Manifest
from .pins import PINS
from .weights import Weight, weights_in

NAMES = (manifest.NAME, *MEMBERS)
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, OSError, EOFError, KeyError, RuntimeError, ValueError, OverflowError),
    *(struct.error, RecursionError, MemoryError),
)
"""What ``zipfile`` raises on damaged files, by trial: encryption flags, dates, counts, names."""


@dataclass(frozen=True)
class Artifact:
    """A checked file. ``members`` are views of it, save the library, which is a copy."""

    path: Path
    manifest: Manifest
    members: Mapping[str, memoryview]

    @property
    def recipe(self) -> str:
        return str(self.members["recipe.toml"], "utf-8")

    def weights(self) -> dict[str, Weight]:
        """The weights in the order in which the library takes them."""
        found = weights_in(self.members["params.safetensors"])
        if set(found) != set(self.manifest.params):
            raise ValueError("the weights are not those of the manifest")
        return {name: found[name] for name in self.manifest.params}


def cache_folder() -> Path:
    """Where libraries are unpacked: ``$BURNISH_CACHE``, else the user's cache folder."""
    root = os.environ.get("BURNISH_CACHE") or Path.home() / ".cache" / "burnish"
    return Path(root)


def read_artifact(path: str | os.PathLike[str], *, sha256: str | None = None) -> Artifact:
    """The artifact, if it is whole; raises :class:`ArtifactError` that says what is wrong.

    ``sha256`` is what the file's own must be, in hexadecimal.
    """
    file = Path(path)
    if not file.is_file():
        raise ArtifactError(f"no artifact at {file}")
    try:
        with file.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size == 0:
                raise archive.DamagedError("it is empty")
            content = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        if sha256 is not None:
            _check_digest(file, content, sha256)
        return _checked(file, content)
    except archive.DamagedError as error:
        _check_other_schema(file)
        raise ArtifactError(f"{file} is no artifact, or damaged: {error}") from error
    except manifest.SchemaError as error:
        raise ArtifactError(f"{file} {error}") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{file} is damaged: {error}") from error
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read: {error.strerror or error}") from error


def _checked(file: Path, content: memoryview) -> Artifact:
    members, sums = archive.placed(content, NAMES)
    with ThreadPoolExecutor(1) as beside:  # checksums take a third of the time of the hashes
        summed = beside.submit(archive.check_sums, dict(members), sums)
        found = manifest.read(members.pop(manifest.NAME))
        # The file could be changed after the check: what is hashed is what will be written.
        members["lib.so"] = memoryview(bytes(members["lib.so"]))
        for name, data in members.items():
            said = found.members[name]
            if said.bytes != len(data) or said.sha256 != hashlib.sha256(data).hexdigest():
                raise ValueError(f"the hash of {name} does not match")
        summed.result()
    artifact = Artifact(file, found, members)
    artifact.weights()
    return artifact


def _check_digest(file: Path, content: memoryview, sha256: str) -> None:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ArtifactError(f"sha256 must be 64 hexadecimal digits, got {sha256!r:.80}")
    found = hashlib.sha256(content).hexdigest()
    if not hmac.compare_digest(found, sha256.lower()):
        raise ArtifactError(
            f"{file} is not the file that was meant: its sha256 is {found}, not {sha256.lower()}"
        )


def _check_other_schema(file: Path) -> None:
    """Raise :class:`ArtifactError` for an artifact of a burnish that wrote its zip otherwise."""
    try:
        with zipfile.ZipFile(file) as found:
            info = found.getinfo(manifest.NAME)
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > manifest.LIMIT:
                return
            content = jsons.parsed(found.read(info), "its manifest", manifest.LIMIT)
    except _ZIP_ERRORS:
        return
    try:
        manifest.check_schema(content.get("schema"))
    except manifest.SchemaError as error:
        raise ArtifactError(f"{file} {error}") from error


def check_machine(
    artifact: Artifact, missing: Callable[[Iterable[str]], list[str]] = isa.missing
) -> None:
    """Raise :class:`ArtifactError` where the code is not for this machine, and say for which.

    ``missing`` gives the instruction sets that this machine lacks.
    """
    file, found, here = artifact.path, artifact.manifest, isa.machine_name(platform.machine())
    if found.machine != here:
        raise ArtifactError(
            f"{file} is for {found.machine}, this machine is {here}: compile the model for it, "
            f"with the target {isa.portable_targets(here)}"
        )
    for name, version in PINS.items():
        if found.versions.get(name) != version:
            raise ArtifactError(
                f"{file} was built with {name} {found.versions.get(name, 'of no version')}, this "
                f"is {version}: compile the model again"
            )
    lacking = missing(found.isa)
    if lacking:
        raise ArtifactError(
            f"{file} needs a CPU with {', '.join(lacking)}; this one has not: compile the model "
            f"here, with the target 'cpu', or for most CPUs, with the target "
            f"{isa.portable_targets(here)}"
        )


def unpacked(artifact: Artifact) -> Path:
    """The library in the cache folder, under its own hash; written whole or not at all."""
    library, digest = artifact.members["lib.so"], artifact.manifest.members["lib.so"].sha256
    folder = cache_folder() / "artifacts" / digest
    path = folder / "lib.so"
    try:
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest:
            return path
        folder.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=folder, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(library)
            os.replace(partial, path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ArtifactError(
            f"cannot unpack the library into {folder}: {error.strerror or error}; "
            "set BURNISH_CACHE to a folder that can be written"
        ) from error
    return path
