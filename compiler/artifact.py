"""The saved form of a compiled model: one file, a zip of exactly these members, stored.

    manifest.json        schema, versions, source, passes, calibration, tuning, target and
                         instruction sets, signature, order of the weights, and size and sha256
                         of every other member (:mod:`burnish.runtime.manifest`)
    lib.so               the compiled library, the only code in it
    params.safetensors   weights as stored, by name
    recipe.toml          the resolved configuration
    report.json          what each pass did
    ir.txt               the kernels as text
    kernels.json         what each kernel does: operations, bytes, the rule that scheduled it

The same model, resolved recipe and tuning records give the same bytes: what it took to compile,
and what the compile cache did, is left out of the report.

Loading checks everything before the library is opened (:mod:`burnish.runtime.reading`), refuses
a library for another machine, and writes only into the cache folder. It runs no code but the
library's: load only artifacts you trust. A model compiled for ``cpu`` with no number of threads
takes that of the machine it is loaded on.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tvm

import burnish
from burnish.compiler import weights_file
from burnish.compiler.build import Owner, temporary_folder
from burnish.compiler.compiled import Compiled
from burnish.compiler.config import CompileConfig
from burnish.compiler.errors import ArtifactError, ConfigError, wrap_errors
from burnish.compiler.external.engines import engine_head, is_engine
from burnish.compiler.profile.kernel import Kernel
from burnish.compiler.remote.calls import not_allowed
from burnish.compiler.stages import Source
from burnish.compiler.tensors import aligned
from burnish.compiler.waterfall import Report
from burnish.runtime import archive, jsons, libraries
from burnish.runtime.cuda import device_capability
from burnish.runtime.manifest import MEMBERS, NAME, SCHEMA, Manifest, Member
from burnish.runtime.pins import PINS
from burnish.runtime.reading import (
    Artifact,
    cache_folder,
    check_machine,
    read_artifact,
    unpacked,
)
from burnish.targets.choose import Target, described_target
from burnish.targets.described import described
from burnish.targets.hetero import HeteroTarget
from burnish.targets.remote import allowed
from burnish.targets.remote.address import Address, parse_address
from burnish.targets.target import host_threads, missing_features

MANIFEST = NAME
_JSON_LIMIT = 256 * 1024 * 1024
"""Bytes of a report, or of the kernels' records."""


def save(compiled: Compiled, path: Path, *, times: bool = False) -> Path:
    """Write ``compiled`` to ``path``, whole or not at all.

    ``times`` keeps in the report how long compiling took.
    """
    try:
        members = _members(compiled, times=times)
        head = _manifest(compiled, members).to_json()
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot write {path}: {error}", stage="save") from error
    try:
        partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        try:
            with partial.open("xb") as out:
                for part in archive.written([(NAME, [head]), *members.items()]):
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


def _manifest(compiled: Compiled, members: Mapping[str, Parts]) -> Manifest:
    target, source = compiled.target, compiled.source
    return Manifest(
        versions={"burnish": burnish.__version__, **PINS},
        source={"hash": source.hash, "kind": source.kind},
        passes=tuple(
            {"name": row.name, "phase": row.phase, "status": row.status}
            for row in compiled.report.rows
        ),
        calibration=source.calibration,
        tuning=source.tuning,
        machine=target.machine,
        target=_target(compiled),
        signature=compiled.signature,
        params=tuple(compiled.params),
        libraries=_libraries(compiled),
        members={
            name: Member(sum(len(part) for part in parts), _hash(parts))
            for name, parts in members.items()
        },
    )


def _target(compiled: Compiled) -> dict[str, Any]:
    target = compiled.target
    said = {**described(target), "isa": list(target.isa())}
    if isinstance(target, HeteroTarget):
        said["memories"] = list(compiled.memories)
        said["one_set"] = compiled.one_set
    return said


def _libraries(compiled: Compiled) -> dict[str, dict[str, str]]:
    """What the model needs of each library of NVIDIA's that its configuration names."""
    named = {name.partition(":")[0] for name in compiled.config.libraries}
    if isinstance(compiled.target, HeteroTarget):
        named |= {one.backend for one in compiled.target.places}
    found = {name: {"least": least} for name, least in libraries.LEAST.items() if name in named}
    engines = [tensor for name, tensor in compiled.params.items() if is_engine(name)]
    if engines:
        found[libraries.TENSORRT] = engine_head(_array(engines[0]).tobytes())
    return found


def _members(compiled: Compiled, *, times: bool) -> dict[str, Parts]:
    arrays = {name: _array(tensor) for name, tensor in compiled.params.items()}
    report = compiled.report if times else compiled.report.timeless()
    kernels = [kernel.to_dict() for kernel in compiled.kernels.values()]
    found: dict[str, Parts] = {
        "lib.so": [compiled.library.read_bytes()],
        "params.safetensors": list(weights_file.parts(arrays)),
        "recipe.toml": [compiled.recipe.encode()],
        "report.json": [json.dumps(report.to_dict(), sort_keys=True).encode()],
        "ir.txt": [compiled.show().encode()],
        "kernels.json": [json.dumps({"kernels": kernels}).encode()],
    }
    return {name: found[name] for name in MEMBERS}


def _hash(parts: Parts) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def load(
    path: str | os.PathLike[str], *, sha256: str | None = None, remotes: Sequence[str] = ()
) -> Compiled:
    """The compiled model in ``path``.

    ``sha256`` is what the file's own must be, in hexadecimal, as its maker gave it. ``remotes``
    are servers (``HOST:PORT``) that models of this process may use from now on; one that runs on
    another is refused. Raises
    :class:`ArtifactError` for a missing, damaged or foreign file. It runs the library that is
    inside: load only what you trust.
    """
    for one in remotes:
        allowed.allow(_address(one))
    return _load(read_artifact(path, sha256=sha256), unpacked)


def _address(text: str) -> Address:
    with wrap_errors(ConfigError):
        return parse_address(text)


def load_apart(path: Path) -> Compiled:
    """As :func:`load`, the library unpacked to a temporary folder that goes with the model."""
    owner = Owner()

    def unpacked_apart(artifact: Artifact) -> Path:
        file = temporary_folder(owner) / "lib.so"
        file.write_bytes(artifact.members["lib.so"])
        return file

    compiled = _load(read_artifact(path), unpacked_apart)
    compiled.keep_alive = owner
    return compiled


def _load(artifact: Artifact, unpack: Callable[[Artifact], Path]) -> Compiled:
    check_machine(artifact, lambda needed: missing_features(tuple(needed)))
    try:
        if not described_target(artifact.manifest.target).why_not_here():
            libraries.check_libraries(artifact.path, artifact.manifest.libraries, device_capability)
        return _restore(artifact, unpack)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{artifact.path} is damaged: {error}") from error


def _restore(artifact: Artifact, unpack: Callable[[Artifact], Path]) -> Compiled:
    manifest, members = artifact.manifest, artifact.members
    target = described_target(manifest.target)
    report = Report.from_dict(_json(members, "report.json"))
    kernels = [Kernel.from_dict(item) for item in _json(members, "kernels.json")["kernels"]]
    config = replace(CompileConfig.from_toml_text(artifact.recipe), resolved=None)
    memories = _memories(target, artifact) if isinstance(target, HeteroTarget) else ()
    _check_remotes(target, artifact)
    named = target.devices if isinstance(target, HeteroTarget) else (target.name,)
    if "cpu" in named and config.threads is None:
        target = target.with_threads(host_threads())
    source = Source(
        manifest.source["hash"],
        manifest.source["kind"],
        calibration=manifest.calibration,
        tuning=manifest.tuning,
    )
    text = str(members["ir.txt"], "utf-8")
    weights = {
        name: aligned(weights_file.array_of(weight)) for name, weight in artifact.weights().items()
    }
    compiled = _opened(
        artifact,
        unpack(artifact),
        weights,
        manifest.signature,
        target,
        config,
        report,
        source,
        text,
        recipe=artifact.recipe,
        kernels={kernel.name: kernel for kernel in kernels},
        memories=memories,
        one_set=_one_set(target, artifact) if isinstance(target, HeteroTarget) else "",
    )
    compiled.path = artifact.path
    return compiled


def _memories(target: HeteroTarget, artifact: Artifact) -> tuple[int, ...]:
    """The number of the memory of each weight; ArtifactError where a device is not here."""
    why = target.why_not_here()
    if why:
        raise ArtifactError(
            f"{artifact.path} is for the devices {', '.join(target.devices)}, and not all of them "
            f"are here: {why}. Compile the model for those that are"
        )
    manifest = artifact.manifest
    found = manifest.target["memories"]
    count = len(target.memories)
    sound = isinstance(found, list) and len(found) == len(manifest.params)
    if not sound or not all(type(one) is int and 0 <= one < count for one in found):
        raise ValueError("its weights are not each in a memory of its target")
    return tuple(found)


def _one_set(target: HeteroTarget, artifact: Artifact) -> str:
    """The set of cores that has the whole model, if one has."""
    name = artifact.manifest.target.get("one_set", "")
    if name and not (isinstance(name, str) and name in target.devices and target.concurrent):
        raise ValueError(f"the set {name!r:.80} of its target is none of its devices")
    return str(name)


def _check_remotes(target: Target, artifact: Artifact) -> None:
    """ArtifactError where the model runs on servers that nobody in this process has named."""
    for place in target.remote if isinstance(target, HeteroTarget) else ():
        with wrap_errors(ConfigError):  # of the environment variable
            known = allowed.is_allowed(place.address)
        if not known:
            raise ArtifactError(not_allowed(f"a part of {artifact.path}", place.name))


def _opened(artifact: Artifact, *arguments: Any, **named: Any) -> Compiled:
    try:
        return Compiled(*arguments, **named)
    except (RuntimeError, AttributeError, OSError) as error:
        raise ArtifactError(f"the library of {artifact.path} cannot be opened: {error}") from error


def _json(members: Mapping[str, memoryview], name: str) -> dict[str, Any]:
    return jsons.parsed(members[name], name, _JSON_LIMIT, nan=True)


def _array(tensor: tvm.runtime.Tensor) -> np.ndarray:
    """The values, without a copy where NumPy takes the dtype through DLPack."""
    if str(tensor.dtype) in ("bool", "bfloat16"):
        return tensor.numpy()
    return np.from_dlpack(tensor)


__all__ = [
    "MANIFEST",
    "MEMBERS",
    "SCHEMA",
    "cache_folder",
    "load",
    "load_apart",
    "save",
]
