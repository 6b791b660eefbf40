"""From a model to a callable, end to end, on small networks."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import torch
import tvm
from small_nets import Block, Classifier, Mlp, made
from torch import nn

import burnish
from burnish.compiler import driver
from burnish.compiler.artifact import load, save
from burnish.compiler.compiled import Compiled
from burnish.compiler.config import CompileConfig
from burnish.compiler.errors import (
    BuildError,
    ConfigError,
    InvalidInputError,
    PassError,
    TargetError,
)
from burnish.compiler.parity import parity
from burnish.compiler.stages import Imported, Optimized, Tuned
from burnish.passes.params import get_params

X = torch.randn(2, 20, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def mlp() -> nn.Module:
    return made(Mlp)


@pytest.fixture(scope="module")
def compiled(mlp) -> Compiled:
    return burnish.compile(mlp, (X,))


def eager(model: nn.Module, *inputs: torch.Tensor):
    with torch.no_grad():
        return model(*inputs)


def close(got, want, tolerance: float = 1e-5) -> None:
    assert parity(got, want).rel <= tolerance


# -- networks ------------------------------------------------------------------------------------


def test_a_convolutional_network():
    model = made(Classifier)
    x = torch.randn(2, 3, 16, 14)
    compiled = burnish.compile(model, x)
    for value in (x, torch.randn(2, 3, 16, 14), torch.zeros(2, 3, 16, 14)):
        got = compiled(value)
        assert isinstance(got, torch.Tensor)
        close(got, eager(model, value))
    assert not [name for name in compiled.params if "running" in name]
    assert "head.weight" in compiled.params


def test_a_transformer_block_with_nested_outputs_and_open_sizes():
    model = made(Block)
    tokens, mask = torch.arange(14).reshape(2, 7), torch.ones(2, 7, dtype=torch.int64)
    sizes = {0: "batch", 1: "seq"}
    compiled = burnish.compile(model, (tokens, mask), dynamic={"tokens": sizes, "mask": sizes})
    for b, n in ((2, 7), (1, 1), (1, 33), (5, 4)):
        tokens = torch.randint(0, 50, (b, n))
        mask = (torch.rand(b, n) > 0.3).long()
        mask[:, 0] = 1
        want = eager(model, tokens, mask)
        got = compiled(tokens, mask)
        assert list(got) == ["last", "more"]
        assert isinstance(got["more"], tuple)
        assert isinstance(got["more"][1], list)
        close(got["last"], want["last"])
        close(got["more"][0], want["more"][0])
        assert got["more"][1][0].dtype == torch.int64
        arrays = compiled(tokens.numpy(), mask.numpy())
        assert isinstance(arrays["last"], np.ndarray)
        close(arrays["last"], want["last"])
        named = compiled(mask=mask, tokens=tokens)
        torch.testing.assert_close(named["last"], got["last"])


def test_an_open_batch(mlp):
    compiled = burnish.compile(mlp, (X,), dynamic={"input": {0: "batch"}})
    for batch in (1, 2, 3, 17):
        x = torch.randn(batch, 20)
        close(compiled(x), eager(mlp, x))


# -- inputs --------------------------------------------------------------------------------------


def test_numpy_in_numpy_out_torch_in_torch_out(compiled, mlp):
    want = eager(mlp, X)
    torch_out, numpy_out = compiled(X), compiled(X.numpy())
    assert isinstance(torch_out, torch.Tensor)
    assert isinstance(numpy_out, np.ndarray)
    assert (torch_out.dtype, numpy_out.dtype) == (torch.float32, np.float32)
    close(torch_out, want)
    np.testing.assert_array_equal(torch_out.numpy(), numpy_out)


def layouts() -> dict[str, object]:
    wide = torch.zeros(2, 41)
    wide[:, 1::2] = X
    padded = torch.cat([torch.zeros(3), X.flatten()])
    readonly = X.numpy().copy()
    readonly.flags.writeable = False
    buffer = np.zeros(2 * 20 * 4 + 64 + 4, np.uint8)
    start = -buffer.ctypes.data % 64 + 4
    misaligned = buffer[start : start + 160].view(np.float32).reshape(2, 20)
    misaligned[:] = X.numpy()
    return {
        "columns first": X.T.contiguous().T,
        "every other column": wide[:, 1::2],
        "an offset": padded[3:].view(2, 20),
        "needs a gradient": X.clone().requires_grad_(),
        "a parameter": nn.Parameter(X.clone()),
        "negated lazily": torch._neg_view(-X),
        "fortran": np.asfortranarray(X.numpy()),
        "backwards": X.numpy()[::-1][::-1],
        "read only": readonly,
        "misaligned": misaligned,
        "a TVM tensor": tvm.runtime.tensor(X.numpy()),
    }


@pytest.mark.parametrize("layout", layouts())
def test_memory_of_any_layout_is_taken(compiled, mlp, layout):
    value = layouts()[layout]
    kept = np.array(value.numpy() if isinstance(value, tvm.runtime.Tensor) else value.tolist())
    got = compiled(value)
    close(torch.as_tensor(np.asarray(got)), eager(mlp, X))
    after = np.array(value.numpy() if isinstance(value, tvm.runtime.Tensor) else value.tolist())
    np.testing.assert_array_equal(kept, after)


def test_outputs_are_the_callers_own(compiled):
    first = compiled(X)
    kept = first.clone()
    compiled(torch.zeros_like(X))
    torch.testing.assert_close(first, kept)
    first.add_(1)
    torch.testing.assert_close(compiled(X), kept)
    array = compiled(X.numpy())
    array += 1
    np.testing.assert_allclose(compiled(X.numpy()), kept.numpy())


class Passing(nn.Module):
    """Returns its input and a weight as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x, x + self.weight, self.weight


@pytest.mark.parametrize("convert", [lambda x: x, lambda x: x.numpy()])
def test_an_input_or_weight_that_is_returned_survives_the_next_call(convert):
    compiled = burnish.compile(Passing().eval(), (torch.zeros(2, 3),))
    wide = torch.arange(12.0).reshape(2, 6)
    first = compiled(convert(wide[:, ::2]))
    compiled(convert(-wide[:, ::2]))
    np.testing.assert_array_equal(first[0], wide[:, ::2])
    first[2][:] = 7
    again = compiled(convert(wide[:, ::2]))
    np.testing.assert_array_equal(again[1], wide[:, ::2] + 1)
    np.testing.assert_array_equal(again[2], np.ones(3))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "got 0 inputs; the model takes 1: input: float32[2, 20]"),
        ((X, X), "got 2 inputs; the model takes 1"),
        ((X.double(),), "input 'input' has dtype float64, the model takes float32"),
        ((X.long().numpy(),), "input 'input' has dtype int64, the model takes float32"),
        ((X[:1],), "input 'input' has shape (1, 20), the model takes (2, 20)"),
        ((X[0],), "input 'input' has shape (20,), the model takes (2, 20)"),
        ((np.zeros((2, 21), "f4"),), "input 'input' has shape (2, 21), the model takes (2, 20)"),
    ],
)
def test_wrong_inputs_are_refused_before_anything_runs(compiled, inputs, message):
    with pytest.raises(InvalidInputError, match=re.escape(message)) as caught:
        compiled(*inputs)
    assert caught.value.stage == "run"
    close(compiled(X), compiled(X.numpy()))


def test_something_that_is_no_tensor_is_refused(compiled):
    with pytest.raises(InvalidInputError, match="input 'input'"):
        compiled("text")


def test_calls_from_several_threads_take_turns(compiled, mlp):
    values = [torch.randn(2, 20) for _ in range(4)]
    want = [eager(mlp, value) for value in values]
    wrong: list[object] = []

    def work(place: int) -> None:
        for _ in range(200):
            got = compiled(values[place])
            if parity(got, want[place]).rel > 1e-5:
                wrong.append(got)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_is_that_of_the_setting(mlp, threads):
    compiled = burnish.compile(mlp, (X,), threads=threads)
    assert compiled.target.threads == threads
    assert compiled.config.threads == threads
    close(compiled(X), eager(mlp, X))


def test_threads_are_no_more_than_those_of_the_setting(tmp_path):
    code = """
    import sys, torch, burnish
    from pathlib import Path
    net, x = torch.nn.Linear(512, 512).eval(), torch.randn(64, 512)
    for threads in (1, 3):
        model = burnish.compile(net, (x,), threads=threads)
        torch.testing.assert_close(model(x), net(x).detach(), rtol=1e-4, atol=1e-4)
        names = [(t / "comm").read_text().strip() for t in Path("/proc/self/task").iterdir()]
        print(names.count("burnish"))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0", "2"]


def test_the_environment_says_the_threads_where_nothing_else_does(mlp, monkeypatch, tmp_path):
    monkeypatch.setenv("BURNISH_THREADS", "3")
    compiled = burnish.compile(mlp, (X,))
    assert compiled.target.threads == 3
    assert burnish.compile(mlp, (X,), threads=1).target.threads == 1
    file = compiled.save(tmp_path / "net.burnish")
    monkeypatch.setenv("BURNISH_THREADS", "2")
    loaded = burnish.load(file)
    assert loaded.target.threads == 2
    close(loaded(X), eager(mlp, X))


@pytest.mark.parametrize("given", ["0", "-1", "many", "1.5"])
def test_a_wrong_number_of_threads_in_the_environment_is_refused(mlp, monkeypatch, given):
    monkeypatch.setenv("BURNISH_THREADS", given)
    said = f"BURNISH_THREADS must be a whole number of 1 or more, got {given!r}"
    with pytest.raises(TargetError, match=re.escape(said)):
        burnish.compile(mlp, (X,))


# -- stages --------------------------------------------------------------------------------------


def test_each_stage_can_be_called_alone_and_shows_its_ir(mlp):
    imported = burnish.import_model(mlp, (X,))
    assert isinstance(imported, Imported)
    assert "R.matmul" in imported.show()
    assert imported.source.kind == "torch"
    optimized = burnish.optimize(imported, "cpu", prune=0.5, do_no_harm=False)
    assert isinstance(optimized, Optimized)
    assert "T.prim_func" in optimized.show()
    assert "metadata" not in optimized.show()
    zeros = (get_params(optimized.graph)["0.weight"].numpy() == 0).mean()
    assert abs(zeros - 0.5) < 0.01
    tuned = burnish.tune(optimized)
    assert isinstance(tuned, Tuned)
    assert tuned.best == {}
    assert tuned.show() == optimized.show()
    for stage in (tuned, optimized):
        compiled = burnish.build(stage)
        assert isinstance(compiled, Compiled)
        assert compiled.show() == optimized.show()
    assert {"import", "optimize", "build"} <= set(compiled.report.seconds)
    assert "Compiled(input: float32[2, 20]; target=cpu" in repr(compiled)


def test_the_report_has_a_row_a_pass(mlp):
    report = burnish.compile(made(Classifier), torch.randn(1, 3, 8, 8)).report
    rows = {row.name: row for row in report.rows}
    assert list(rows)[:2] == ["WidenNorms", "FoldBatchNorm"]
    assert list(rows)[-2:] == ["Lower", "Fuse"]
    fold = rows["FoldBatchNorm"]
    assert fold.phase == "clean"
    assert fold.before.ops["nn.batch_norm"] == 2
    assert "nn.batch_norm" not in fold.after.ops
    assert all(row.seconds >= 0 for row in report.rows)
    assert {row.status for row in report.rows} <= {"applied", "no change"}
    assert report.rows[0].before.bytes > 0
    assert type(report).from_dict(report.to_dict()) == report


def test_weights_keep_their_names_and_are_counted(mlp):
    compiled = burnish.compile(mlp, (X,))
    assert sorted(compiled.params) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert compiled.params_bytes == sum(t.numpy().nbytes for t in compiled.params.values())


# -- settings ------------------------------------------------------------------------------------


def test_fields_override_the_config(mlp):
    config = CompileConfig(prune=0.9, opt_level=2, do_no_harm=False)
    optimized = burnish.optimize(burnish.import_model(mlp, (X,)), config=config, prune=0.25)
    assert optimized.config.prune.sparsity == 0.25
    assert optimized.config.opt_level == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prune": 1.5}, "sparsity must be from 0 to 1, got 1.5"),
        ({"quantize": "int9"}, "quantize 'int9' is unknown"),
        ({"quantise": "int8"}, "unknown setting 'quantise' (near: quantize)"),
        ({"threads": 0}, "threads must be a whole number of 1 or more, got 0"),
        ({"config": {"threads": 1}}, "config must be a CompileConfig, got dict"),
        ({"passes": ["never-registered"]}, "no pass is registered as 'never-registered'"),
        ({"evaluate": "nothing"}, "no evaluation is registered as 'nothing'"),
    ],
)
def test_bad_settings_are_refused_before_the_import(fields, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        burnish.compile("no-such-file.onnx", None, **fields)


@pytest.mark.parametrize("target", ["gpu", "llvm -mcpu=made-up", ""])
def test_an_unknown_target_is_refused_before_the_import(target):
    with pytest.raises(TargetError, match=r"known: cpu|LLVM knows no CPU") as caught:
        burnish.compile("no-such-file.onnx", None, target)
    assert isinstance(caught.value, ValueError)


@tvm.transform.module_pass(opt_level=0, name="Count")
class Count:
    """Counts its runs."""

    runs = 0

    def transform_module(self, mod, _ctx):
        Count.runs += 1
        return mod


@tvm.transform.module_pass(opt_level=0, name="Refuse")
class Refuse:
    """Refuses every module."""

    def transform_module(self, mod, _ctx):
        raise ValueError("a shape that this pass does not take")


@pytest.mark.parametrize("phase", ["import", "clean", "partition", "lower", "fuse"])
def test_a_pass_of_the_users_own_runs_at_its_phase(mlp, phase):
    Count.runs = 0
    optimized = burnish.optimize(
        burnish.import_model(mlp, (X,)), passes=[(Count(), phase)], do_no_harm=False
    )
    assert Count.runs == 1
    close(burnish.build(optimized)(X), eager(mlp, X))
    if phase not in ("lower", "fuse"):
        assert [(row.name, row.phase) for row in optimized.report.rows if row.name == "Count"] == [
            ("Count", phase)
        ]


def test_an_error_in_a_pass_names_it(mlp):
    with pytest.raises(PassError, match="a shape that this pass does not take") as caught:
        burnish.compile(mlp, (X,), passes=[(Refuse(), "clean")], do_no_harm=False)
    assert (caught.value.stage, caught.value.pass_name) == ("optimize", "Refuse")


def test_no_linker_is_said_plainly(mlp, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BuildError, match=re.escape("needs a C++ linker driver (g++ or clang++)")):
        burnish.compile(mlp, (X,))


def test_a_target_for_another_cpu_builds(mlp):
    compiled = burnish.compile(mlp, (X,), "llvm -mcpu=nehalem -num-cores=1")
    assert compiled.target.lanes == 4
    close(compiled(X), eager(mlp, X))


def test_the_front_door_offers_what_it_promises():
    assert burnish.load is load
    assert burnish.compile is driver.compile
    assert set(burnish.__all__) <= set(dir(burnish))
    for name in burnish.__all__:
        assert getattr(burnish, name) is not None
    with pytest.raises(AttributeError, match="module 'burnish' has no attribute 'nothing'"):
        _ = burnish.nothing
    assert callable(save)
