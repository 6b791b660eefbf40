"""Chosen placements run with emulated devices and links: what was chosen is the best, and told.

Nothing waits here: times are those that are to be injected, added up, never the clock's.
"""

from __future__ import annotations

import importlib.util
import json
import os
from types import ModuleType
from typing import Any

import pytest
import torch

from burnish.compiler import driver
from burnish.compiler.parity import parity
from burnish.compiler.placement import exhaustive
from burnish.compiler.placement.choose import choose
from burnish.compiler.placement.problem import Link
from support import ROOT, require

RESULT = json.loads((ROOT / "benchmarks/results/emulated.json").read_text())
CORES = sorted(os.sched_getaffinity(0))[:2]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_emulated", ROOT / "benchmarks/emulated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Stack(torch.nn.Module):
    """A convolution, layers on its points, and a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(8, 16, 3, padding=1)
        self.up, self.down = torch.nn.Linear(16, 64), torch.nn.Linear(64, 8)

    def forward(self, x):
        y = torch.relu(self.conv(x)).flatten(2).transpose(1, 2)
        return torch.softmax(self.down(torch.relu(self.up(y))), -1)


class Branches(torch.nn.Module):
    """Two layers over the same input, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = torch.nn.Linear(32, 24), torch.nn.Linear(32, 24)

    def forward(self, x):
        return torch.relu(self.left(x)) * torch.tanh(self.right(x))


def made(net: Any, x: torch.Tensor, speeds: dict[str, tuple[float, ...]], **more: Any) -> Any:
    """A case of the benchmark, with links of 0.1 ms and 1 GB/s."""
    import emulated_problems
    from emulation import Speed

    torch.manual_seed(0)
    links = tuple(Link(a, b, 1e-4, 1e9) for a in speeds for b in speeds if a != b)
    devices = {name: Speed(*factors) for name, factors in speeds.items()}
    emulated = emulated_problems.Emulated(devices, links, **more)
    return emulated_problems.Case(0, net.__name__, net().eval(), (x,), emulated)


def run(benchmark: ModuleType, case: Any, assignments: list[dict[str, str]], model: Any) -> Any:
    """Each placement compiled and run: predicted seconds, and those that were injected."""
    imported = driver.import_model(case.net, case.inputs)
    found = []
    for assignment in assignments:
        compiled, row = benchmark.built(case, imported, model, assignment)
        emulated = benchmark.opened(compiled, row, model.problem, clock=False)
        inputs = [one.numpy() for one in case.inputs]
        for _ in range(2):
            out, _, injected = emulated(*inputs)
            out = out if hasattr(out, "numpy") else out[0]
            assert parity(torch.tensor(out.numpy()), case.net(*case.inputs)).rel <= 1e-5
        assert emulated.seen == set(row["kernels"])
        found.append((row["predicted_s"], injected))
    return found


def test_devices_that_take_turns_take_what_was_expected_and_the_chosen_takes_least(benchmark):
    speeds = {"cpu": (1.0, 1.0, 1.0), "cpu:1": (6.0, 0.1, 1.0), "cpu:2": (0.1, 8.0, 1.0)}
    case = made(Stack, torch.randn(1, 8, 16, 16), speeds, refused={"cpu:2": "softmax"})
    model = benchmark.problem_of(case, driver.import_model(case.net, case.inputs))
    best = choose(model.problem).best
    assert best.assignment == exhaustive.place(model.problem).assignment
    assert list(best.assignment.values()) == ["cpu:1", "cpu:2", "cpu"]
    assert "cpu:2" not in model.problem.nodes[-1].seconds
    names = list(best.assignment)
    others = [dict.fromkeys(names, "cpu"), dict(zip(names, ("cpu", "cpu:1", "cpu:1"), strict=True))]
    (_, least), *rest = found = run(benchmark, case, [dict(best.assignment), *others], model)
    assert all(injected > 1.1 * least for _, injected in rest)
    for predicted, injected in found:
        assert predicted <= injected <= 1.1 * predicted  # layouts at the border of a cut


def test_cores_work_at_the_same_time_and_wait_for_links(benchmark):
    require(len(CORES) == 2, "needs two cores")
    first, second = (f"cpu@{core}" for core in CORES)
    x = torch.randn(64, 32)
    case = made(Branches, x, {first: (1.0, 1.0, 1.0), second: (1.2, 1.0, 1.0)})
    model = benchmark.problem_of(case, driver.import_model(case.net, case.inputs))
    best = choose(model.problem, overlap=True).best
    assert best.seconds == exhaustive.place(model.problem, overlap=True).seconds
    assert set(best.assignment.values()) == {first, second}
    alone = dict.fromkeys(best.assignment, first)
    (predicted, injected), single = run(benchmark, case, [dict(best.assignment), alone], model)
    assert injected == pytest.approx(predicted, rel=1e-4)
    assert 0.85 * single[0] <= single[1] <= single[0]  # what joins the branches is fused there
    assert single[1] > 1.1 * injected


@pytest.mark.parametrize("number", [0, 17])
def test_a_problem_of_the_benchmark_gives_the_committed_expectation(benchmark, number):
    import emulated_problems

    committed = next(row for row in RESULT["rows"] if row["problem"] == number)
    case = emulated_problems.drawn(number)
    model = benchmark.problem_of(case, driver.import_model(case.net, case.inputs))
    best = choose(model.problem).best
    assert 1e3 * best.seconds == pytest.approx(committed["candidates"][0]["predicted_ms"])


def test_the_committed_result_is_of_its_rows_and_stands_in_the_page(benchmark):
    rows, equal = RESULT["rows"], 1 + RESULT["equal"]
    assert [row["problem"] for row in rows] == list(range(20))
    for row in rows:
        chosen, *others = (one["measured_ms"] for one in row["candidates"])
        assert len(others) >= 13
        assert row["best"] == all(chosen <= equal * other for other in others)
    best = sum(row["best"] for row in rows)
    assert best >= 17
    assert benchmark.table(rows) == (ROOT / "benchmarks/results/emulated.txt").read_text()
    assert f"measured best in {best} of 20" in (ROOT / "docs/placement.md").read_text()
