"""The benchmark on small models: times, failures, voids, interruption, going on. Times are only
checked for sanity."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import nn

from burnish.compiler.bench import Case, Options, bench
from burnish.compiler.bench import run as module
from burnish.compiler.bench.peaks import COMPILERS, Peaks
from burnish.compiler.bench.peers import OPSET, InductorRunner, OpenVinoRunner, Subject, find_peers
from burnish.compiler.bench.result import Row
from burnish.compiler.bench.work import Work
from burnish.compiler.errors import ConfigError, MeasureError
from burnish.compiler.measure import MeasureService
from burnish.compiler.measure.timing import summarize
from support import require, require_program

QUICK = Options(rounds=2, threads=2, budget_s=1.0, peak_seconds=0.01)
X = (torch.ones(4, 8),)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval(), X


def case(name="mlp", load=mlp):
    return Case(name, name, name, "other", load)


@pytest.fixture
def fixed_peaks(monkeypatch):
    peaks = Peaks(2, 200.0, None, None, 40.0)
    monkeypatch.setattr(module, "measure_peaks", lambda threads, s: replace(peaks, threads=threads))
    monkeypatch.setattr(module, "keep_peaks", lambda peaks: None)


@pytest.fixture
def stub_rows(fixed_peaks, monkeypatch):
    """Rows out of thin air; the names of the cases measured."""
    made = []

    def row(self, one):
        made.append(one.name)
        times = {"burnish": summarize([[1.0]]), "eager": summarize([[2.0]])}
        return Row(one.name, one.title, one.group, one.kind, Work(1, 1), times)

    monkeypatch.setattr(module._Run, "row", row)
    return made


def test_a_small_model_beside_two_peers():
    require(any(map(shutil.which, COMPILERS)), "no C compiler on PATH: install gcc")
    held, seen = [], []

    @contextmanager
    def quiet():
        held.append(True)
        yield

    def progress(done, total, eta, message):
        seen.append((done, total, message))

    found = bench(
        [case()], ["eager", "onnxruntime"], replace(QUICK, quiet=quiet), progress=progress
    )
    (row,) = found.rows
    assert not row.failures
    assert set(row.times) == set(row.errors) == {"burnish", "eager", "onnxruntime"}
    assert all(0 < timing.best <= timing.p50 for timing in row.times.values())
    assert row.errors["eager"] == 0
    assert row.errors["burnish"] < 1e-5
    assert row.work.flops == 2 * 4 * (8 * 16 + 16 * 4)
    assert 0 < found.limit_ms(row) <= row.times["burnish"].best
    assert found.complete
    assert found.machine["threads"] == found.peaks.threads == 2
    assert found.one.threads == 1
    assert len(held) == 1 + row.attempts
    assert [done for done, _, _ in seen] == list(range(7))
    assert seen[-1] == (6, 7, "mlp: timing")


def test_a_runtime_that_cannot_run_a_model_says_why_and_the_others_are_measured(fixed_peaks):
    class Strange(nn.Module):
        def forward(self, x):
            return torch.linalg.eigvals(x[:, :4]).abs()

    found = bench([case("strange", lambda: (Strange().eval(), X))], ["eager", "onnxruntime"], QUICK)
    (row,) = found.rows
    assert set(row.times) == {"eager"}
    assert set(row.failures) == {"burnish", "onnxruntime"}
    assert "linalg_eig" in row.failures["burnish"]
    assert row.failures["onnxruntime"].startswith("torch.onnx.export: ")


def test_a_runtime_that_computes_something_else_has_no_time(fixed_peaks):
    here = os.getpid()

    class Moody(nn.Module):
        def forward(self, x):
            return x if os.getpid() == here else -x

    found = bench([case("moody", lambda: (Moody().eval(), X))], ["eager"], QUICK)
    assert "from eager's, over max|eager|" in found.rows[0].failures["eager"]


def test_a_model_of_another_kind_is_refused(fixed_peaks):
    with pytest.raises(ConfigError, match="needs a torch model, for eager is a peer; got a str"):
        bench([case("text", lambda: ("net.onnx", X))], ["eager"], QUICK)


@pytest.mark.heavy
def test_torch_compile_and_openvino(fixed_peaks):
    require_program("g++")
    found = bench([case()], ["compile", "autotune", "openvino"], QUICK)
    assert not found.rows[0].failures
    assert set(found.rows[0].times) == {"burnish", "compile", "autotune", "openvino"}


def test_torch_compile_is_asked_to_freeze(tmp_path):
    packed = next(InductorRunner(mlp()[0], "max-autotune").packings(tmp_path, X))
    assert packed.mode == "max-autotune"
    assert packed.imports == ("torch._inductor.config",)


def test_a_model_is_exported_once(tmp_path, monkeypatch):
    calls = []
    export = torch.onnx.export
    monkeypatch.setattr(
        torch.onnx, "export", lambda *a, **k: calls.append(k["opset_version"]) or export(*a, **k)
    )
    subject = Subject(*mlp(), tmp_path)
    assert subject.onnx() == subject.onnx()
    assert calls == [OPSET]


class Disturbed:
    """A measuring service whose n-th attempt has so many void runtimes."""

    def __init__(self, *voids):
        self.voids, self.calls = list(voids), 0

    def take_turns(self, runners, inputs, **settings):
        void = self.voids[self.calls]
        self.calls += 1
        return {
            name: summarize([[1.2 if index < void else 1.0]], alone_ms=1.0)
            for index, name in enumerate(runners)
        }


@pytest.mark.parametrize(
    ("voids", "attempts", "kept"), [((0,), 1, 0), ((2, 0), 2, 0), ((2, 1, 2), 3, 1)]
)
def test_a_void_row_is_measured_again(voids, attempts, kept):
    run = module._Run(QUICK, 2, find_peers(["eager"]), module._Steps(1, None))
    service = Disturbed(*voids)
    _, void, made = run._timed(service, {"burnish": None, "eager": None}, X)
    assert (len(void), made, service.calls) == (kept, attempts, attempts)


def test_control_c_keeps_what_was_measured(stub_rows):
    def stop(result):
        if len(result.rows) == 2:
            raise KeyboardInterrupt

    found = bench([case(name) for name in "abc"], ["eager"], QUICK, on_row=stop)
    assert [row.name for row in found.rows] == ["a", "b"]
    assert not found.complete


def test_an_earlier_result_is_gone_on_with(stub_rows):
    saved = []
    first = bench([case("a")], ["eager"], QUICK, on_row=saved.append)
    assert first.complete
    second = bench([case("a"), case("b")], ["eager"], QUICK, resumed=first)
    assert stub_rows == ["a", "b"]
    assert [row.name for row in second.rows] == ["a", "b"]
    assert second.complete
    assert [len(result.rows) for result in saved] == [1]


def test_what_cannot_be_gone_on_with(stub_rows):
    first = bench([case("a")], ["eager"], QUICK)
    with pytest.raises(ConfigError, match="has the peers eager, not openvino"):
        bench([case("b")], ["openvino"], QUICK, resumed=first)
    with pytest.raises(ConfigError, match="was taken with 2 threads, not 1"):
        bench([case("b")], ["eager"], replace(QUICK, threads=1), resumed=first)


def test_bad_settings():
    with pytest.raises(ConfigError, match="nothing to measure: no model was given"):
        bench([], ["eager"])
    with pytest.raises(ConfigError, match="rounds is 0; it must be 1 or more"):
        Options(rounds=0)
    with pytest.raises(ConfigError, match=r"no peer 'openvin' \(near: openvino\)"):
        bench([case()], ["openvin"])


def test_a_peer_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "openvino_telemetry", None)
    with pytest.raises(MeasureError, match=r"openvino, a peer .*: install burnish\[bench\]"):
        OpenVinoRunner("net.onnx").prepare(1)


def test_openvino_sends_no_telemetry(tmp_path):
    subject = Subject(*mlp(), tmp_path)
    (peer,) = find_peers(["openvino"])
    with MeasureService(2) as service:
        service.open({"openvino": peer.runner(subject)}, X)
        assert service.outputs("openvino", X)[0].shape == (4, 4)
