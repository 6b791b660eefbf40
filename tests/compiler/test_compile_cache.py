"""The compile cache: the same model from it, and nothing else."""

from __future__ import annotations

import copy
import dataclasses
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import tvm
from onnx import TensorProto, helper, numpy_helper
from small_nets import Block, Mlp, made
from torch import nn

import burnish
from burnish.compiler import cache_key as key_module
from burnish.compiler import compile_cache, driver
from burnish.compiler.cache_key import NotCachedError, cache_key
from burnish.compiler.config import CompileConfig, as_quantize
from burnish.compiler.errors import ConfigError
from burnish.compiler.importers import LoadedModel, load_model
from burnish.compiler.resolved import Resolved
from burnish.targets.target import CpuTarget, host, parse_target

X = torch.randn(2, 20, generator=torch.Generator().manual_seed(1))
TAKEN, KEPT = "taken from the cache; compiling took", "kept in the cache"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for each test, and no instruments, which switch it off."""
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(compile_cache.LIMIT, raising=False)
    with tvm.transform.PassContext():
        yield


@pytest.fixture
def no_passes(monkeypatch):
    """A context in which nothing can be optimized: models come from the cache or not at all."""

    def refuse(*_args: object, **_fields: object) -> None:
        raise AssertionError("the model was compiled")

    return lambda: monkeypatch.setattr(driver, "optimize", refuse)


def bits(outputs) -> list[bytes]:
    leaves, _ = torch.utils._pytree.tree_flatten(outputs)
    return [leaf.numpy().tobytes() for leaf in leaves]


# -- what comes out ------------------------------------------------------------------------------


def test_the_second_compile_is_the_first(no_passes):
    model = made(Mlp)
    first = burnish.compile(model, (X,), threads=1)
    assert first.report.cache == KEPT
    assert first.path is None
    no_passes()
    other = torch.randn(2, 20)
    second = burnish.compile(model, (other,), threads=1)
    assert second.report.cache.startswith(TAKEN)
    assert set(second.report.seconds) == {"import", "cache"}
    assert second.report.rows == first.report.rows
    assert bits(second(X)) == bits(first(X))
    assert second.target == first.target
    assert second.config == first.config
    assert second.signature == first.signature
    assert second.show() == first.show()
    assert second.source.hash == first.source.hash
    assert second.source.example_inputs[0] is other
    assert second.path is None


def test_open_sizes_and_nested_outputs_come_back(no_passes):
    model = made(Block)
    tokens, mask = torch.arange(14).reshape(2, 7), torch.ones(2, 7, dtype=torch.int64)
    sizes = {0: "batch", 1: torch.export.Dim("seq", min=2, max=64)}
    dynamic = {"tokens": sizes, "mask": sizes}
    first = burnish.compile(model, (tokens, mask), dynamic=dynamic)
    no_passes()
    second = burnish.compile(model, (tokens, mask), dynamic=dynamic)
    assert second.signature == first.signature
    assert bits(second(tokens[:1, :5], mask[:1, :5])) == bits(first(tokens[:1, :5], mask[:1, :5]))


def test_cache_false_neither_takes_nor_keeps():
    burnish.compile(made(Mlp), (X,), cache=False)
    assert compile_cache.entries() == []
    burnish.compile(made(Mlp), (X,))
    assert len(compile_cache.entries()) == 1
    assert burnish.compile(made(Mlp), (X,), cache=False).report.cache == ""


def test_a_cached_model_outlives_its_entry_and_can_be_saved(tmp_path):
    first = burnish.compile(made(Mlp), (X,))
    taken = burnish.compile(made(Mlp), (X,))
    assert len(compile_cache.clear()) == 1
    assert compile_cache.entries() == []
    path = taken.save(tmp_path / "m.burnish")
    assert bits(burnish.load(path)(X)) == bits(first(X))


PROCESS = """
import sys, warnings, numpy as np, torch, burnish
from burnish.compiler import driver
warnings.simplefilter("error", UserWarning)
folder, taken = sys.argv[1], sys.argv[2] == "taken"
if taken:
    driver.optimize = None
x = torch.from_numpy(np.load(folder + "/x.npy"))
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(20, 32), torch.nn.Tanh()).eval()
models = [folder + "/net.onnx", folder + "/net.pt2", net]
for number, model in enumerate(models):
    inputs = (x.numpy(),) if number == 0 else (x,)
    compiled = burnish.compile(model, inputs, threads=1)
    assert compiled.report.cache.startswith("taken" if taken else ("kept", "taken"))
    out = compiled(*inputs)
    np.save(sys.argv[3] + f"{number}.npy", out[0] if number == 0 else out)
"""


def save_onnx(path: Path) -> None:
    """``tanh(x @ w)``, the weight in a file beside it."""
    weight = np.random.default_rng(0).standard_normal((20, 7)).astype("float32")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in (("x", [2, 20]), ("y", [2, 7]))
    ]
    weights = [numpy_helper.from_array(weight, "w")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)


def test_processes_at_once_and_one_after_them_compute_the_same_bits(tmp_path):
    model = made(Mlp)
    np.save(tmp_path / "x.npy", X.numpy())
    save_onnx(tmp_path / "net.onnx")
    torch.export.save(torch.export.export(model, (X,)), tmp_path / "net.pt2")

    def start(state: str, name: str) -> subprocess.Popen[bytes]:
        arguments = [str(tmp_path), state, str(tmp_path / name)]
        return subprocess.Popen([sys.executable, "-c", PROCESS, *arguments])

    assert [one.wait() for one in [start("fresh", "a"), start("fresh", "b")]] == [0, 0]
    assert start("taken", "c").wait() == 0
    for number in range(3):
        first, *others = (np.load(tmp_path / f"{name}{number}.npy") for name in "abc")
        assert all(other.tobytes() == first.tobytes() for other in others)
    assert not list(compile_cache.folder().glob("*.part"))


# -- the key -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    return torch.export.export(made(Mlp), (X,))


def key(program, inputs=(X,), dynamic=None, target=None, config=None) -> str:
    loaded = load_model(program) if dynamic is None else LoadedModel(program, "torch", program)
    return cache_key(loaded, inputs, dynamic, target or host(), config or CompileConfig())


def test_the_key_follows_the_model(program):
    keys = {key(program)}
    assert key(torch.export.export(made(Mlp), (X,))) in keys
    model = made(Mlp)
    with torch.no_grad():
        model[2].bias.view(torch.int32)[-1] ^= 1  # one bit of one weight
    keys.add(key(torch.export.export(model, (X,))))
    keys.add(key(torch.export.export(nn.Sequential(*made(Mlp), nn.ReLU()), (X,))))
    renamed = nn.Sequential(made(Mlp)).eval()
    keys.add(key(torch.export.export(renamed, (X,))))
    rows = {"input": {0: torch.export.Dim("rows", max=8)}}
    keys.add(key(torch.export.export(made(Mlp), (X,), dynamic_shapes=rows)))
    rows = {"input": {0: torch.export.Dim("rows", max=9)}}
    keys.add(key(torch.export.export(made(Mlp), (X,), dynamic_shapes=rows)))
    assert len(keys) == 6


def test_the_key_follows_graphs_within_the_graph():
    class Branch(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, x):
            return torch.cond(x.sum() > 0, lambda v: v * self.factor, lambda v: v - 1, (x,))

    keys = {key(torch.export.export(Branch(f), (X,))) for f in (2.0, 3.0)}
    assert len(keys) == 2


def test_the_key_follows_the_inputs(program):
    inputs = [
        (X,),
        (X.double(),),
        (X[:1],),
        {"input": X},
        (X, 1),
        (X, 2),
        (X, True),
        (X, None),
        None,
    ]
    assert len({key(program, one) for one in inputs}) == len(inputs)
    assert key(program, (torch.zeros_like(X),)) == key(program, (X,))
    assert key(program, (X.numpy(),)) == key(program, (X,))


def test_the_key_follows_the_values_that_passes_are_measured_on(program):
    quantized = CompileConfig(quantize="int8")
    zeros = (torch.zeros_like(X),)
    assert key(program, zeros, config=quantized) != key(program, (X,), config=quantized)
    kept = CompileConfig(quantize="int8", do_no_harm=False)
    assert key(program, zeros, config=kept) == key(program, (X,), config=kept)


def test_the_key_follows_the_open_sizes(program):
    dim = torch.export.Dim
    sizes = [
        {"input": {0: "batch"}},
        {"input": {0: "rows"}},
        {"input": {1: "batch"}},
        {"input": ("batch", None)},
        {"input": {0: dim("batch", min=2)}},
        {"input": {0: dim("batch", max=7)}},
        {"input": {0: dim.DYNAMIC}},
    ]
    assert len({key(program, dynamic=one) for one in sizes}) == len(sizes)


def other(value: object, name: str) -> object:
    """A value that differs from ``value``, valid or not."""
    if value is None:
        given = {"threads": 7, "prune": None, "quantize": as_quantize("int8")}
        given["resolved"] = Resolved(kernels={"1": "2"})
        return given.get(name, "other")
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, dict):
        return {**value, "other": 1}
    return (*value, "other") if isinstance(value, tuple) else f"{value}-other"


def changed(value: object, name: str) -> object:
    new = copy.copy(value)
    object.__setattr__(new, name, other(getattr(value, name), name))
    return new


def test_the_key_follows_every_field_of_the_target(program, monkeypatch):
    monkeypatch.setattr(CpuTarget, "why_not_here", lambda self: "")
    fields = [item.name for item in dataclasses.fields(CpuTarget)]
    keys = [key(program, target=changed(host(), name)) for name in fields]
    assert len({key(program), *keys}) == len(fields) + 1


def test_the_key_follows_every_setting(program):
    left_out = ("tune", "passes", "evaluate", "prune", "calibration")
    names = [f.name for f in dataclasses.fields(CompileConfig) if f.name not in left_out]
    keys = [key(program, config=changed(CompileConfig(), name)) for name in names]
    more = [
        CompileConfig(prune=0.25),
        CompileConfig(prune=0.5),
        CompileConfig(quantize="w4g32"),
        CompileConfig(calibration=[(X,)]),
        CompileConfig(calibration=[(X + 1,)]),
    ]
    keys += [key(program, config=config) for config in more]
    assert len({key(program), *keys}) == len(keys) + 1


def test_the_key_follows_the_code_that_compiles(program, monkeypatch):
    keys = {key(program)}
    for name, value in (
        ("versions", lambda: {"torch": "1.0"}),
        ("source_digest", lambda: "other"),
        ("SCHEMA", 0),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(key_module, name, value)
            keys.add(key(program))
    assert len(keys) == 4
    assert key_module.versions()["apache-tvm"]
    assert key_module.versions()["torch"] in torch.__version__


def test_the_sources_are_those_that_are_imported():
    files = [
        Path(module.__file__)
        for name, module in list(sys.modules.items())
        if name.startswith(tuple(f"burnish.{part}." for part in key_module.SOURCES))
    ]
    assert files
    roots = [Path(sys.modules[f"burnish.{part}"].__file__).parent for part in key_module.SOURCES]
    assert all(any(file.is_relative_to(root) for root in roots) for file in files)


class Unknown:
    pass


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"config": CompileConfig(tune=1)}, "tuning goes on from its database"),
        ({"config": CompileConfig(passes=[(lambda mod: mod, "clean")])}, "passes of your own"),
        ({"config": CompileConfig(evaluate=lambda model: 1.0)}, "a function of your own"),
        ({"inputs": (Unknown(),)}, "an input or setting is of Unknown, which has no content"),
    ],
)
def test_what_has_no_content_to_hash_has_no_key(program, fields, message):
    with pytest.raises(NotCachedError, match=message):
        key(program, **fields)


def test_a_model_for_another_cpu_has_no_key(program):
    target = parse_target("llvm -mtriple=aarch64-linux-gnu")
    with pytest.raises(NotCachedError, match="it is for aarch64, and this machine is"):
        key(program, target=target)


def test_instruments_see_every_pass_run():
    burnish.compile(made(Mlp), (X,))
    seen = []

    @tvm.instrument.pass_instrument
    class Watch:
        def run_before_pass(self, mod, info):
            seen.append(info.name)

    with tvm.transform.PassContext(instruments=[Watch()]):
        report = burnish.compile(made(Mlp), (X,)).report
    assert report.cache.startswith("not cached: a pass context with settings or instruments")
    assert "FuseOps" in seen


def test_the_report_says_why_nothing_was_kept():
    report = burnish.compile(made(Mlp), (X,), evaluate=lambda model: 1.0).report
    assert report.cache.startswith("not cached: it is judged by a function of your own")
    assert compile_cache.entries() == []


# -- the store -----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_damaged_entry_is_replaced_with_a_warning(share, no_passes):
    first = burnish.compile(made(Mlp), (X,))
    (entry,) = compile_cache.entries()
    whole = entry.path.read_bytes()
    entry.path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.warns(
        UserWarning, match="compiling anew, for an entry of the compile cache is bad"
    ):
        second = burnish.compile(made(Mlp), (X,))
    assert second.report.cache == KEPT
    no_passes()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        third = burnish.compile(made(Mlp), (X,))
    assert bits(third(X)) == bits(second(X)) == bits(first(X))


def test_one_flipped_bit_of_a_weight_is_noticed():
    burnish.compile(made(Mlp), (X,))
    (entry,) = compile_cache.entries()
    data = bytearray(entry.path.read_bytes())
    place = data.index(made(Mlp)[0].bias.detach().numpy().tobytes())
    data[place] ^= 1
    entry.path.write_bytes(data)
    with pytest.warns(UserWarning, match=r"the hash of params.safetensors does not match"):
        burnish.compile(made(Mlp), (X,))


def test_a_folder_that_cannot_be_written_fails_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / "file"))
    compiled = burnish.compile(made(Mlp), (X,))
    assert compiled.report.cache.startswith("not cached: ")
    assert "Not a directory" in compiled.report.cache
    torch.testing.assert_close(compiled(X), made(Mlp)(X), rtol=1e-4, atol=1e-5)


def fake(name: str, size: int, used: float) -> Path:
    compile_cache.folder().mkdir(parents=True, exist_ok=True)
    path = compile_cache.folder() / f"{name}{compile_cache.SUFFIX}"
    path.write_bytes(b"x" * size)
    os.utime(path, (used, used))
    return path


def test_the_entries_used_longest_ago_go_first(monkeypatch):
    names = ["c", "a", "b"]
    paths = [fake(name, 100, 1000 + when) for when, name in enumerate(names)]
    assert [entry.path.stem for entry in compile_cache.entries()] == names
    assert compile_cache.shrink(300) == []
    assert [entry.path.stem for entry in compile_cache.shrink(250)] == ["c"]
    assert [path.exists() for path in paths] == [False, True, True]
    burnish.compile(made(Mlp), (X,))
    taken = compile_cache.entries()[-1].path
    os.utime(taken, (1, 1))
    burnish.compile(made(Mlp), (X,))
    assert compile_cache.entries()[-1].path == taken  # using it made it the newest
    monkeypatch.setenv(compile_cache.LIMIT, str(taken.stat().st_size + 150))
    burnish.compile(made(Mlp), (X[:1],))
    kept = [entry.path.stem for entry in compile_cache.entries()]
    assert len(kept) <= 2
    assert not {"a", "b"} & set(kept)


def test_unfinished_files_of_dead_writers_go(tmp_path):
    folder = fake("a", 1, 1000).parent
    old, new = folder / "k.burnish.0123.part", folder / "k.burnish.4567.part"
    old.touch()
    new.touch()
    os.utime(old, (1000, 1000))
    compile_cache.shrink(10)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_model_larger_than_the_limit_is_not_kept(monkeypatch):
    monkeypatch.setenv(compile_cache.LIMIT, "1 KB")
    report = burnish.compile(made(Mlp), (X,)).report
    assert report.cache.startswith("not cached: larger than the limit of 1000 bytes")
    assert compile_cache.entries() == []


@pytest.mark.parametrize(
    ("text", "size"),
    [("", 10 * 10**9), ("0", 0), ("12", 12), ("5kb", 5000), ("1.5 GB", 1_500_000_000)],
)
def test_limits(monkeypatch, text, size):
    monkeypatch.setenv(compile_cache.LIMIT, text)
    assert compile_cache.limit() == size


def test_a_limit_that_is_no_size_is_refused(monkeypatch):
    monkeypatch.setenv(compile_cache.LIMIT, "much")
    with pytest.raises(
        ConfigError, match="must be a size like 500MB or 10GB, or 0 for off; got 'much'"
    ):
        burnish.compile(made(Mlp), (X,))


def test_a_limit_of_zero_is_off(monkeypatch):
    monkeypatch.setenv(compile_cache.LIMIT, "0")
    assert burnish.compile(made(Mlp), (X,)).report.cache == ""
    assert compile_cache.entries() == []
