"""Do no harm: what is kept, what is undone, and what is said about it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import tvm
from small_nets import Mlp, made

import burnish
from burnish.compiler.config import CompileConfig, PruneConfig, QuantizeConfig
from burnish.compiler.gate import Gate, Variants
from burnish.compiler.measure.timing import Timing, summarize
from burnish.passes.params import get_params, with_params
from burnish.targets.target import host

X = torch.randn(2, 20, generator=torch.Generator().manual_seed(1))


def timing(ms: float) -> Timing:
    return summarize([[ms * (1 + 0.001 * i) for i in range(5)] for _ in range(5)])


class Stand:
    """Stands for the measuring: what each variant takes, in milliseconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.after = 1.0
        self.pairs = 0
        monkeypatch.setattr(Variants, "time", self._time)

    def _time(self, _old: Any, _new: Any) -> dict[str, Timing]:
        self.pairs += 1
        return {"before": timing(1.0), "after": timing(self.after)}


@pytest.fixture
def stand(monkeypatch) -> Stand:
    return Stand(monkeypatch)


@pytest.fixture(scope="module")
def imported():
    return burnish.import_model(made(Mlp), (X,))


def rows(optimized) -> dict[str, Any]:
    return {row.name: row for row in optimized.report.rows}


def quantized(optimized) -> bool:
    return any(name.endswith(".scale") for name in get_params(optimized.graph))


def test_a_pass_that_makes_the_model_slower_is_undone(imported, stand):
    stand.after = 1.5
    optimized = burnish.optimize(imported, quantize="int8")
    row = rows(optimized)["QuantizeWeights"]
    assert row.status == "undone"
    assert row.note == "1.50 times as slow as without it"
    assert row.after.ms > row.before.ms > 0
    assert row.after.bytes < row.before.bytes
    assert not quantized(optimized)
    torch.testing.assert_close(burnish.build(optimized)(X), made(Mlp)(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("after", [0.7, 1.0, 1.015])
def test_a_pass_that_is_faster_or_within_the_noise_is_kept(imported, stand, after):
    stand.after = after
    optimized = burnish.optimize(imported, quantize="int8")
    row = rows(optimized)["QuantizeWeights"]
    assert (row.status, row.note) == ("applied", "")
    assert quantized(optimized)
    assert 0 < row.after.error["rel"] < 0.05
    assert row.after.error["cosine"] > 0.999


def test_pruning_promises_size_and_is_kept(imported, stand):
    stand.after = 2.0
    optimized = burnish.optimize(imported, prune=0.5)
    row = rows(optimized)["PruneWeights"]
    assert (row.status, row.note) == ("size only", "promises size only")
    assert (get_params(optimized.graph)["0.weight"].numpy() == 0).mean() > 0.4


def test_without_do_no_harm_nothing_is_measured(imported, stand):
    stand.after = 9.0
    optimized = burnish.optimize(imported, quantize="int8", do_no_harm=False)
    row = rows(optimized)["QuantizeWeights"]
    assert (row.status, row.after.ms, row.after.error) == ("applied", None, None)
    assert stand.pairs == 0
    assert quantized(optimized)


def test_without_weight_passes_nothing_is_measured(imported, stand):
    optimized = burnish.optimize(imported)
    assert stand.pairs == 0
    assert all(row.after.ms is None for row in optimized.report.rows)


# -- accuracy ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("last", "kept"), [(0.80, False), (0.895, True), (0.95, True)])
def test_a_quantization_that_costs_too_much_accuracy_is_undone(imported, stand, last, kept):
    values: dict[bool, float] = {True: last, False: 0.90}

    def evaluate(model) -> float:
        return values[any(name.endswith(".scale") for name in model.params)]

    optimized = burnish.optimize(
        imported, quantize=QuantizeConfig(bits=4, max_drop=0.01), evaluate=evaluate
    )
    row = rows(optimized)["QuantizeWeights"]
    assert (row.before.accuracy, row.after.accuracy) == (0.90, last)
    assert row.status == ("applied" if kept else "undone")
    assert quantized(optimized) == kept
    if not kept:
        assert row.note == "accuracy fell by 0.1, the limit is 0.01"


def test_without_a_limit_accuracy_is_only_reported(imported, stand):
    optimized = burnish.optimize(
        imported, quantize="int4", prune=PruneConfig(sparsity=0.3), evaluate=lambda model: 0.5
    )
    assert rows(optimized)["PruneWeights"].after.accuracy == 0.5
    assert rows(optimized)["QuantizeWeights"].status == "applied"


def test_an_evaluation_that_fails_stops_the_compilation(imported, stand):
    def evaluate(model) -> float:
        raise RuntimeError("no data here")

    with pytest.raises(RuntimeError, match="no data here"):
        burnish.optimize(imported, quantize="int8", evaluate=evaluate)


# -- passes of the user's own --------------------------------------------------------------------


@tvm.transform.module_pass(opt_level=0, name="Halve")
class Halve:
    """Halves every weight: another model."""

    def transform_module(self, mod, _ctx):
        return with_params(mod, {k: v.numpy() / 2 for k, v in get_params(mod).items()})


@pytest.mark.parametrize(("after", "status"), [(1.5, "undone"), (0.5, "applied")])
def test_a_pass_of_the_users_own_is_judged_too(imported, stand, after, status):
    stand.after = after
    optimized = burnish.optimize(imported, passes=[(Halve(), "clean")])
    row = rows(optimized)["Halve"]
    assert row.status == status
    assert row.after.error["rel"] > 0.1
    want = get_params(imported.mod)["0.weight"].numpy() / (1 if status == "undone" else 2)
    assert (get_params(optimized.graph)["0.weight"].numpy() == want).all()


def test_what_the_gate_built_is_cleaned_up(imported, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Gate(imported, host(), CompileConfig(quantize="int8")) as gate:
        assert gate.active
        assert len(list(tmp_path.glob("burnish-gate-*"))) == 1
    assert list(tmp_path.glob("burnish-gate-*")) == []


@pytest.mark.usefixtures("short_timings")
def test_the_measuring_itself(imported):
    """With real timings: whatever they say, rows and result agree."""
    optimized = burnish.optimize(imported, quantize="int8")
    row = rows(optimized)["QuantizeWeights"]
    assert row.before.ms > 0
    assert row.after.ms > 0
    assert quantized(optimized) == (row.status == "applied")


def test_pruning_reports_every_mask(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4)).eval()
    compiled = burnish.compile(net, (torch.randn(1, 16),), prune=0.5, do_no_harm=False)
    found = burnish.load(compiled.save(tmp_path / "m.burnish"))
    for report in (compiled.report, found.report):
        row = next(row for row in report.rows if row.name == "PruneWeights")
        masks = {mask["name"]: mask for mask in row.details["rows"]}
        assert list(masks) == ["0.weight", "2.weight"]
        assert masks["0.weight"]["shape"] == [8, 16]
        assert masks["0.weight"]["zeros"] == 64
