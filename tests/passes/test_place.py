"""Names of a placement: bindings, operators, parts of the model, globs, and what none fits."""

from __future__ import annotations

import pytest
import torch

from burnish.compiler.driver import import_model
from burnish.passes.place import assign, check_names, chosen_by, nodes


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
        self.out = torch.nn.Linear(8, 8)

    def forward(self, x):
        return self.out(torch.softmax(self.query(x) @ self.key(x).transpose(0, 1), -1) @ x)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleDict({"a": Block(), "b": Block()})

    def forward(self, x):
        return self.layers["b"](torch.relu(self.layers["a"](x)))


class Any:
    def why_not(self, call):
        return ""


class Nothing:
    def why_not(self, call):
        return "it is full"


@pytest.fixture(scope="module")
def found():
    return nodes(import_model(Net().eval(), (torch.zeros(8, 8),)).mod)


DEVICES = {"cpu": Any(), "npu": Any(), "full": Nothing()}


def test_operators_know_the_part_of_the_model_that_they_are_of(found):
    modules = {node.module for node in found}
    assert modules == {f"layers.{n}{m}" for n in "ab" for m in ("", ".query", ".key", ".out")} | {
        "layers"
    }
    assert [node.module for node in found if "softmax" in node.operator] == ["layers.a", "layers.b"]
    assert [node.module for node in found if "relu" in node.operator] == ["layers"]


def test_parts_go_before_globs_and_names_before_both(found):
    relu = next(node for node in found if "relu" in node.operator)
    placement = {"*": "cpu", "layers.a": "npu", "softmax": "cpu", relu.name: "npu"}
    assigned = assign(found, placement, DEVICES)
    for node in found:
        inside = node.module.startswith("layers.a") and "softmax" not in node.operator
        assert (assigned[node.name] == "npu") == (inside or node is relu), node
    inner = {"layers.a": "cpu", "layers.a.query": "npu"}
    query = next(node for node in found if node.module.endswith("a.query"))
    assert chosen_by(query, inner) == "layers.a.query"


@pytest.mark.parametrize("pattern", ["*.a.*", "layers.a.*", "*ers.a"])
def test_a_glob_with_a_dot_is_of_parts_and_all_that_is_in_them(found, pattern):
    assigned = assign(found, {pattern: "npu"}, DEVICES)
    for node in found:
        assert (assigned[node.name] == "npu") == node.module.startswith("layers.a"), node


def test_a_glob_without_a_dot_is_of_operators_alone(found):
    with pytest.raises(ValueError, match="'\\*layers\\*' names nothing in the model"):
        assign(found, {"*layers*": "npu"}, DEVICES)


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        ({"layers.c": "cpu"}, "'layers.c' names nothing in the model; near are .*layers.a"),
        ({"nn.*": "cpu", "*relu*": "npu"}, "'nn.*' stands before it, .*: put '.relu.' first"),
        ({"*": "gpu"}, "no device 'gpu' in the target"),
        ({"*": "Auto"}, "no device 'Auto' in the target .did you mean 'auto'"),
        ({"softmax": "full"}, "softmax, on full .by 'softmax'.: it is full; .* Name another"),
    ],
)
def test_what_a_placement_cannot_say(found, placement, message):
    with pytest.raises(ValueError, match=message):
        check_names(found, placement, DEVICES)


def test_costs_may_be_left_to_choose(found):
    check_names(found, {"*": "auto", "layers.a": "npu"}, DEVICES)
