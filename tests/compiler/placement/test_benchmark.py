"""The committed comparison of algorithms: what it says can be had again, and the page says it."""

from __future__ import annotations

import importlib.util
import json
from types import ModuleType

import pytest

from support import ROOT

RESULT = json.loads((ROOT / "benchmarks/results/placement.json").read_text())


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_placement", ROOT / "benchmarks/placement.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", [0, 75, 150])
def test_a_problem_of_the_comparison_gives_the_committed_figures(
    benchmark: ModuleType, seed: int
) -> None:
    committed = {(row["seed"], row["overlap"]): row for row in RESULT["rows"]}
    for row in benchmark.compared(seed):
        before = committed[seed, row["overlap"]]
        assert row["best_seconds"] == pytest.approx(before["best_seconds"], rel=1e-5)
        for name in ("greedy", "dp", "cut", "ilp", "learned"):
            for key in ("gap", "exact", "fault"):
                expected = before[name].get(key)
                if key == "gap" and expected is not None:
                    expected = pytest.approx(expected, rel=1e-3, abs=1e-6)
                assert row[name].get(key) == expected, (name, key)


def test_the_summary_is_that_of_the_rows_and_stands_in_the_page(benchmark: ModuleType) -> None:
    assert len({row["seed"] for row in RESULT["rows"]}) == RESULT["problems"] == 200
    for line, again in zip(RESULT["summary"], benchmark.summarized(RESULT["rows"]), strict=True):
        assert line.keys() == again.keys()
        for key, value in line.items():
            near = pytest.approx(again[key], rel=1e-4) if isinstance(value, float) else again[key]
            assert value == near, (key, line["algorithm"])
    assert benchmark.table(RESULT["summary"]) in (ROOT / "docs/placement.md").read_text()


def test_what_is_called_exact_is_the_best() -> None:
    for line in RESULT["summary"]:
        assert line["wrongly_called_exact"] == 0
        if line["algorithm"] == "ilp":
            assert line["optimal"] == line["called_exact"] == line["problems"]
