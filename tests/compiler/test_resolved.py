"""Resolved recipes: what was measured is written down, and the same bytes come out of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_nets import Mlp, made
from tvm.s_tir import Schedule

import burnish
from burnish import CompileConfig
from burnish.compiler.errors import ConfigError, TargetError, TuneError
from burnish.compiler.gate import Variants
from burnish.compiler.measure.service import MeasureService
from burnish.compiler.measure.timing import summarize
from burnish.compiler.resolved import Resolved
from burnish.compiler.tune.database import Record, TuneDatabase
from burnish.compiler.tune.search import entry_module, from_trace, kernel_of, trace_json
from burnish.compiler.tune.tasks import extract_tasks, task_key
from burnish.targets.cpu.vector_math import vectorized_math
from burnish.targets.target import host
from cuda_support import require_compiler

X = torch.randn(2, 20, generator=torch.Generator().manual_seed(1))


class Conv(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.last = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.norm(self.first(x))).mean((2, 3)))


@pytest.fixture
def timed(monkeypatch) -> dict[str, float]:
    """What the model takes after a pass, in milliseconds, where it took 1 before."""
    said = {"after": 2.0}

    def time(_self: Any, _old: Any, _new: Any) -> dict[str, Any]:
        both = {"before": 1.0, "after": said["after"]}
        return {
            name: summarize([[ms * (1 + 0.001 * i) for i in range(5)] for _ in range(5)])
            for name, ms in both.items()
        }

    monkeypatch.setattr(Variants, "time", time)
    return said


@pytest.fixture
def unmeasured(monkeypatch):
    """Call it, and whatever is measured from then on is an error."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("something was measured")

    def start() -> None:
        for name in ("time", "build"):
            monkeypatch.setattr(Variants, name, never)
        monkeypatch.setattr(MeasureService, "__init__", never)

    return start


@pytest.mark.parametrize(
    "after", [pytest.param(0.5, marks=pytest.mark.heavy, id="kept"), pytest.param(2.0, id="undone")]
)
def test_the_resolved_recipe_gives_the_same_bytes(timed, unmeasured, tmp_path, after):
    timed["after"] = after
    given = {"prune": 0.3, "quantize": "int8", "evaluate": lambda model: 0.5, "cache": False}
    first = burnish.compile(made(Mlp), (X,), **given)
    status = {row.name: row.status for row in first.report.rows}
    assert status["QuantizeWeights"] == ("undone" if after > 1 else "applied")
    unmeasured()
    config = CompileConfig.from_toml_text(first.recipe)
    second = burnish.compile(made(Mlp), (X,), config=config, cache=False)
    assert second.report.timeless() == first.report.timeless()
    one, two = first.save(tmp_path / "one.burnish"), second.save(tmp_path / "two.burnish")
    assert one.read_bytes() == two.read_bytes()
    assert second.recipe == first.recipe
    third = burnish.load(two).save(tmp_path / "three.burnish")
    assert third.read_bytes() == one.read_bytes()


def test_a_recipe_holds_its_choices_and_no_place(timed):
    timed["after"] = 0.5
    compiled = burnish.compile(made(Mlp), (X,), quantize="int8", cache=False)
    said = tomllib.loads(compiled.recipe)["resolved"]
    assert said["model"] == compiled.source.hash
    assert said["target"]["mcpu"] == host().mcpu
    assert said["target"]["threads"] == compiled.target.threads
    (judged,) = (one for one in said["judged"] if one["name"] == "QuantizeWeights")
    assert (judged["status"], judged["before"]["ms"]) == ("applied", pytest.approx(1, rel=0.1))
    assert "/" not in compiled.recipe.replace("https://", "")


@pytest.fixture(scope="module")
def recipe() -> str:
    """Of a compilation without anything to measure."""
    return burnish.compile(made(Mlp), (X,), do_no_harm=False, cache=False).recipe


def test_choices_of_another_model_or_for_other_settings_are_refused(recipe):
    config = CompileConfig.from_toml_text(recipe)
    other = made(Mlp)
    with torch.no_grad():
        other[0].bias += 1
    with pytest.raises(ConfigError, match=r"resolved for another model .* remove its \[resolved\]"):
        burnish.compile(other, (X,), config=config)
    with pytest.raises(ConfigError, match="resolved with other settings than these"):
        burnish.compile(made(Mlp), (X,), config=config, quantize="int8")
    with pytest.raises(TargetError, match="resolved for the target 'cpu' as it is there, not for"):
        burnish.compile(made(Mlp), (X,), config=config, target="llvm -mcpu=x86-64-v2")
    free = replace(config, resolved=replace(config.resolved, model=None))
    burnish.compile(other, (X,), config=free, cache=False)


def test_a_place_of_another_pass_is_refused(recipe):
    config = CompileConfig.from_toml_text(recipe)
    text = recipe + '\n[[resolved.judged]]\nrow = 1\nname = "Other"\nstatus = "undone"\n'
    wrong = CompileConfig.from_toml_text(text)
    assert wrong.resolved is not None
    assert wrong != config
    with pytest.raises(ConfigError, match="tells of Other where this compilation runs"):
        wrong.resolved.judgement(1, "FoldBatchNorm")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mode = 1", "unknown setting of resolved 'mode'"),
        ("model = 1", "has a value of another type"),
        ('kernels = { a = "1" }', "has a value of another type"),
        ("kernels = { 1 = 2 }", "has a value of another type"),
        ("judged = [{ row = 1 }]", "cannot be read"),
        ('judged = [{ row = 1, name = "A", status = "gone" }]', "has a value of another type"),
        ("judged = [1]", "cannot be read"),
        ('target = { kind = "cpu" }', ""),
    ],
)
def test_a_resolved_part_that_cannot_be(text, message):
    whole = f"schema = 1\n[resolved]\n{text}\n"
    if message:
        with pytest.raises(ConfigError, match=message):
            CompileConfig.from_toml_text(whole)
        return
    config = CompileConfig.from_toml_text(whole)
    with pytest.raises(TargetError, match=r"the target of the recipe's \[resolved\] part lacks"):
        burnish.compile(made(Mlp), (X,), config=config)


def test_what_was_given_in_code_must_be_given_again(tmp_path):
    given = {"calibration": [(X,)], "evaluate": lambda model: 1.0}
    first = burnish.compile(made(Mlp), (X,), cache=False, **given)
    path = first.save(tmp_path / "m.burnish")
    assert burnish.load(path).source.calibration == first.source.calibration
    assert re.fullmatch("[0-9a-f]{64}", str(first.source.calibration))
    config = CompileConfig.from_toml_text(first.recipe)
    with pytest.raises(ConfigError, match="resolved with calibration given in code: give the same"):
        burnish.compile(made(Mlp), (X,), config=config)
    second = burnish.compile(made(Mlp), (X,), config=config, calibration=[(X,)], cache=False)
    assert second.save(tmp_path / "again").read_bytes() == path.read_bytes()


def test_tuned_kernels_come_from_the_rules_and_the_database(unmeasured, tmp_path):
    """A schedule is found by its hash; a database that lacks it is named."""
    settings = {"tune": {"trials": 8, "work_dir": tmp_path}, "do_no_harm": False}
    staged = burnish.optimize(burnish.import_model(made(Mlp), (X,)), "cpu", **settings)
    target = staged.target
    kernels, records = {}, []
    for task in extract_tasks(staged.mod):
        schedule = Schedule(entry_module(task.func))
        block = schedule.get_child_blocks(schedule.get_sblock("root"))[-1]
        schedule.parallel(schedule.get_loops(block)[0])
        trace = trace_json(schedule)
        key = task_key(kernel_of(from_trace(task, trace), vectorized_math))
        kernels[str(task.key)] = str(key)
        records.append(Record(task.key, key, "trace", 1e-6, trace=trace))
    TuneDatabase(tmp_path, target.tvm(), target.threads).add(*records)
    unmeasured()
    config = replace(staged.config, resolved=Resolved(kernels=kernels))
    saved = []
    for name in ("one", "two"):
        tuned = burnish.compile(made(Mlp), (X,), config=config, cache=False)
        assert "tuned" in {kernel.rule for kernel in tuned.kernels.values()}
        assert tuned.source.tuning
        torch.testing.assert_close(tuned(X), made(Mlp)(X), rtol=1e-4, atol=1e-5)
        saved.append(tuned.save(tmp_path / name).read_bytes())
        assert str(tmp_path) not in tuned.recipe
        assert tomllib.loads(tuned.recipe)["resolved"]["kernels"] == kernels
    assert saved[0] == saved[1]
    unknown = replace(config, resolved=Resolved(kernels=dict.fromkeys(kernels, "12345")))
    said = f"{re.escape(str(tmp_path))}.* does not know the schedule"
    with pytest.raises(TuneError, match=said):
        burnish.compile(made(Mlp), (X,), config=unknown, cache=False)


FRESH = """
import sys, torch, burnish
from burnish.compiler.measure.service import MeasureService

def measured(*_, **__):
    raise AssertionError("something was measured")

MeasureService.__init__ = measured
program, recipe, out = sys.argv[1:]
net = torch.export.load(program)
config = burnish.CompileConfig.from_toml(recipe)
burnish.compile(net, net.example_inputs[0], config=config, cache=False).save(out)
"""


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("net", "shape", "given"),
    [
        (Conv, (1, 3, 12, 12), {"quantize": "int8", "prune": 0.3}),
        (
            lambda: torch.nn.TransformerEncoderLayer(32, 2, 64, batch_first=True),
            (1, 6, 32),
            {"quantize": "w4g32", "prune": 0.2},
        ),
    ],
    ids=["cnn", "transformer"],
)
def test_fresh_processes_write_the_same_bytes(timed, tmp_path, net, shape, given):
    """Whatever the order in which Python's sets are walked, and wherever the process is."""
    timed["after"] = 0.5
    torch.manual_seed(0)
    x = torch.randn(shape)
    program = torch.export.export(net().eval(), (x,))
    torch.export.save(program, tmp_path / "net.pt2")
    program = torch.export.load(tmp_path / "net.pt2")
    first = burnish.compile(program, program.example_inputs[0], cache=False, **given)
    want = first.save(tmp_path / "first.burnish").read_bytes()
    (tmp_path / "recipe.toml").write_text(first.recipe)
    for seed in ("1", "2"):
        where = tmp_path / f"in {seed}"
        where.mkdir()
        names = [str(tmp_path / "net.pt2"), str(tmp_path / "recipe.toml"), str(where / "out")]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TMPDIR": str(where)}
        subprocess.run(
            [sys.executable, "-c", FRESH, *names], check=True, cwd=where, env=environment
        )
        assert Path(where / "out").read_bytes() == want


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("target", "precision"),
    [("cpu", "fp16"), ("llvm -mcpu=x86-64-v3", "fp32"), ("opencl", "fp32"), ("cuda:sm_80", "tf32")],
)
def test_every_kind_of_target_is_resolved(tmp_path, target, precision):
    """Said again or left out, the target is the one that the recipe names."""
    if target.startswith("cuda"):
        require_compiler()
    fields = {"precision": precision, "do_no_harm": False, "cache": False}
    first = burnish.compile(made(Mlp), (X,), target=target, **fields)
    want = first.save(tmp_path / "first.burnish").read_bytes()
    config = CompileConfig.from_toml_text(first.recipe)
    for said in (target, "cpu"):
        again = burnish.compile(made(Mlp), (X,), target=said, config=config, cache=False)
        assert again.save(tmp_path / "again.burnish").read_bytes() == want
