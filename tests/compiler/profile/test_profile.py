"""Profiles of small networks: what is called, in order; never how fast."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from rich.console import Console
from small_nets import Block, Classifier, Mlp, made
from torch import nn

import burnish
from burnish.compiler.bench.peaks import Peaks
from burnish.compiler.errors import ConfigError, MeasureError, TargetError
from burnish.compiler.profile.recorder import Recorder
from burnish.compiler.profile.run import _middle_half
from burnish.compiler.profile.table import WIDTH, print_profile
from burnish.compiler.report.files import finite
from opencl_support import require_device

PEAKS = Peaks(2, 200.0, None, None, 40.0)


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    """A loaded artifact, its compiled model and its profile."""
    compiled = burnish.compile(made(Classifier), (torch.randn(1, 3, 16, 16),))
    path = compiled.save(tmp_path_factory.mktemp("net") / "net.burnish")
    loaded = burnish.load(path)
    found = burnish.profile(
        loaded, (np.ones((1, 3, 16, 16), np.float32),), name="net", rounds=1, peaks=PEAKS
    )
    return compiled, loaded, found


def test_records_live_in_the_artifact(taken):
    compiled, loaded, _ = taken
    assert loaded.kernels == compiled.kernels
    assert {kernel.rule for kernel in loaded.kernels.values()} >= {"tiles", "maps"}


def test_calls_come_in_order_with_their_modules(taken):
    _, _, found = taken
    convolutions = [line for line in found.calls if "conv2d" in line.operators]
    assert [line.path for line in convolutions] == [("body", "0"), ("body", "7")]
    assert convolutions[0].weights[0] == "body.0.weight"
    assert found.calls[-1].path == ("head",)
    assert found.calls[-1].shapes[0] == (1, 24)
    assert all(line.ms > 0 and line.best_ms <= line.ms for line in found.calls)
    assert found.runs >= 1
    assert found.io_bytes == taken[1].params_bytes + 4 * 3 * 16 * 16 + 4 * 10


def test_profile_as_json(taken):
    _, _, found = taken
    data = json.loads(json.dumps(finite(found.to_dict()), allow_nan=False))
    assert data["schema"] == "burnish.profile/1"
    shares = sum(line["share"] for line in data["calls"])
    assert shares + data["between_ms"] / found.total_ms == pytest.approx(1)
    assert data["kernels"][0]["work"]["flops"] >= 0


def test_symbolic_sizes_and_merged_calls():
    block = made(Block)
    dynamic = {"tokens": {0: "batch", 1: "n"}, "mask": {0: "batch", 1: "n"}}
    examples = (torch.zeros(2, 9, dtype=torch.int64), torch.ones(2, 9))
    compiled = burnish.compile(block, examples, dynamic=dynamic)
    inputs = {"tokens": torch.zeros(3, 5, dtype=torch.int64), "mask": torch.ones(3, 5)}
    found = burnish.profile(compiled, inputs, rounds=1, peaks=PEAKS)
    (attention,) = (line for line in found.calls if line.kernel == "attention")
    assert attention.work.flops == 2 * 2 * 3 * 4 * 5 * 5 * 8
    assert found.table(least=0).row_count == len(found.kernels) + 2
    assert found.table(least=0, calls=True).row_count == len(found.calls) + 2


def test_a_profile_leaves_the_model_as_it_was(tmp_path: Path):
    compiled = burnish.compile(nn.Linear(4, 3).eval(), (torch.ones(1, 4),))
    before = compiled(torch.ones(1, 4))
    found = burnish.profile(compiled, rounds=1, peaks=PEAKS)
    assert [line.operators for line in found.calls] == [("gemm", "add")]
    assert compiled.path is None
    assert torch.equal(compiled(torch.ones(1, 4)), before)


def test_kernels_of_several_devices_and_the_moves_between_them(tmp_path):
    require_device()
    net, x = made(Mlp), torch.randn(6, 20)
    placement = {"matmul": "cpu", "*": "opencl:0"}
    compiled = burnish.compile(net, (x,), target="hetero:opencl:0,cpu", placement=placement)
    found = burnish.profile(compiled, rounds=1, peaks=PEAKS)
    moves = ["cpu:0 to opencl:0", "opencl:0 to cpu:0"]
    assert [line.kernel for line in found.calls if line.rule == "move"] == 2 * moves
    told = [(line.device, line.operators[0]) for line in found.calls if line.rule != "move"]
    assert told == 2 * [("cpu:0", "gemm"), ("opencl:0", "add")]
    assert found.calls[1].work.bytes == 6 * 32 * 4
    assert [bool(line.bound) for line in found.calls] == 2 * [True, False, False, False]
    assert found.calls[0].path == ("0",)
    assert not found.limited
    shown = Console(width=WIDTH, record=True, file=StringIO())
    print_profile(found, shown, least=0)
    assert "waited for" in shown.export_text()
    found.draw(tmp_path / "profile.svg")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("hetero:cpu@0,cpu@1", "work at the same time"),
        ("hetero:opencl:9,cpu", "a profile runs the model here, and no device opencl:9"),
        ("opencl", "profile it built for 'hetero:opencl:0'"),
    ],
)
def test_devices_without_a_profile(target, message):
    compiled = burnish.compile(nn.Tanh().eval(), (torch.ones(1, 4),), target=target)
    with pytest.raises(TargetError, match=message):
        burnish.profile(compiled)


def test_refusals():
    compiled = burnish.compile(nn.Linear(4, 3).eval(), (torch.ones(1, 4),))
    with pytest.raises(ConfigError, match="nothing to call the model with: give inputs"):
        burnish.profile(compiled, ())
    with pytest.raises(ConfigError, match="rounds is 0; it must be 1 or more"):
        burnish.profile(compiled, rounds=0)
    compiled.kernels = {}
    with pytest.raises(ConfigError, match="no kernel records: compile it again"):
        burnish.profile(compiled)


def test_a_call_reads_only_the_rows_looked_up():
    net = nn.Sequential(nn.Embedding(1000, 8), nn.Linear(8, 16)).eval()
    compiled = burnish.compile(net, (torch.zeros(1, 4, dtype=torch.int64),))
    found = burnish.profile(compiled, rounds=1, peaks=PEAKS)
    assert found.io_bytes == 4 * (4 * 8 + 8 * 16 + 16 + 4 * 16) + 8 * 4


def test_calls_that_differ_are_refused(taken):
    _, loaded, _ = taken
    recorder = Recorder(loaded, [tvm.runtime.tensor(np.ones((1, 3, 16, 16), np.float32))])
    assert recorder.take().shape == (len(recorder.events), 2)
    assert (np.diff(recorder.take().ravel()) >= 0).all()
    recorder._stamps = np.zeros(4, np.int64)
    with pytest.raises(MeasureError, match="whose calls on the same inputs differ has no profile"):
        recorder.take()


def test_the_middle_half_of_the_runs():
    assert sorted(_middle_half(np.array([9.0, 1, 3, 2, 5, 4, 80, 6]))) == [2, 4, 5, 7]
    assert list(_middle_half(np.array([3.0]))) == [0]
