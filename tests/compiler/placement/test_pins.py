"""Names beside "auto": what is kept where the user put it, what costs choose, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_nets import Mlp, made

import burnish
from burnish.cli.placement import show_candidates
from burnish.compiler.errors import ConfigError, TargetError
from burnish.compiler.placed import seconds_of
from burnish.compiler.placement.by_cost import ByCost
from burnish.compiler.placement.costs import CostModel, OperatorTime
from burnish.compiler.placement.errors import NoDeviceError
from burnish.compiler.placement.problem import Link
from burnish.compiler.waterfall import Reading, Report, Row
from burnish.passes import backends
from burnish.passes.graph import op_name
from burnish.passes.place import nodes
from burnish.targets import hetero
from burnish.targets.choose import choose_target
from burnish.targets.hetero import HeteroTarget

TARGET = "hetero:cpu,cpu:1"


class Slower(CostModel):
    """Times that need no clock: the first device asked takes half of the second's."""

    asked = 0

    def measure(self, operators: Any, target: Any, **_: Any) -> int:
        return 0

    def times(self, operators: Any, target: Any) -> Any:
        self.asked += 1
        time = OperatorTime(1e-3 * self.asked, 1e-3 * self.asked, 0.1)
        return {one.signature: time for one in operators}, []


def links(target: HeteroTarget) -> tuple[Link, ...]:
    first, second = ([place.name for place in target.places] * 2)[:2]
    if first == second:
        first, second = "cpu:0", first
    return (Link(first, second, 1e-6, 1e12), Link(second, first, 1e-6, 1e12))


def decided(placement: dict[str, str], net: Any = None, target: str = TARGET) -> dict[str, str]:
    """Operator and name -> device."""
    config = burnish.CompileConfig(placement=placement, do_no_harm=False)
    imported = burnish.import_model(net or made(Mlp), (torch.randn(2, 20),))
    decide = ByCost(choose_target(target), config, imported, costs=Slower(), links=links)
    found = decide(imported.mod).placement
    return {f"{one.operator} {one.name}": found[one.name] for one in nodes(imported.mod)}


@pytest.mark.parametrize("name", ["tanh", "*tanh*"])
def test_one_operator_is_kept_where_it_was_put_and_no_other(name):
    found = decided({"*": "auto", name: "cpu:1"})
    assert {device for key, device in found.items() if "tanh" in key} == {"cpu:1"}
    assert {device for key, device in found.items() if "tanh" not in key} == {"cpu"}


def test_a_part_of_the_model_is_kept():
    net = torch.nn.ModuleDict({"head": torch.nn.Linear(20, 4), "tail": torch.nn.Linear(4, 3)})
    net.forward = lambda x: torch.relu(net["tail"](torch.tanh(net["head"](x))))
    kept = torch.nn.Sequential()
    kept.add_module("net", net.eval())
    found = decided({"*": "auto", "net.tail.*": "cpu:1"}, kept.eval())
    products = [device for key, device in found.items() if "matmul" in key]
    assert products == ["cpu", "cpu:1"]


def test_operators_that_costs_choose_beside_others_that_are_named():
    found = decided({"matmul": "auto", "*": "cpu:1"})
    for key, device in found.items():
        assert device == ("cpu" if "matmul" in key else "cpu:1")


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        ({"*": "auto", "lv99": "cpu"}, "'lv99' names nothing in the model"),
        ({"*": "auto", "matmul": "gpu"}, "no device 'gpu' in the target"),
        ({"*": "Auto"}, "did you mean 'auto'"),
    ],
)
def test_names_that_cannot_be_are_refused_before_anything_is_timed(placement, message):
    with pytest.raises(ConfigError, match=message):
        decided(placement)


class Wide(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x.double())


def test_a_name_of_a_device_that_cannot_and_no_device_that_can():
    wide = Wide().eval()
    with pytest.raises(
        ConfigError, match=r"tanh, on opencl:0 .by 'tanh'.: float64 is not of every"
    ):
        decided({"*": "auto", "tanh": "opencl:0"}, wide, "hetero:opencl:0,cpu")
    with pytest.raises(NoDeviceError, match="cpu:0: the target does not name it"):
        decided({"*": "auto"}, wide, "hetero:opencl:0")


class Npu:
    """Takes tanh, for the seconds that it is told to say."""

    memory = "cpu"

    def __init__(self, name: str, says: object) -> None:
        self.name, self.says = name, says

    def why_not(self, call):
        return "" if op_name(call) == "relax.tanh" else "it knows tanh alone"

    def why_not_region(self, region):
        return ""

    def seconds(self, region):
        return self.says

    def compile(self, region, weights, name):
        raise AssertionError(name)


@pytest.mark.parametrize(("says", "device"), [(1e-9, "mine"), (1.0, "cpu"), (None, "cpu")])
def test_a_device_of_ones_own_is_chosen_by_what_it_says_that_it_takes(
    says, device, monkeypatch, capsys
):
    monkeypatch.setitem(backends.registered, "mine", Npu("mine", says))
    monkeypatch.setitem(hetero.external, "mine", "cpu")
    imported = burnish.import_model(made(Mlp), (torch.randn(2, 20),))
    # Alone in its group: a device that takes tanh alone takes no group with a product.
    config = burnish.CompileConfig(placement={"*": "cpu", "tanh": "auto"}, do_no_harm=False)
    target = choose_target("hetero:mine,cpu")
    decide = ByCost(target, config, imported, costs=Slower(), links=links)
    placement = decide(imported.mod).placement
    tanh = next(one for one in nodes(imported.mod) if "tanh" in one.operator)
    assert placement[tanh.name] == device
    rows = decide.told([Row("PartitionGraph", "partition", 0, Reading(), Reading())])
    show_candidates(Report(tuple(rows)))
    assert ("mine: no cost is known: never chosen" in capsys.readouterr().out) == (says is None)


@pytest.mark.parametrize("says", [-1.0, float("nan"), "fast", True])
def test_a_cost_that_is_none_is_refused(says, monkeypatch):
    monkeypatch.setitem(backends.registered, "odd", Npu("odd", says))
    place = hetero.Place("odd", choose_target("cpu"), backend="odd")
    with pytest.raises(ConfigError, match=r"'odd' says that a region takes .*: its method seconds"):
        seconds_of(place, None)


def test_open_sizes_are_told_by_name_before_anything_is_timed():
    imported = burnish.import_model(
        made(Mlp), (torch.randn(2, 20),), dynamic={"input": {0: "rows"}}
    )
    with pytest.raises(ConfigError, match=r"open sizes rows, .* compile it without dynamic sizes"):
        burnish.optimize(imported, TARGET, placement="auto")


@pytest.mark.parametrize("target", ["hetero:opencl:9,cpu", "hetero:cpu@0,cpu@4000"])
def test_devices_that_are_not_here_are_not_timed(target):
    with pytest.raises(TargetError, match=r"no device .*: compile on a machine that has them"):
        burnish.compile(made(Mlp), (torch.randn(2, 20),), target=target, placement="auto")


def test_limits_of_memory_are_for_costs_to_keep():
    with pytest.raises(ConfigError, match="memory limits what a placement by cost may use"):
        burnish.compile(
            made(Mlp), (torch.randn(2, 20),), target=TARGET, placement={"*": "cpu"},
            memory={"cpu": "1 MB"},
        )  # fmt: skip
