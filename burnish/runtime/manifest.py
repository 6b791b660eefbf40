"""``manifest.json``: what the model is, what made it, and the hash of every other member.

Read as data of a stranger: every field has the type and the bounds given here, and no other field
is taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .jsons import has_keys, listed, parsed, text, whole
from .signature import Signature

SCHEMA = 6
NAME = "manifest.json"
MEMBERS = ("lib.so", "params.safetensors", "recipe.toml", "report.json", "ir.txt", "kernels.json")
"""The members beside the manifest, which is the first, in their order."""
LIMIT = 16 * 1024 * 1024
MOST_THREADS = 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEYS = (
    *("schema", "versions", "source", "passes", "calibration", "tuning", "machine", "target"),
    *("signature", "params", "libraries", "members"),
)
_VERSION = re.compile(r"\d{1,6}(\.\d{1,6}){0,3}")
_LIBRARY_KEYS = {
    "cublas": ("least",),
    "cudnn": ("least",),
    "tensorrt": ("version", "gpu", "capability"),
}


class SchemaError(ValueError):
    """An artifact of another burnish; the message says what to do."""


@dataclass(frozen=True)
class Member:
    """Size and sha256 of a member."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an artifact says of itself.

    ``source`` has the hash and the kind of the model it was made from; ``passes`` the name, phase
    and status of each pass that ran; ``calibration`` and ``tuning`` are the sha256 of the
    calibration data and of the tuning database's records that were used, or None; ``versions``
    those of the packages that made it; ``machine`` the architecture; ``target`` every field of
    the target, with its ``kind`` and ``isa``, the instruction sets that the code may use;
    ``params`` the weights in the order in which the library takes them; ``libraries`` what it
    needs of NVIDIA's that it calls: ``least``, the oldest version of cuBLASLt or cuDNN, and of
    TensorRT the ``version``, ``gpu`` and ``capability`` that its engines are for.
    """

    versions: Mapping[str, str]
    source: Mapping[str, str]
    passes: tuple[Mapping[str, str], ...]
    calibration: str | None
    tuning: str | None
    machine: str
    target: Mapping[str, Any]
    signature: Signature
    params: tuple[str, ...]
    libraries: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    members: Mapping[str, Member] = field(default_factory=dict)

    @property
    def isa(self) -> tuple[str, ...]:
        return tuple(self.target["isa"])

    def to_dict(self) -> dict[str, Any]:
        """Plain data; :func:`read` takes it back."""
        return {
            "schema": SCHEMA,
            "versions": dict(self.versions),
            "source": dict(self.source),
            "passes": [dict(item) for item in self.passes],
            "calibration": self.calibration,
            "tuning": self.tuning,
            "machine": self.machine,
            "target": dict(self.target),
            "signature": self.signature.to_dict(),
            "params": list(self.params),
            "libraries": {name: dict(need) for name, need in self.libraries.items()},
            "members": {name: asdict(member) for name, member in self.members.items()},
        }

    def to_json(self) -> bytes:
        return json.dumps(self.to_dict(), indent=1, sort_keys=True, allow_nan=False).encode()


def read(data: bytes | memoryview) -> Manifest:
    """The manifest; ``ValueError`` saying what is wrong with it, :class:`SchemaError` for one of
    another schema.
    """
    found = parsed(data, "its manifest", LIMIT)
    schema = found.get("schema")
    check_schema(schema)
    has_keys(found, "its manifest", _KEYS)
    whole(schema, "schema")
    passes = listed(found["passes"], "passes")
    target = dict(_target(found["target"]))
    members = has_keys(found["members"], "members", MEMBERS)
    return Manifest(
        versions=_texts(found["versions"], "versions"),
        source=_texts(has_keys(found["source"], "source", ("hash", "kind")), "source"),
        passes=tuple(
            _texts(has_keys(item, "a pass", ("name", "phase", "status")), "a pass")
            for item in passes
        ),
        calibration=_optional_hash(found["calibration"], "calibration"),
        tuning=_optional_hash(found["tuning"], "tuning"),
        machine=text(found["machine"], "machine"),
        target=target,
        signature=Signature.from_dict(found["signature"]),
        params=_names(found["params"]),
        libraries=_libraries(found["libraries"]),
        members={name: _member(name, members[name]) for name in MEMBERS},
    )


def check_schema(schema: Any) -> None:
    """Raise :class:`SchemaError` for another one than this burnish writes and reads."""
    if isinstance(schema, int) and schema != SCHEMA:
        age, remedy = ("an older", "compile the model again")
        if schema > SCHEMA:
            age, remedy = ("a newer", "install that burnish, or compile the model again")
        raise SchemaError(
            f"has schema {schema}, of {age} burnish; this one reads {SCHEMA}: {remedy}"
        )


def _member(name: str, data: Any) -> Member:
    has_keys(data, f"the entry of {name}", ("bytes", "sha256"))
    digest = _optional_hash(data["sha256"], f"the hash of {name}")
    if digest is None:
        raise ValueError(f"{name} has no hash")
    return Member(whole(data["bytes"], f"the size of {name}"), digest)


def _optional_hash(value: Any, what: str) -> str | None:
    if value is not None and not _SHA256.fullmatch(text(value, what)):
        raise ValueError(f"{what} must be a sha256, got {value!r:.80}")
    return None if value is None else str(value)


def _texts(value: Any, what: str) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be an object")
    return {name: text(item, f"{name} of {what}") for name, item in value.items()}


def _libraries(value: Any) -> Mapping[str, Mapping[str, str]]:
    """By library, what the model needs of it."""
    if not isinstance(value, dict) or not value.keys() <= _LIBRARY_KEYS.keys():
        raise ValueError(f"libraries must be an object of {', '.join(_LIBRARY_KEYS)}")
    found = {
        name: _texts(has_keys(need, f"library {name}", _LIBRARY_KEYS[name]), f"library {name}")
        for name, need in value.items()
    }
    for name, need in found.items():
        if "least" in need and not _VERSION.fullmatch(need["least"]):
            raise ValueError(f"the version of {name} must be numbers, got {need['least']!r:.80}")
    return found


def _target(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("target must be an object")
    for name in ("kind", "name", "threads", "isa"):
        if name not in value:
            raise ValueError(f"its target lacks {name!r}")
    text(value["kind"], "the target's kind")
    text(value["name"], "the target's name")
    whole(value["threads"], "the target's threads", 1, MOST_THREADS)
    for feature in listed(value["isa"], "the target's isa"):
        text(feature, "an instruction set")
    return value


def _names(value: Any) -> tuple[str, ...]:
    names = tuple(text(name, "a weight's name") for name in listed(value, "params"))
    if len(set(names)) != len(names):
        raise ValueError("a weight is there twice")
    return names
