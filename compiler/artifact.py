"""The saved form of a compiled model: one file, a zip of exactly these members, stored.

    manifest.json        schema, versions, target and instruction set, signature, source hash,
                         order of the weights, and the sha256 of every other member
    lib.so               the compiled library, the only code in it
    params.safetensors   weights as stored, by name
    recipe.toml          the resolved configuration
    report.json          what each pass did
    ir.txt               the kernels as text
    kernels.json         what each kernel does: operations, bytes, the rule that scheduled it

Loading checks the member list, the sizes and the hashes before the library is opened, refuses a
library for another machine, and writes only into the cache folder. It runs no code but the
library's: load only artifacts you trust. A model compiled for ``cpu`` with no number of threads
takes that of the machine it is loaded on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import mmap
import os
import platform
import secrets
import struct
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from burnish.compiler import environment, weights_file
from burnish.compiler.build import Owner, temporary_folder
from burnish.compiler.compiled import Compiled
from burnish.compiler.config import CompileConfig
from burnish.compiler.errors import ArtifactError
from burnish.compiler.profile.kernel import Kernel
from burnish.compiler.signature import Signature
from burnish.compiler.stages import Source
from burnish.compiler.tensors import aligned
from burnish.compiler.waterfall import Report
from burnish.targets.choose import Target
from burnish.targets.cuda.target import CudaTarget
from burnish.targets.isa import machine_name, portable_targets
from burnish.targets.opencl.target import OpenclTarget
from burnish.targets.target import CpuTarget, host, host_threads, missing_features

SCHEMA = 4
MANIFEST = "manifest.json"
MEMBERS = ("lib.so", "params.safetensors", "recipe.toml", "report.json", "ir.txt", "kernels.json")
_FIXED_DATE = (2020, 1, 1, 0, 0, 0)
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    OverflowError,
    struct.error,
)
"""What ``zipfile`` raises on damaged files, by trial: encryption flags, dates, counts, names."""
_MANIFEST_LIMIT = 64 * 1024 * 1024


def cache_folder() -> Path:
    """Where libraries are unpacked: ``$BURNISH_CACHE``, else the user's cache folder."""
    root = os.environ.get("BURNISH_CACHE") or Path.home() / ".cache" / "burnish"
    return Path(root)


def save(compiled: Compiled, path: Path) -> Path:
    """Write ``compiled`` to ``path``, whole or not at all."""
    target = compiled.target
    try:
        members = _members(compiled)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot write {path}: {error}", stage="save") from error
    manifest = {
        "schema": SCHEMA,
        "versions": environment.PINS,
        "machine": target.machine,
        "target": {**dataclasses.asdict(target), "kind": target.kind, "isa": target.isa()},
        "signature": compiled.signature.to_dict(),
        "source": {"hash": compiled.source.hash, "kind": compiled.source.kind},
        "params": list(compiled.params),
        "sha256": {name: _hash(parts) for name, parts in members.items()},
    }
    head = json.dumps(manifest, indent=1, sort_keys=True).encode()
    try:
        partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        try:
            with zipfile.ZipFile(partial, "x", zipfile.ZIP_STORED) as archive:
                archive.writestr(zipfile.ZipInfo(MANIFEST, _FIXED_DATE), head)
                for name, parts in members.items():
                    info = zipfile.ZipInfo(name, _FIXED_DATE)
                    info.file_size = sum(len(part) for part in parts)
                    with archive.open(info, "w") as out:
                        for part in parts:
                            out.write(part)
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ArtifactError(
            f"cannot write {path}: {error.strerror or error}", stage="save"
        ) from error
    return path


Parts = list[bytes | memoryview]


def _members(compiled: Compiled) -> dict[str, Parts]:
    arrays = {name: _array(tensor) for name, tensor in compiled.params.items()}
    return {
        "lib.so": [compiled.library.read_bytes()],
        "params.safetensors": list(weights_file.parts(arrays)),
        "recipe.toml": [compiled.recipe.encode()],
        "report.json": [json.dumps(compiled.report.to_dict(), sort_keys=True).encode()],
        "ir.txt": [compiled.show().encode()],
        "kernels.json": [json.dumps([k.to_dict() for k in compiled.kernels.values()]).encode()],
    }


def _hash(parts: Parts) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def load(path: str | os.PathLike[str]) -> Compiled:
    """The compiled model in ``path``.

    Raises :class:`ArtifactError` for a missing, damaged or foreign file.
    """
    return _load(Path(path), _unpacked)


def load_apart(path: Path) -> Compiled:
    """As :func:`load`, the library unpacked to a temporary folder that goes with the model."""
    owner = Owner()

    def unpacked(library: memoryview, _digest: str) -> Path:
        file = temporary_folder(owner) / "lib.so"
        file.write_bytes(library)
        return file

    compiled = _load(path, unpacked)
    compiled.keep_alive = owner
    return compiled


Unpack = Callable[[memoryview, str], Path]


def _load(file: Path, unpack: Unpack) -> Compiled:
    if not file.is_file():
        raise ArtifactError(f"no artifact at {file}")
    try:
        with file.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            content = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
            manifest, members = _read(file, archive, content)
    except _ZIP_ERRORS as error:
        raise ArtifactError(f"{file} is no artifact, or damaged: {error}") from error
    _check_machine(file, manifest)
    try:
        return _restore(file, manifest, members, unpack)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{file} is damaged: {error}") from error


def _read(
    file: Path, archive: zipfile.ZipFile, content: memoryview
) -> tuple[dict[str, Any], dict[str, memoryview]]:
    infos = {info.filename: info for info in archive.infolist()}
    expected = {MANIFEST, *MEMBERS}
    if len(infos) != len(archive.infolist()) or set(infos) != expected:
        raise ArtifactError(
            f"{file} is no artifact: it must hold exactly {', '.join(sorted(expected))}"
        )
    size = file.stat().st_size
    for info in infos.values():
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
            raise ArtifactError(f"{file} is damaged: member {info.filename} has a false size")
    if infos[MANIFEST].file_size > _MANIFEST_LIMIT:
        raise ArtifactError(f"{file} is damaged: its manifest is too large")
    try:
        manifest = json.loads(archive.read(MANIFEST))
        hashes = dict(manifest["sha256"])
        schema = manifest["schema"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{file} is damaged: its manifest cannot be read") from error
    if schema != SCHEMA:
        raise ArtifactError(
            f"{file} has schema {schema!r}, this burnish reads {SCHEMA}: compile the model again"
        )
    members = {}
    for name in MEMBERS:
        data = _stored(content, infos[name])
        if hashlib.sha256(data).hexdigest() != hashes.get(name):
            raise ArtifactError(f"{file} is damaged: the hash of {name} does not match")
        members[name] = data
    return manifest, members


def _stored(content: memoryview, info: zipfile.ZipInfo) -> memoryview:
    """The bytes of a member, after its local header (30 bytes, its name, its extra field)."""
    name, extra = struct.unpack_from("<HH", content, info.header_offset + 26)
    start = info.header_offset + 30 + name + extra
    return content[start : start + info.file_size]


def _check_machine(file: Path, manifest: Mapping[str, Any]) -> None:
    try:
        machine, versions = manifest["machine"], dict(manifest["versions"])
        isa = tuple(str(feature) for feature in manifest["target"]["isa"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{file} is damaged: its manifest lacks {error}") from error
    here = machine_name(platform.machine())
    if machine != here:
        raise ArtifactError(
            f"{file} is for {machine}, this machine is {here}: compile the model for it, "
            f"with the target {portable_targets(here)}"
        )
    if versions != environment.PINS:
        raise ArtifactError(f"{file} was built with {versions}, this is {environment.PINS}")
    missing = missing_features(isa)
    if missing:
        raise ArtifactError(
            f"{file} needs a CPU with {', '.join(missing)}; this one ({host().mcpu}) has not: "
            f"compile the model here, with the target 'cpu', or for most CPUs, with the target "
            f"{portable_targets(here)}"
        )


def _restore(
    file: Path, manifest: Mapping[str, Any], members: Mapping[str, memoryview], unpack: Unpack
) -> Compiled:
    target = _target(manifest["target"])
    arrays = weights_file.arrays_in(members["params.safetensors"])
    order = manifest["params"]
    if set(order) != set(arrays):
        raise ValueError("the weights are not those of the manifest")
    recipe = str(members["recipe.toml"], "utf-8")
    kernels = [Kernel.from_dict(item) for item in json.loads(bytes(members["kernels.json"]))]
    config = CompileConfig.from_toml_text(recipe)
    if target.name == "cpu" and config.threads is None:
        target = target.with_threads(host_threads())
    compiled = Compiled(
        unpack(members["lib.so"], manifest["sha256"]["lib.so"]),
        {name: aligned(arrays[name]) for name in order},
        Signature.from_dict(manifest["signature"]),
        target,
        config,
        Report.from_dict(json.loads(bytes(members["report.json"]))),
        Source(manifest["source"]["hash"], manifest["source"]["kind"]),
        str(members["ir.txt"], "utf-8"),
        recipe=recipe,
        kernels={kernel.name: kernel for kernel in kernels},
    )
    compiled.path = file
    return compiled


def _target(described: Mapping[str, Any]) -> Target:
    kind = {"cpu": CpuTarget, "cuda": CudaTarget, "opencl": OpenclTarget}[described["kind"]]
    given = {field.name: described[field.name] for field in dataclasses.fields(kind)}
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()})


def _array(tensor: tvm.runtime.Tensor) -> np.ndarray:
    """The values, without a copy where NumPy takes the dtype through DLPack."""
    if str(tensor.dtype) in ("bool", "bfloat16"):
        return tensor.numpy()
    return np.from_dlpack(tensor)


def _unpacked(library: memoryview, digest: str) -> Path:
    """The library in the cache folder, under its own hash; written whole or not at all."""
    folder = cache_folder() / "artifacts" / digest
    path = folder / "lib.so"
    try:
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest:
            return path
        folder.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=folder, suffix=".part")
        with os.fdopen(handle, "wb") as out:
            out.write(library)
        os.replace(partial, path)
    except OSError as error:
        raise ArtifactError(
            f"cannot unpack the library into {folder}: {error.strerror or error}; "
            "set BURNISH_CACHE to a folder that can be written"
        ) from error
    return path


__all__ = ["load", "save"]
