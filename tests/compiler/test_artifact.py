"""Artifacts: whole and readable elsewhere, or refused with a reason."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from artifact_support import changed_manifest, hashed, members, packed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_nets import Block, Mlp, made

import burnish
from burnish.compiler import artifact
from burnish.compiler.artifact import MANIFEST, MEMBERS
from burnish.compiler.errors import ArtifactError, BuildError, TargetError
from burnish.runtime import archive
from burnish.targets import target as targets
from burnish.targets.target import parse_target
from support import require_program

X = torch.randn(2, 20, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BURNISH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    compiled = burnish.compile(made(Mlp), (X,), quantize="int4", do_no_harm=False)
    return compiled.save(tmp_path_factory.mktemp("saved") / "m.burnish")


def refused(path: Path, message: str) -> None:
    with pytest.raises(ArtifactError, match=re.escape(message)) as caught:
        burnish.load(path)
    assert caught.value.stage == "load"
    assert str(path) in str(caught.value)


# -- what is kept --------------------------------------------------------------------------------


def test_a_loaded_model_is_the_saved_one(saved):
    model = made(Mlp)
    compiled = burnish.compile(model, (X,), quantize="int4", prune=0.2, do_no_harm=False)
    path = compiled.save(saved.parent / "whole.burnish")
    loaded = burnish.load(str(path))
    torch.testing.assert_close(loaded(X), compiled(X), rtol=0, atol=0)
    assert loaded.path == path == compiled.path
    assert loaded.signature == compiled.signature
    assert loaded.config == compiled.config
    assert loaded.recipe == compiled.recipe
    assert loaded.report == compiled.report.timeless()
    assert loaded.report.rows
    assert loaded.show() == compiled.show()
    assert (loaded.source.hash, loaded.source.kind) == (compiled.source.hash, "torch")
    assert list(loaded.params) == list(compiled.params)
    assert loaded.target == compiled.target


def test_saving_twice_writes_the_same_bytes(saved):
    again = burnish.load(saved).save(saved.parent / "again.burnish")
    assert again.read_bytes() == saved.read_bytes()


def test_the_file_holds_its_members_and_nothing_else(saved):
    assert set(members(saved)) == {MANIFEST, *MEMBERS}
    assert list(saved.parent.glob("*.part")) == []
    plain = saved.with_name("plain")
    plain.touch()
    assert saved.stat().st_mode == plain.stat().st_mode
    manifest = json.loads(members(saved)[MANIFEST])
    assert manifest["schema"] == artifact.SCHEMA
    assert manifest["target"]["isa"]
    assert "[quantize]" in members(saved)["recipe.toml"].decode()


FRESH = """
import sys, numpy as np, burnish
compiled = burnish.load(sys.argv[1])
inputs = [np.load(path) for path in sys.argv[3:]]
out = compiled(*inputs)
np.save(sys.argv[2], out["last"] if isinstance(out, dict) else out)
"""


def test_a_fresh_process_computes_the_same(tmp_path):
    model = made(Block)
    tokens = torch.arange(14).reshape(2, 7)
    mask = torch.ones(2, 7, dtype=torch.int64)
    sizes = {0: "batch", 1: "seq"}
    compiled = burnish.compile(model, (tokens, mask), dynamic={"tokens": sizes, "mask": sizes})
    path = compiled.save(tmp_path / "block.burnish")
    tokens, mask = tokens[:1, :5], mask[:1, :5]
    np.save(tmp_path / "tokens.npy", tokens.numpy())
    np.save(tmp_path / "mask.npy", mask.numpy())
    names = [str(tmp_path / name) for name in ("out.npy", "tokens.npy", "mask.npy")]
    subprocess.run([sys.executable, "-c", FRESH, str(path), *names], check=True, cwd=tmp_path)
    want = compiled(tokens.numpy(), mask.numpy())["last"]
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), want)


def test_names_that_this_process_has_not_registered_do_not_stop_loading(tmp_path):
    burnish.register_evaluator("for-this-test", lambda model: 1.0, replace=True)
    compiled = burnish.compile(made(Mlp), (X,), evaluate="for-this-test")
    path = compiled.save(tmp_path / "m.burnish")
    code = "import sys, burnish; print(burnish.load(sys.argv[1]).recipe)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert 'evaluate = "for-this-test"' in done.stdout


# -- what is refused -----------------------------------------------------------------------------


def test_a_missing_file(tmp_path):
    refused(tmp_path / "none.burnish", "no artifact at")


def test_a_folder(tmp_path):
    refused(tmp_path, "no artifact at")


@pytest.mark.parametrize("content", [b"", b"not a zip at all", b"PK\x03\x04" + b"\0" * 100])
def test_a_file_of_another_kind(tmp_path, content):
    path = tmp_path / "m.burnish"
    path.write_bytes(content)
    refused(path, "is no artifact, or damaged")


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_whose_hash_does_not_match(saved, tmp_path, name):
    content = members(saved)
    data = bytearray(content[name])
    data[len(data) // 2] ^= 1
    path = tmp_path / "m.burnish"
    path.write_bytes(packed({**content, name: bytes(data)}))
    refused(path, f"is damaged: the hash of {name}")


def test_a_library_that_is_none_is_refused_by_the_loader(saved, tmp_path):
    content = members(saved)
    path = tmp_path / "m.burnish"
    path.write_bytes(packed(hashed({**content, "lib.so": content["params.safetensors"]})))
    refused(path, "the library of")


def test_the_digest_that_the_caller_gives(saved):
    digest = hashlib.sha256(saved.read_bytes()).hexdigest()
    torch.testing.assert_close(
        burnish.load(saved, sha256=digest.upper())(X), burnish.load(saved)(X)
    )
    other = hashlib.sha256(b"another file").hexdigest()
    with pytest.raises(ArtifactError, match=f"its sha256 is {digest}, not {other}"):
        burnish.load(saved, sha256=other)
    with pytest.raises(ArtifactError, match="sha256 must be 64 hexadecimal digits, got 'abc'"):
        burnish.load(saved, sha256="abc")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(saved, tmp_path, share):
    data = saved.read_bytes()
    path = tmp_path / "m.burnish"
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, "is no artifact, or damaged")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 4}, "has schema 4, of an older burnish; this one reads 6: compile the model"),
        ({"schema": 99}, "has schema 99, of a newer burnish; this one reads 6: install that"),
        ({"machine": "riscv64"}, "is for riscv64, this machine is"),
        ({"versions": {"apache-tvm": "0.1"}}, "was built with apache-tvm 0.1, this is 0.27"),
        ({"params": ["other"]}, "is damaged: the weights are not those of the manifest"),
    ],
)
def test_a_manifest_that_does_not_fit(saved, tmp_path, changes, message):
    refused(changed_manifest(saved, tmp_path / "m.burnish", **changes), message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"isa": ["avx-9000", "sha"]}, "needs a CPU with avx-9000; this one has not"),
        ({"kind": "npu"}, "it is for the unknown kind of target 'npu'"),
        ({"lanes": "16"}, "lanes of its target cannot be '16'"),
        ({"lanes": True}, "lanes of its target cannot be True"),
        ({"mattr": [1]}, "mattr of its target cannot be (1,)"),
        ({"threads": 0}, "the target's threads must be a whole number from 1 to 1024, got 0"),
        ({"threads": 10**30}, "the target's threads must be a whole number from 1 to 1024"),
    ],
)
def test_a_target_that_does_not_fit(saved, tmp_path, changes, message):
    target = json.loads(members(saved)[MANIFEST])["target"]
    path = changed_manifest(saved, tmp_path / "m.burnish", target={**target, **changes})
    refused(path, message)


def test_a_file_of_an_older_burnish_says_what_to_do(saved, tmp_path):
    """Schema 4 was a zip of Python's own, with the hashes elsewhere."""
    path = tmp_path / "m.burnish"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(MANIFEST, json.dumps({"schema": 4, "sha256": {}}))
        file.writestr("lib.so", b"")
    refused(path, "has schema 4, of an older burnish; this one reads 6: compile the model again")


def test_an_artifact_of_another_machine(tmp_path, monkeypatch):
    """Built for ARM here; and built here, on a machine that has less."""
    require_program("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu")
    arm = burnish.compile(made(Mlp), (X,), target="llvm -mtriple=aarch64-linux-gnu")
    why = "it is for aarch64, and this machine is x86_64; save it, and load it there"
    with pytest.raises(TargetError, match=why) as caught:
        arm(X)
    assert caught.value.stage == "run"
    refused(arm.save(tmp_path / "arm.burnish"), "is for aarch64, this machine is x86_64: compile")

    path = burnish.compile(made(Mlp), (X,), target="llvm -mcpu=x86-64-v3").save(tmp_path / "m")
    torch.testing.assert_close(burnish.load(path)(X), made(Mlp)(X))
    monkeypatch.setattr(targets, "host", lambda: parse_target("llvm -mcpu=x86-64-v2"))
    monkeypatch.setattr(artifact, "_restore", None)  # not reached
    refused(
        path, "needs a CPU with avx, avx2, bmi, bmi2, f16c, fma, lzcnt, movbe; this one has not"
    )


def test_what_must_run_here_says_so_for_another_machine():
    arm = "llvm -mtriple=aarch64-linux-gnu"
    with pytest.raises(TargetError, match=r"do_no_harm runs the model .* say do_no_harm=False"):
        burnish.compile(made(Mlp), (X,), target=arm, quantize="int8")
    with pytest.raises(TargetError, match=r"tuning runs kernels .* tune on such a machine"):
        burnish.compile(made(Mlp), (X,), target=arm, tune=2)


@pytest.mark.parametrize(
    ("triple", "message"),
    [
        ("aarch64-linux-gnu", "aarch64-linux-gnu-g++ is not on PATH (Debian: apt install g++-aarc"),
        ("aarch64-linux-musl", "aarch64-linux-musl-g++ or aarch64-linux-gnu-g++ is not on PATH"),
        ("arm64-apple-macos", "needs a linker for it: arm64-apple-macos-g++ is not on PATH"),
    ],
)
def test_a_missing_linker_is_named(triple, message, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=re.escape(message)) as caught:
        burnish.compile(made(Mlp), (X,), target=f"llvm -mtriple={triple}")
    assert caught.value.stage == "build"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), bit=st.integers(0, 7))
def test_one_flipped_bit_is_refused_or_harmless(saved, tmp_path, place, bit):
    """Anything but an :class:`ArtifactError` would be a crash; loading means equal results."""
    data = bytearray(saved.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1 << bit
    path = tmp_path / "m.burnish"
    path.write_bytes(bytes(data))
    try:
        loaded = burnish.load(path)
    except ArtifactError:
        return
    torch.testing.assert_close(loaded(X), burnish.load(saved)(X), rtol=0, atol=0)


# -- where it is written -------------------------------------------------------------------------


def test_a_path_that_cannot_be_written_leaves_nothing(saved, tmp_path):
    compiled = burnish.load(saved)
    with pytest.raises(ArtifactError, match="cannot write") as caught:
        compiled.save(tmp_path / "no" / "such" / "folder" / "m.burnish")
    assert caught.value.stage == "save"
    folder = tmp_path / "m.burnish"
    folder.mkdir()
    with pytest.raises(ArtifactError, match="cannot write"):
        compiled.save(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["m.burnish"]


def test_an_interrupted_save_leaves_the_old_file(saved, tmp_path, monkeypatch):
    compiled = burnish.load(saved)
    path = compiled.save(tmp_path / "m.burnish")
    before = path.read_bytes()

    def interrupted(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(archive, "written", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compiled.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m.burnish"]


def test_a_spoilt_cache_is_written_anew(saved):
    libraries = list((artifact.cache_folder() / "artifacts").glob("*/lib.so"))
    burnish.load(saved)
    for library in libraries:
        library.unlink()
        library.write_bytes(b"spoilt")
    torch.testing.assert_close(burnish.load(saved)(X), burnish.load(saved)(X))


def test_a_cache_that_cannot_be_written_is_said(saved, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / "file"))
    with pytest.raises(ArtifactError, match="set BURNISH_CACHE to a folder that can be written"):
        burnish.load(saved)


def test_the_cache_is_the_users_own_unless_said(monkeypatch, tmp_path):
    monkeypatch.delenv("BURNISH_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert artifact.cache_folder() == tmp_path / ".cache" / "burnish"
