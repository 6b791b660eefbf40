"""Operators of a model, their times kept and estimated, and the placement that follows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from placement_support import Given, Sides, Twice, links

import burnish
from burnish.compiler import driver
from burnish.compiler.gate import Variants
from burnish.compiler.measure.timing import summarize
from burnish.compiler.optimizer import lowered
from burnish.compiler.pipeline import graph_phases
from burnish.compiler.placement import operator_runner
from burnish.compiler.placement.by_cost import ByCost
from burnish.compiler.placement.costs import CostModel, OperatorTime
from burnish.compiler.placement.groups import group_key, group_module, groups_of
from burnish.compiler.placement.links import SIZES, fitted
from burnish.compiler.placement.model_problem import model_problem
from burnish.compiler.placement.nearby import estimated
from burnish.compiler.placement.operators import operators_of
from burnish.targets.choose import choose_target


def test_equal_kernels_are_one_operator_and_weights_are_told(optimized):
    found = operators_of(optimized.mod)
    twice = [op for op, count in found.calls if count == 2]
    assert len(twice) == 1
    assert "relu" in twice[0].name
    assert twice[0].weights == (1, 2)
    bare = sum(4 * p.numel() for p in Twice().parameters())
    assert bare <= found.weight_bytes < 1.3 * bare, "packed panels are padded"
    assert found.others == ()


def test_a_branch_counts_half_of_each_side():
    class Branch(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda y: y @ y, lambda y: y + 1, (x,))

    mod = driver.optimize(driver.import_model(Branch(), (torch.ones(8, 8),)), "cpu").mod
    found = operators_of(mod)
    assert sorted(count for _, count in found.calls) == [0.5, 0.5, 1.0, 1.0]
    assert sorted(side for _, side in found.uncertain) == [-0.5, 0.5]


def test_open_sizes_are_refused():
    net = torch.nn.Linear(4, 4)
    opened = driver.import_model(net, (torch.ones(2, 4),), dynamic={"input": {0: "n"}})
    with pytest.raises(ValueError, match="times are of known shapes"):
        operators_of(driver.optimize(opened, "cpu").mod)


def test_groups_lower_to_the_kernels_of_the_whole(optimized):
    whole = {op.signature for op, _ in operators_of(optimized.mod).calls}
    groups = groups_of(optimized.graph)
    assert [g.operators[0] for g in groups].count("nn.conv2d") == 1
    keys, alone = [], set()
    for group in groups:
        keys.append(group_key(group_module(optimized.graph, group)))
        mod = group_module(optimized.graph, group, channels_last=True)
        phases = graph_phases(optimized.target, optimized.config)
        low = lowered(mod, optimized.target, phases)
        alone |= {op.signature for op, _ in operators_of(low).calls}
    assert len(set(keys)) == len(keys) - 1, "the two equal layers are one"
    contractions = {
        op.signature for op, _ in operators_of(optimized.mod).calls if op.record().flops
    }
    assert contractions <= alone
    assert len(alone - whole) <= 1


def test_groups_compute_what_the_model_does(optimized):
    groups = groups_of(optimized.graph)
    x = torch.randn(1, 3, 8, 32)
    torch.manual_seed(0)
    expected = Twice().eval()(x).detach().numpy()
    values: dict[str, Any] = {"x": x.numpy()}
    for group in groups:
        mod = group_module(optimized.graph, group)
        built = _built(mod, optimized)
        out = built(*[values[str(v.name)] for v in group.inputs])
        outs = out if isinstance(out, tuple) else (out,)
        values.update(zip((str(v.name) for v in group.outputs), outs, strict=True))
    np.testing.assert_allclose(outs[0], expected, rtol=1e-4, atol=1e-5)


def _built(mod: Any, optimized: Any) -> Any:
    from tvm import relax

    from burnish.passes.params import get_params, num_inputs

    weights = list(get_params(mod).values())
    mod = mod.without_attr("params") if "params" in (mod.attrs or {}) else mod
    machine = relax.VirtualMachine(relax.build(mod, "llvm"), tvm.cpu())
    count = num_inputs(mod)

    def call(*given: np.ndarray) -> Any:
        assert len(given) == count
        tensors = [tvm.runtime.tensor(np.ascontiguousarray(v)) for v in given]
        out = machine["main"](*tensors, *weights)
        return out.numpy() if hasattr(out, "numpy") else tuple(o.numpy() for o in out)

    return call


def test_times_are_measured_once_and_estimated_for_what_is_like_them(optimized, tmp_path):
    costs = CostModel(tmp_path)
    calls = operators_of(optimized.mod).calls
    operators = [op for op, _ in calls]
    steps: list[int] = []
    told = costs.measure(
        operators, optimized.target, progress=lambda done, _total, _doing: steps.append(done)
    )
    assert told == len(operators) == steps[-1]
    assert costs.measure(operators, optimized.target) == 0
    assert CostModel(tmp_path).missing(operators, optimized.target) == []
    for op in operators:
        time = costs.known(op, optimized.target)
        assert time is not None
        assert 1e-8 < time.cache < 1
        assert not time.estimated
    product = next(op for op in operators if op.record().flops and "relu" in op.name)
    other = dataclasses.replace(product, key=product.key + 1)
    guess = costs.estimate(other, optimized.target)
    assert guess is not None
    assert guess.estimated
    assert guess.memory == pytest.approx(costs.known(product, optimized.target).memory, rel=0.01)
    wider = dataclasses.replace(optimized.target, threads=optimized.target.threads + 1)
    assert costs.known(product, wider) is None


def test_an_estimate_follows_size_and_knows_its_error():
    def entry(scale: int, seconds: float, ring: str) -> dict[str, Any]:
        work = {"operators": ["matmul"], "dtype": "float32", "flops": 1000 * scale}
        work |= {"elementwise": 0, "transcendental": 0, "bytes": 100 * scale}
        return {**work, "weights": ring, "timing": {"p50": 1e3 * seconds}}

    known = [entry(s, 1e-6 * s, r) for s in (1, 10, 100) for r in ("memory", "cache")]
    found = estimated(entry(30, 0, "memory"), known)
    assert found.memory == pytest.approx(30e-6, rel=0.3)
    assert found.estimated
    off = [entry(s, 1e-6 * s * (1 + s % 3), r) for s in (1, 10, 101) for r in ("memory", "cache")]
    assert estimated(entry(30, 0, "memory"), off).error > found.error
    assert estimated({**entry(30, 0, "memory"), "operators": ["add"]}, known) is None


def test_seconds_go_from_the_cache_to_memory_with_what_is_held():
    time = OperatorTime(memory=3.0, cache=1.0, error=0.0)
    assert time.seconds(0, 100) == time.seconds(50, 100) == 1.0
    assert time.seconds(75, 100) == 2.0
    assert time.seconds(100, 100) == time.seconds(10, 0) == 3.0


def test_a_link_is_fitted_to_its_copies():
    latency, rate = fitted([2e-6 + size / 5e9 for size in SIZES])
    assert latency == pytest.approx(2e-6, rel=0.01)
    assert rate == pytest.approx(5e9, rel=0.01)


def test_the_problem_of_a_model(optimized, tmp_path):
    target = choose_target("hetero:cpu,opencl:0")
    config = burnish.CompileConfig(placement={"nn.conv2d": "cpu"}, memory={"cpu": "1 KiB"})
    made = model_problem(optimized.graph, target, config, Given(tmp_path), links=links)
    problem = made.problem
    assert [d.memory_bytes for d in problem.devices] == [1024, None]
    assert problem.host == "cpu"
    conv = next(node for node in problem.nodes if "conv2d" in node.operator)
    assert problem.pins == {conv.name: "cpu"}
    linear = next(node for node in problem.nodes if "matmul" in node.operator)
    assert linear.seconds["opencl:0"] < linear.seconds["cpu"]
    assert sum(linear.weights.values()) == 4 * (32 * 32 + 32)
    assert made.errors[linear.name, "cpu"] == pytest.approx(0.1, rel=0.5)
    assert set(made.bindings(dict.fromkeys(made.members, "cpu")).values()) == {"cpu"}
    assert problem.outputs[0].bytes == 4 * 8 * 5
    assert problem.inputs[0].targets == (conv.name,)


def test_memory_that_one_device_has_not_makes_a_cut_that_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path))
    torch.manual_seed(0)
    net, x = Twice().eval(), torch.randn(1, 3, 8, 32)
    limits = {"cpu": "12 kB", "cpu:1": "12 kB"}
    compiled = burnish.compile(
        net, (x,), target="hetero:cpu,cpu:1", placement="auto", memory=limits, do_no_harm=False
    )
    assert set(compiled.config.placement.values()) == {"cpu", "cpu:1"}
    np.testing.assert_allclose(compiled(x), net(x).detach(), rtol=1e-4, atol=1e-5)
    row = next(row for row in compiled.report.rows if row.name == "PartitionGraph")
    said = row.details["placement"]
    assert max(said["memory_bytes"].values()) <= 12_000
    assert {one["algorithm"] for one in said["candidates"]} >= {"all on cpu", "ilp", "greedy"}
    recipe = tmp_path / "again.toml"
    Path(recipe).write_text(compiled.recipe)
    again = burnish.compile(
        net, (x,), target="hetero:cpu,cpu:1", config=burnish.CompileConfig.from_toml(recipe)
    )
    assert again.config.placement == compiled.config.placement
    with pytest.raises(burnish.BurnishError, match="over"):
        burnish.compile(
            net, (x,), target="hetero:cpu,cpu:1", placement="auto", memory={"cpu": 1, "cpu:1": 1}
        )


def test_branches_are_put_on_cores_that_work_at_the_same_time(tmp_path):
    target = choose_target("hetero:cpu@0,cpu@1")
    config = burnish.CompileConfig(placement={"*": "auto"}, do_no_harm=False)
    imported = burnish.import_model(Sides().eval(), (torch.randn(2, 6),))
    decide = ByCost(target, config, imported, costs=Given(tmp_path), links=links)
    assert set(decide(imported.mod).placement.values()) == {"cpu@0", "cpu@1"}
    best = decide.choice.best.prediction
    assert best.overlap
    alone = [r.placement.seconds for r in decide.choice.rows if r.algorithm.startswith("all on")]
    assert best.seconds < 0.8 * min(alone)


@pytest.mark.parametrize(
    ("once", "expected"),
    [
        (1e-6, [[0, 1, 2, 3, 4]]),
        (operator_runner.LONG_S / 5, [[0, 1, 2, 3, 4]]),
        (operator_runner.LONG_S / 2, [[0, 1], [2, 3], [4, 0], [1, 2], [3, 4], [0, 1], [2, 3]]),
        (9.0, [[0], [1], [2], [3], [4], [0], [1]]),
    ],
)
def test_a_slow_operator_goes_around_its_weights_sample_by_sample(once, expected):
    found = operator_runner._parts(list(range(5)), once)
    assert [list(one) for one in found] == expected


@pytest.mark.parametrize("slower", ["all on cpu", "cut"])
def test_a_cut_is_kept_where_it_is_not_measured_to_be_slower(optimized, tmp_path, slower):
    torch.manual_seed(0)
    imported = driver.import_model(Twice().eval(), (torch.randn(1, 3, 8, 32),))
    target = choose_target("hetero:cpu,cpu:1")
    config = burnish.CompileConfig(placement={"*": "auto"})

    class Halves(Given):
        """Products cost less on the second, all else on the first."""

        def times(self, operators: Any, target: Any) -> Any:
            self.second = not getattr(self, "second", True)
            return {
                op.signature: OperatorTime(
                    *(2 * [1e-3 if bool(op.record().flops) == self.second else 2e-3]), error=0.1
                )
                for op in operators
            }, []

    decided = ByCost(target, config, imported, costs=Halves(tmp_path), links=links)
    ms = {"before": 1.0 if slower == "cut" else 2.0, "after": 1.5}
    timing = {name: summarize([[value] * 5] * 5) for name, value in ms.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Variants, "time", lambda *_: timing)
        found = decided(optimized.graph)
    assert len(set(decided.choice.best.assignment.values())) == 2
    assert len(set(found.placement.values())) == (1 if slower == "cut" else 2)
    assert decided.measured["cut"] == 1.5
    assert set(decided.measured) == {"cut", "all on cpu", "all on cpu:1"}


@pytest.mark.parametrize(("times", "held"), [(1.2, True), (3.0, False)])
def test_a_device_that_comes_close_is_timed_too(optimized, tmp_path, times, held):
    torch.manual_seed(0)
    imported = driver.import_model(Twice().eval(), (torch.randn(1, 3, 8, 32),))
    target = choose_target("hetero:cpu,cpu:1")
    config = burnish.CompileConfig(placement={"*": "auto"})

    class Slower(Given):
        """The second device takes so many times the first."""

        def times(self, operators: Any, target: Any) -> Any:
            self.second = not getattr(self, "second", True)
            seconds = 1e-3 * (times if self.second else 1.0)
            return {op.signature: OperatorTime(seconds, seconds, 0.1) for op in operators}, []

    decided = ByCost(target, config, imported, costs=Slower(tmp_path), links=links)
    timing = {
        name: summarize([[value] * 5] * 5) for name, value in {"before": 1.0, "after": 2.0}.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Variants, "time", lambda *_: timing)
        found = decided(optimized.graph)
    assert set(decided.choice.best.assignment.values()) == {"cpu"}
    assert set(found.placement.values()) == {"cpu:1" if held else "cpu"}
    assert decided.measured == ({"all on cpu:1": 1.0, "all on cpu": 2.0} if held else {})
