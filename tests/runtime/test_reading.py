"""What a manifest and a weights file may say, and what is refused before any code is opened."""

from __future__ import annotations

import json
import struct

import pytest
from artifact_support import NAME, NAMES, changed_manifest, hashed, packed

from burnish.runtime import isa, manifest, reading
from burnish.runtime.errors import ArtifactError
from burnish.runtime.jsons import DEPTH
from burnish.runtime.manifest import Manifest
from burnish.runtime.pins import PINS
from burnish.runtime.reading import check_machine, read_artifact
from burnish.runtime.signature import Signature, TensorSpec
from burnish.runtime.weights import weights_in

SIGNATURE = Signature(
    (TensorSpec("x", ("n", 4), "float32"),),
    (TensorSpec("y", ("2*n",), "float32"),),
    (("x", 0),),
    {"tuple": [0]},
    {"n": (1, None)},
)
HEADER = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def weights(header: object, body: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.fixture
def saved(tmp_path):
    """A file that is whole, of a library that is none."""
    described = Manifest(
        versions={"burnish": "0", **PINS},
        source={"hash": "abc", "kind": "torch"},
        passes=({"name": "FoldBatchNorm", "phase": "clean", "status": "applied"},),
        calibration=None,
        tuning=None,
        machine=isa.machine_name(isa.platform.machine()),
        target={"kind": "cpu", "name": "cpu", "threads": 1, "isa": []},
        signature=SIGNATURE,
        params=("w",),
    )
    content = dict.fromkeys(NAMES, b"{}") | {"params.safetensors": weights(HEADER)}
    path = tmp_path / "m.burnish"
    path.write_bytes(packed(hashed(content, described.to_dict())))
    return path


def refused(path, message):
    with pytest.raises(ArtifactError, match=message) as caught:
        read_artifact(path)
    assert str(path) in caught.value.message


def test_a_whole_file(saved):
    found = read_artifact(saved)
    assert found.manifest.signature == SIGNATURE
    assert found.weights()["w"].shape == (2,)
    assert found.recipe == "{}"
    check_machine(found)
    with pytest.raises(ArtifactError, match="needs a CPU with sse9; this one has not"):
        check_machine(found, lambda needed: ["sse9"])


def with_keys(**changes):
    def change(data):
        return {**data, **changes}

    return change


def in_signature(**changes):
    return lambda data: {**data, "signature": {**data["signature"], **changes}}


X = {"name": "x", "shape": ["n", 4], "dtype": "float32"}
DEEP: object = 0
for _ in range(70):
    DEEP = {"tuple": [DEEP]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_keys(more=1), "its manifest has the unknown key 'more'"),
        (lambda data: {k: v for k, v in data.items() if k != "target"}, "lacks 'target'"),
        (with_keys(schema="5"), "schema must be a whole number"),
        (with_keys(schema=True), "has schema True|schema must be a whole number"),
        (with_keys(versions=[1]), "versions must be an object"),
        (with_keys(versions={"apache-tvm": 27}), "apache-tvm of versions must be a text, got 27"),
        (with_keys(source={"hash": "a"}), "source lacks 'kind'"),
        (with_keys(passes=[{"name": "a"}]), "a pass lacks 'phase'"),
        (with_keys(passes=3), "passes must be a list"),
        (with_keys(calibration="abc"), "calibration must be a sha256, got 'abc'"),
        (with_keys(tuning=7), "tuning must be a text, got 7"),
        (with_keys(machine=None), "machine must be a text"),
        (with_keys(target=[]), "target must be an object"),
        (with_keys(target={"kind": "cpu"}), "its target lacks 'name'"),
        (with_keys(params=["w", "w"]), "a weight is there twice"),
        (with_keys(params=[0]), "a weight's name must be a text"),
        (with_keys(params=["v"]), "the weights are not those of the manifest"),
        (with_keys(members={}), "members lacks 'lib.so'"),
        (with_keys(signature=None), "the signature must be an object"),
        (in_signature(inputs=[{**X, "shape": [-1]}]), "a size must be a whole number"),
        (in_signature(inputs=[{**X, "shape": [1.5]}]), "a size must be a whole number"),
        (in_signature(inputs=[{**X, "shape": [10**30]}]), "a size must be a whole number"),
        (in_signature(inputs=[{**X, "shape": ["n**n"]}]), "a size expression has only"),
        (in_signature(inputs=[{**X, "shape": ["exec('')"]}]), "a size expression has only"),
        (in_signature(inputs=[{**X, "shape": ["n +"]}]), "is no expression"),
        (in_signature(inputs=[{**X, "shape": ["(" * 3000 + ")" * 1000]}]), "is no expression"),
        (in_signature(inputs=[{**X, "shape": ["-" * 4000 + "n"]}]), "is no expression|damaged"),
        (in_signature(inputs=[{**X, "shape": ["n" * 5000]}]), "an expression of 5000 characters"),
        (in_signature(inputs=[{**X, "dtype": "object"}]), "unknown dtype 'object'"),
        (in_signature(arguments=[["x", 1]]), "a nesting names tensor 1 of 1"),
        (in_signature(arguments=[["x", True]]), "True is no nesting"),
        (in_signature(arguments=[["x"]]), "an argument must be a name and its nesting"),
        (in_signature(output_tree={"call": []}), "is no nesting"),
        (in_signature(output_tree={"dict": [[[], 0]]}), "is no key and nesting"),
        (in_signature(output_tree={"const": {}}), "is no constant"),
        (in_signature(symbols={"n": [1]}), "the symbol 'n' must have two limits"),
        (in_signature(symbols={"n m": [1, 2]}), "the symbol 'n m' must have two limits"),
        (in_signature(output_tree=DEEP), "its manifest is nested more than"),
    ],
)
def test_a_manifest_of_other_types(saved, tmp_path, change, message):
    data = read_artifact(saved).manifest.to_dict()
    content = dict.fromkeys(NAMES, b"{}") | {"params.safetensors": weights(HEADER)}
    path = tmp_path / "changed.burnish"
    path.write_bytes(packed({**content, NAME: json.dumps(change(data)).encode()}))
    refused(path, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "its manifest cannot be read"),
        (b"[]", "it is no object"),
        (b"null", "it is no object"),
        (b"\xff", "its manifest cannot be read"),
        (b"[" * 100_000, "its manifest cannot be read"),
        (b'{"a":' * 900 + b"0" + b"}" * 900, "nested more than|cannot be read"),
        (b'{"schema": 5, "schema": 4}', "a key is there twice"),
        (b'{"schema": NaN}', "NaN is no number of JSON"),
        (b'{"schema": ' + b"9" * 5000 + b"}", "its manifest cannot be read"),
        (b'{"schema": 5}' + b" " * manifest.LIMIT, "its manifest is too large"),
    ],
)
def test_a_manifest_that_is_none(tmp_path, text, message):
    path = tmp_path / "m.burnish"
    path.write_bytes(packed({**dict.fromkeys(NAMES, b""), NAME: text}))
    refused(path, message)


def test_a_member_of_another_size_or_hash(saved, tmp_path):
    content = hashed(
        {**dict.fromkeys(NAMES, b"{}"), "params.safetensors": weights(HEADER)},
        read_artifact(saved).manifest.to_dict(),
    )
    for name in NAMES[1:]:
        path = tmp_path / "changed.burnish"
        path.write_bytes(packed({**content, name: content[name] + b" "}))
        refused(path, f"the hash of {name} does not match")


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        (HEADER, bytes(9), "the weights do not fill their file"),
        (HEADER, bytes(7), "lies outside the file"),
        ({"w": {**HEADER["w"], "shape": [2**62, 4]}}, bytes(8), "lies outside the file"),
        ({"w": {**HEADER["w"], "shape": [-2]}}, bytes(8), "must be a whole number"),
        ({"w": {**HEADER["w"], "dtype": "F33"}}, bytes(8), "has a false place or dtype"),
        ({"w": {**HEADER["w"], "dtype": []}}, bytes(8), "must be a text"),
        ({"w": {**HEADER["w"], "data_offsets": [-8, 0]}}, bytes(8), "must be a whole number"),
        ({"w": {**HEADER["w"], "data_offsets": [8, 16]}}, bytes(16), "a gap, or they overlap"),
        ({"w": HEADER["w"], "v": HEADER["w"]}, bytes(8), "a gap, or they overlap"),
        ({"w": 3}, bytes(8), "must be an object"),
        (b"[" * 10_000, bytes(8), "the header of the weights cannot be read"),
    ],
)
def test_weights_that_lie(header, body, message):
    with pytest.raises(ValueError, match=message):
        weights_in(memoryview(weights(header, body)))


def test_weights_without_a_header():
    for data in (b"", b"\xff" * 8, b"\0" * 7):
        with pytest.raises(ValueError, match="header"):
            weights_in(memoryview(data))


def test_the_hash_of_the_whole_file_comes_first(saved, tmp_path):
    """A file that is not the one meant is not looked into."""
    path = changed_manifest(saved, tmp_path / "m.burnish", schema=99)
    with pytest.raises(ArtifactError, match="is not the file that was meant: its sha256 is"):
        read_artifact(path, sha256="0" * 64)


def test_this_machine_has_its_own_instruction_sets(monkeypatch):
    assert isa.missing(()) == []
    assert isa.missing(("avx-9000",)) == ["avx-9000"]
    monkeypatch.setattr(isa, "host_flags", lambda: frozenset(("sse", "pni", "asimd")))
    monkeypatch.setattr(isa.platform, "machine", lambda: "x86_64")
    assert isa.missing(("sse", "sse3", "avx2")) == ["avx2"]
    monkeypatch.setattr(isa.platform, "machine", lambda: "aarch64")
    assert isa.missing(("neon", "altnzcv")) == ["altnzcv"]


def test_the_cache_folder_follows_its_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path))
    assert reading.cache_folder() == tmp_path


def test_depth_leaves_room_for_nested_outputs():
    assert DEPTH >= 2 * 50
