"""Operators of a model, their times kept and estimated, and the placement that follows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import tvm

import burnish
from burnish.compiler import driver
from burnish.compiler.errors import ConfigError
from burnish.compiler.gate import Variants
from burnish.compiler.measure.timing import summarize
from burnish.compiler.optimizer import lowered
from burnish.compiler.pipeline import graph_phases
from burnish.compiler.placement import operator_runner
from burnish.compiler.placement.by_cost import ByCost
from burnish.compiler.placement.costs import CostModel, OperatorTime
from burnish.compiler.placement.groups import group_key, group_module, groups_of
from burnish.compiler.placement.latency import predict_latency
from burnish.compiler.placement.links import SIZES, fitted, measured_links
from burnish.compiler.placement.model_problem import model_problem
from burnish.compiler.placement.nearby import estimated
from burnish.compiler.placement.operators import operators_of
from burnish.compiler.placement.overheads import (
    call_seconds,
    dispatch_seconds,
    start_seconds,
    turn_seconds,
)
from burnish.compiler.placement.problem import Link
from burnish.compiler.placement.queues import Step, beside_host, queued_seconds, steps_in_order
from burnish.compiler.placement.side_by_side import OrderedRegion, regions_in_order, schedule
from burnish.targets.choose import choose_target
from burnish.targets.hetero import HeteroTarget


class Twice(torch.nn.Module):
    """Two equal layers and one of its own, a residual, a convolution before them."""

    def __init__(self) -> None:
        super().__init__()
        self.image = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.same = torch.nn.ModuleList(torch.nn.Linear(32, 32) for _ in range(2))
        self.last = torch.nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.image(x)).mean((2,))
        y = y.reshape(1, 8, 4, 8).reshape(1, 8, 32)
        for layer in self.same:
            y = y + torch.relu(layer(y))
        return self.last(y)


@pytest.fixture(scope="module")
def optimized() -> Any:
    torch.manual_seed(0)
    return driver.optimize(driver.import_model(Twice().eval(), (torch.randn(1, 3, 8, 32),)), "cpu")


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
    import tvm
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


class Given(CostModel):
    """Times by a rule: cheap on ``cpu``, half of it elsewhere for products."""

    def start_seconds(self) -> float:
        return 0.0

    def measure(self, operators: Any, target: Any, **_: Any) -> int:
        return 0

    def times(self, operators: Any, target: Any) -> Any:
        rate = {"cpu": 1.0, "opencl": 0.5}[target.kind]
        made = {
            op.signature: OperatorTime(
                *(2 * [1e-3 * (rate if op.record().flops else 2 - rate)]), error=0.1
            )
            for op in operators
        }
        return made, []


def _links(target: HeteroTarget) -> tuple[Link, ...]:
    first, second = (place.name for place in target.places)
    return (Link(first, second, 1e-5, 1e10), Link(second, first, 1e-5, 1e10))


def test_the_problem_of_a_model(optimized, tmp_path):
    target = choose_target("hetero:cpu,opencl:0")
    config = burnish.CompileConfig(placement={"nn.conv2d": "cpu"}, memory={"cpu": "1 KiB"})
    made = model_problem(optimized.graph, target, config, Given(tmp_path), links=_links)
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


class Sides(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = torch.nn.Linear(6, 4), torch.nn.Linear(6, 4)

    def forward(self, x):
        return torch.relu(self.left(x)) + torch.tanh(self.right(x))


def test_branches_are_put_on_cores_that_work_at_the_same_time(tmp_path):
    target = choose_target("hetero:cpu@0,cpu@1")
    config = burnish.CompileConfig(placement={"*": "auto"}, do_no_harm=False)
    imported = burnish.import_model(Sides().eval(), (torch.randn(2, 6),))
    decide = ByCost(target, config, imported, costs=Given(tmp_path), links=_links)
    assert set(decide(imported.mod).placement.values()) == {"cpu@0", "cpu@1"}
    best = decide.choice.best.prediction
    assert best.overlap
    alone = [r.placement.seconds for r in decide.choice.rows if r.algorithm.startswith("all on")]
    assert best.seconds < 0.8 * min(alone)


def test_latency_of_cores_is_of_the_longest_way_through_them(monkeypatch, tmp_path):
    for name, seconds in (("start", 1e-5), ("dispatch", 1e-6), ("turn", 1e-4)):
        monkeypatch.setattr(
            f"burnish.compiler.placement.latency.{name}_seconds", lambda *_, s=seconds, **__: s
        )
    imported = burnish.import_model(Sides().eval(), (torch.randn(2, 6),))
    # A product of each side on one core, what follows it on the other, the sum on the first.
    placement = {"relu": "cpu@1", "tanh": "cpu@1", "*": "cpu@0"}
    optimized = burnish.optimize(imported, "hetero:cpu@0,cpu@1", placement=placement)
    reads = [region.reads for region in regions_in_order(optimized.mod)]
    assert reads == [(), ("region0",), (), ("region2",), ("region1", "region3")]
    found = predict_latency(optimized, Given(tmp_path))
    assert found.devices == pytest.approx({"cpu@0": 3e-3, "cpu@1": 2e-3})
    kernels, turns = 4, 2  # product, relu, tanh, sum: the second product runs beside the relu
    assert found.elapsed == pytest.approx(kernels * (1e-3 + 1e-6) + turns * 1e-4)
    assert found.seconds == pytest.approx(found.elapsed + 1e-5)


@pytest.mark.parametrize("beside", [True, False], ids=["a GPU", "the host's own cores"])
def test_latency_of_a_queue_is_what_the_host_waits_for(beside, monkeypatch, tmp_path):
    for name, seconds in (("call", 1e-5), ("dispatch", 1e-6)):
        monkeypatch.setattr(
            f"burnish.compiler.placement.latency.{name}_seconds", lambda *_, s=seconds, **__: s
        )
    monkeypatch.setattr(
        "burnish.compiler.placement.latency.beside_host",
        lambda _: frozenset(("opencl:0",) if beside else ()),
    )

    class Long(Sides):
        def forward(self, x):
            return torch.relu(self.left(x)) + torch.sinh(torch.softmax(self.right(x), 1))

    imported = burnish.import_model(Long().eval(), (torch.randn(2, 6),))
    placement = {"matmul": "cpu", "softmax": "opencl:0", "sinh": "opencl:0", "*": "cpu"}
    optimized = burnish.optimize(imported, "hetero:cpu,opencl:0", placement=placement)
    steps = steps_in_order(optimized.mod, lambda name: {"cpu": "cpu:0"}.get(name, name))
    went = [step.memory + (f">{step.target}" if step.target else "") for step in steps]
    # The device's side first; the host's other product before it waits.
    assert went == ["cpu:0", "cpu:0>opencl:0", "opencl:0", "cpu:0", "opencl:0>cpu:0", "cpu:0"]
    found = predict_latency(optimized, Given(tmp_path), links=_links)
    kernels = sum(count for _, count in operators_of(optimized.mod).calls)
    moves = 2 * (1e-5 + 4 * 8 / 1e10)
    assert found.transfers == pytest.approx(moves)
    in_turns = sum(found.devices.values()) + moves + kernels * 1e-6
    there = found.devices["opencl:0"]
    assert there >= 1e-3
    hidden = min(there + moves / 2, 1e-3) if beside else 0.0
    assert found.seconds == pytest.approx(in_turns - hidden + 1e-5, rel=5e-3)


def test_a_queue_takes_its_turn_and_the_host_waits_where_it_reads():
    cost = {"a": 5.0, "b": 2.0, "c": 1.0, "d": 1.0}

    def ends(steps, beside=("opencl:0", "cuda:0")):
        taken = lambda step: cost.get(step.region, 0.5)  # noqa: E731
        return queued_seconds([Step(**one) for one in steps], beside, taken, lambda _: 0.25)

    to, fro = (
        {"memory": "cpu:0", "target": "opencl:0", "bytes": 1},
        {"memory": "opencl:0", "target": "cpu:0", "bytes": 1},
    )
    there, here = {"memory": "opencl:0", "region": "a"}, {"memory": "cpu:0", "region": "b"}
    last = {"memory": "cpu:0", "region": "c"}
    assert ends([to, there]) == 5.5
    assert ends([to, there, here, fro, last]) == 5.5 + 0.5 + 1.25
    assert ends([to, there, here, fro, last], beside=()) == 0.5 + 5.25 + 2.25 + 0.5 + 1.25
    assert ends([here, to, there]) == 2.25 + 0.5 + 5.0
    assert ends([to, there, to, fro]) == 0.5 + 5.0 + 0.5 + 0.5, "a copy waits for its turn"
    cuda = {"memory": "cuda:0", "region": "a"}
    back = {"memory": "cpu:0", "target": "cuda:0", "bytes": 1}
    assert ends([cuda, back, here]) == 5.0 + 0.5 + 2.25, "the host waits for a copy to CUDA"


def test_regions_wait_for_their_device_and_a_turn_for_others():
    def region(name: str, device: str, *reads: str, after: tuple[str, ...] = ()) -> Any:
        return OrderedRegion(tvm.ir.GlobalVar(name), device, reads, after)

    order = [
        region("a", "one"),
        region("b", "two"),
        region("c", "one", "a"),
        region("d", "two", "a", "b"),
    ]
    seconds = {"a": 1.0, "b": 4.0, "c": 2.0, "d": 1.0, "e": 1.0}
    assert schedule(order, seconds, 0.5) == 5.0
    assert schedule([*order, region("e", "one", "c", "d")], seconds, 0.5) == 6.5
    assert schedule([*order, region("e", "one", after=("d",))], seconds, 0.5) == 6.5
    assert schedule(order[:3], {**seconds, "b": 0.0}, 0.5) == 3.0
    assert schedule([], {}, 0.5) == 0.0


def test_a_turn_is_what_each_more_region_of_a_chain_takes(tmp_path, monkeypatch):
    asked = []

    def timing(net, given, target, placement, _dynamic):
        asked.append((target, placement))
        return summarize([[7.0 + 0.25 * net.count] * 5] * 5)

    monkeypatch.setattr("burnish.compiler.placement.overheads._call_timing", timing)
    monkeypatch.setattr("burnish.compiler.placement.overheads.usable", lambda: {3, 1, 7})
    assert turn_seconds(cache_dir=tmp_path) == pytest.approx(0.25e-3)
    assert turn_seconds(cache_dir=tmp_path) == pytest.approx(0.25e-3)
    assert asked == [("hetero:cpu@1,cpu@3", {"nn.relu": "cpu@1", "tanh": "cpu@3"})] * 2
    monkeypatch.setattr("burnish.compiler.placement.links.turn_seconds", lambda: 0.125)
    found = measured_links(choose_target("hetero:cpu@4,cpu@0+2"))
    assert [one.latency_seconds for one in found] == [0.125, 0.125]
    monkeypatch.setattr("burnish.compiler.placement.overheads.usable", lambda: {0})
    with pytest.raises(ConfigError, match=r"measured on 2 of them, and this process may run on"):
        turn_seconds(cache_dir=tmp_path)


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


def test_a_call_of_regions_on_cores_has_one_start_more_than_its_turns(tmp_path, monkeypatch):
    asked = []

    def timing(net, given, target, placement, _dynamic):
        asked.append(target)
        if hasattr(net, "count"):
            return summarize([[7.0 + 0.25 * net.count] * 5] * 5)
        return summarize([[1.0 + 0.5 * len(given)] * 5] * 5)

    monkeypatch.setattr("burnish.compiler.placement.overheads._call_timing", timing)
    monkeypatch.setattr("burnish.compiler.placement.overheads.usable", lambda: {3, 1})
    alone = call_seconds("hetero:cpu@1", 2, cache_dir=tmp_path)
    assert alone == pytest.approx(1.5e-3)
    assert start_seconds(2, cache_dir=tmp_path) == pytest.approx(7.25e-3)
    assert start_seconds(4, cache_dir=tmp_path) == pytest.approx(7.75e-3)
    assert asked == ["hetero:cpu@1"] * 2 + ["hetero:cpu@1,cpu@3"] * 2


def test_the_start_of_a_kernel_is_what_a_virtual_machine_takes_more_than_a_record(
    tmp_path, monkeypatch
):
    recorded = []

    def timing(net, given, target, placement, _dynamic):
        made = burnish.compile(net.eval(), tuple(given), target=target, cache=False)
        recorded.append(made._to_record)
        each = 0.25 if made._to_record else 1.0
        return summarize([[7.0 + each * len(net.layers)] * 5] * 5)

    monkeypatch.setattr("burnish.compiler.placement.overheads._call_timing", timing)
    assert dispatch_seconds(cache_dir=tmp_path) == pytest.approx(0.75e-3)
    assert recorded == [True, True, False, False]


@pytest.mark.heavy
def test_a_turn_is_measured(tmp_path):
    assert 1e-7 < turn_seconds(cache_dir=tmp_path) < 0.1


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

    decided = ByCost(target, config, imported, costs=Halves(tmp_path), links=_links)
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

    decided = ByCost(target, config, imported, costs=Slower(tmp_path), links=_links)
    timing = {
        name: summarize([[value] * 5] * 5) for name, value in {"before": 1.0, "after": 2.0}.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Variants, "time", lambda *_: timing)
        found = decided(optimized.graph)
    assert set(decided.choice.best.assignment.values()) == {"cpu"}
    assert set(found.placement.values()) == {"cpu:1" if held else "cpu"}
    assert decided.measured == ({"all on cpu:1": 1.0, "all on cpu": 2.0} if held else {})


def test_predicted_latency_is_the_sum_of_its_parts(optimized, tmp_path, monkeypatch):
    monkeypatch.setattr("burnish.compiler.placement.latency.call_seconds", lambda *_, **__: 1e-6)
    found = predict_latency(optimized, Given(tmp_path))
    calls = sum(count for _, count in operators_of(optimized.mod).calls)
    assert found.seconds == pytest.approx(1e-3 * calls + 1e-6)
    assert found.error == pytest.approx(
        1e-4 * np.sqrt(sum(c**2 for _, c in operators_of(optimized.mod).calls))
    )


@pytest.mark.parametrize("arrays", [False, True])
def test_calls_cost_what_they_do_of_such_inputs(optimized, tmp_path, monkeypatch, arrays):
    asked = {}
    monkeypatch.setattr(
        "burnish.compiler.placement.latency.call_seconds", lambda *_, **how: asked.update(how) or 0
    )
    given = tuple(optimized.source.example_inputs)
    if arrays:
        given = tuple(np.asarray(one) for one in given)
    source = dataclasses.replace(optimized.source, example_inputs=given)
    predict_latency(dataclasses.replace(optimized, source=source), Given(tmp_path))
    assert asked == {"recorded": True, "arrays": arrays}


def test_what_is_all_on_one_set_of_cores_costs_no_start(tmp_path, monkeypatch):
    asked = []
    where = "burnish.compiler.placement.latency."
    monkeypatch.setattr(where + "call_seconds", lambda target, *_, **__: asked.append(target) or 0)
    monkeypatch.setattr(where + "start_seconds", lambda *_, **__: 0.5)
    monkeypatch.setattr(where + "turn_seconds", lambda: 0.25)
    monkeypatch.setattr(where + "dispatch_seconds", lambda: 0.0)
    imported = driver.import_model(Twice().eval(), (torch.randn(1, 3, 8, 32),))
    for placement, beside in (({"*": "cpu@1"}, 0.0), ({"conv2d": "cpu@1"}, 0.75)):
        config = burnish.CompileConfig(placement=placement)
        cut = driver.optimize(imported, "hetero:cpu@0,cpu@1", config=config)
        calls = sum(count for _, count in operators_of(cut.mod).calls)
        found = predict_latency(cut, Given(tmp_path))
        assert found.seconds == pytest.approx(1e-3 * calls + beside)
    assert asked == ["hetero:cpu@1"]


def test_branches_are_started_by_the_virtual_machine_which_costs_more(tmp_path, monkeypatch):
    class Branch(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda y: y @ y, lambda y: y + 1, (x,))

    monkeypatch.setattr("burnish.compiler.placement.latency.call_seconds", lambda *_, **__: 0.0)
    monkeypatch.setattr("burnish.compiler.placement.latency.dispatch_seconds", lambda: 1e-6)
    branch = driver.optimize(driver.import_model(Branch(), (torch.ones(8, 8),)), "cpu")
    found = predict_latency(branch, Given(tmp_path))
    assert found.seconds == pytest.approx(3 * (1e-3 + 1e-6))
    assert found.error == pytest.approx(1e-4 * np.sqrt(2.5)), "equal sides are no doubt"


@pytest.mark.parametrize("memory", [{"cpu": "much"}, {"cpu": -1}, {"cpu": True}, "2 GB"])
def test_memory_that_is_no_size_is_refused(memory):
    with pytest.raises(ConfigError, match="memory"):
        burnish.CompileConfig(memory=memory)


@pytest.mark.parametrize("target", ["cpu", "hetero:cpu,cpu:1"])
def test_memory_of_a_device_that_is_not_there_is_refused(target):
    with pytest.raises(ConfigError, match="'gpu', which is no device of the target"):
        burnish.compile(torch.nn.ReLU(), (torch.ones(1),), target=target, memory={"gpu": 1})


def test_sizes_are_read():
    found = burnish.CompileConfig(memory={"a": "2 GB", "b": "1.5MiB", "c": 7, "d": "10 kB"}).memory
    assert found == {"a": 2_000_000_000, "b": 1_572_864, "c": 7, "d": 10_000}


def test_only_what_has_cores_of_its_own_works_beside_the_host(monkeypatch):
    kinds = [SimpleNamespace(kind="cpu"), SimpleNamespace(kind="gpu")]
    monkeypatch.setattr("burnish.targets.opencl.runtime.devices", lambda: kinds)
    target = choose_target("hetero:cpu,opencl:0,opencl:1,cuda:sm_90:0,cpu:1")
    assert beside_host(target) == {"opencl:1", "cuda:0"}
