"""The latency of a model, from what its kernels, links, turns and calls take."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from placement_support import Given, Sides, Twice, links

import burnish
from burnish.compiler import driver
from burnish.compiler.placement.latency import predict_latency
from burnish.compiler.placement.operators import operators_of
from burnish.compiler.placement.queues import Step, beside_host, queued_seconds, steps_in_order
from burnish.compiler.placement.side_by_side import OrderedRegion, regions_in_order, schedule
from burnish.targets.choose import choose_target


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
    found = predict_latency(optimized, Given(tmp_path), links=links)
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


def test_only_what_has_cores_of_its_own_works_beside_the_host(monkeypatch):
    kinds = [SimpleNamespace(kind="cpu"), SimpleNamespace(kind="gpu")]
    monkeypatch.setattr("burnish.targets.opencl.runtime.devices", lambda: kinds)
    target = choose_target("hetero:cpu,opencl:0,opencl:1,cuda:sm_90:0,cpu:1")
    assert beside_host(target) == {"opencl:1", "cuda:0"}
