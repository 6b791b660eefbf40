"""One executable over several devices: from memory, from a file, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
import tvm
import tvm_ffi
from small_nets import Mlp, made

import burnish
from burnish import cli
from burnish.compiler.errors import ArtifactError, ConfigError, PassError, TargetError
from burnish.compiler.parity import parity
from burnish.targets.hetero import HeteroTarget
from burnish.targets.opencl import runtime
from cuda_stub import build_stub, run_under_stub
from cuda_support import require_compiler
from opencl_support import require_device

DEVICES = "hetero:opencl:0,cpu,cpu:1"
PLACEMENT = {"relu": "cpu", "matmul": "cpu:1", "*gelu*": "cpu:1"}


class Net(torch.nn.Module):
    """A convolution, a branch that joins again, and one weight that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.first = torch.nn.Linear(8, 8)
        self.last = torch.nn.Linear(8, 8)
        self.last.weight = self.first.weight

    def forward(self, x):
        y = torch.relu(self.conv(x)).mean((2, 3))
        z = self.first(y)
        return {"sum": torch.tanh(self.last(torch.nn.functional.gelu(z))) + y, "first": z}


@pytest.fixture(scope="module")
def compiled():
    require_device()
    net, x = made(Net), torch.randn(2, 3, 6, 5)
    return net, x, burnish.compile(net, (x,), target=DEVICES, placement=PLACEMENT, cache=False)


def test_three_devices_give_what_one_gives(compiled):
    net, x, model = compiled
    for _ in range(3):
        x = torch.randn(x.shape)
        assert parity(model(x), net(x)).rel <= 1e-5
    rows = {row.name: row for row in model.report.rows}
    assert rows["PartitionGraph"].status == "applied"


class Sides(torch.nn.Module):
    """Two branches, and what joins them."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = torch.nn.Linear(24, 16), torch.nn.Conv1d(1, 4, 3, padding=1)
        self.last = torch.nn.Linear(16, 16)

    def forward(self, x):
        left = torch.tanh(self.last(torch.relu(self.left(x))))
        return left + self.right(x[:, None]).mean(1)[:, :16]


def _waits(model, *given):
    model(*given)
    before = runtime.counters()
    out = model(*given)
    after = runtime.counters()
    assert after["live_sends"] == before["live_sends"]
    return out, {name: after[name] - before[name] for name in ("waits", "sent")}


def test_the_host_waits_for_a_device_only_where_it_reads(monkeypatch):
    require_device()
    net, x = made(Sides), torch.randn(3, 24)
    where = {
        "placement": {"conv*": "opencl:0", "expand_dims": "opencl:0", "*": "cpu"},
        "target": "hetero:opencl:0,cpu",
    }
    model = burnish.compile(net, (x,), **where, cache=False)
    cut = next(row for row in model.report.rows if row.name == "PartitionGraph").details
    # The device's first, the branch that needs nothing of it, then what joins the two.
    assert [region["device"] for region in cut["regions"]] == ["opencl:0", "cpu", "cpu"]
    out, counted = _waits(model, x)
    assert counted == {"waits": 1, "sent": 1}
    monkeypatch.setattr(HeteroTarget, "queued", {})
    plain = burnish.compile(net, (x,), **where, cache=False)
    same, counted = _waits(plain, x)
    assert counted == {"waits": 4, "sent": 0}, "each copy waits, and then for all of the queue"
    assert parity(out, net(x)).rel <= 1e-5
    assert parity(same, net(x)).rel <= 1e-5


def test_a_call_that_fails_waits_for_what_the_device_still_reads(compiled, monkeypatch):
    _, x, model = compiled
    move = tvm_ffi.get_global_func("burnish.opencl.move")

    def failing(given, _weights):
        for _ in range(20):
            move(given, 4, 0)
        raise MemoryError("no memory left")

    on = model._main._main
    monkeypatch.setattr(on, "_main", failing)
    with pytest.raises(MemoryError, match="no memory left"):
        on(tvm.runtime.tensor(x.numpy()), None)
    assert runtime.counters()["live_sends"] == 0


@pytest.mark.parametrize(
    ("placement", "recorded"),
    [({"*": "cpu"}, True), ({"relu": "cpu:1", "*": "cpu"}, False), ({"*": "cpu:1"}, False)],
    ids=["all on the host", "cut", "all elsewhere"],
)
def test_a_model_that_is_all_on_the_host_is_recorded_as_one_of_a_cpu(placement, recorded):
    net, x = made(Net), torch.randn(2, 3, 6, 5)
    model = burnish.compile(net, (x,), target="hetero:cpu,cpu:1", placement=placement, cache=False)
    for _ in range(3):
        x = torch.randn(x.shape)
        assert parity(model(x), net(x)).rel <= 1e-5
    assert (model._replay is not None) == recorded


FRESH = """
import sys
import numpy as np
import burnish
x = np.load(sys.argv[2])
out = burnish.load(sys.argv[1])(x)
np.savez(sys.argv[3], **out)
"""


def test_a_fresh_process_runs_the_artifact(compiled, tmp_path):
    net, x, model = compiled
    path = model.save(tmp_path / "net.burnish")
    np.save(tmp_path / "x.npy", x.numpy())
    arguments = [str(path), str(tmp_path / "x.npy"), str(tmp_path / "out.npz")]
    subprocess.run([sys.executable, "-c", FRESH, *arguments], check=True, timeout=300)
    with np.load(tmp_path / "out.npz") as found:
        out = {name: found[name] for name in found.files}
    expected = {name: value.detach().numpy() for name, value in net(x).items()}
    assert parity(out, expected).rel <= 1e-5


@pytest.mark.parametrize(
    ("placement", "error", "message"),
    [
        ({"conv3d": "cpu"}, PassError, "'conv3d' names nothing in the model"),
        ({"relu": "cuda:0"}, PassError, "no device 'cuda:0' in the target"),
        ({"relu": 3}, ConfigError, "placement must map names to devices"),
    ],
)
def test_a_placement_that_cannot_be_is_refused(placement, error, message):
    with pytest.raises(error, match=message):
        burnish.compile(
            made(Net), (torch.randn(2, 3, 6, 5),), target="hetero:opencl:0,cpu", placement=placement
        )


def test_a_placement_needs_devices():
    with pytest.raises(ConfigError, match="is for targets of several devices"):
        burnish.compile(made(Net), (torch.randn(2, 3, 6, 5),), placement={"relu": "cpu"})


def test_a_device_that_is_not_here_is_missed_when_loading_and_calling(tmp_path):
    net, x = made(Net), torch.randn(2, 3, 6, 5)
    model = burnish.compile(
        net, (x,), target="hetero:opencl:7,cpu", placement={"*": "cpu", "relu": "opencl:7"}
    )
    with pytest.raises(TargetError, match=r"no device opencl:7: .*counted from 0"):
        model(x)
    path = model.save(tmp_path / "net.burnish")
    with pytest.raises(ArtifactError, match="opencl:7, cpu, and not all of them"):
        burnish.load(path)


STUBBED = """
import sys
import numpy as np
import burnish
model = burnish.load(sys.argv[1])
for _ in range(2):
    print(model(np.ones((2, 3, 6, 5), "float32"))["sum"].shape)
"""


def test_three_kinds_of_device_in_one_library(tmp_path):
    """OpenCL's kernels and the CPU's run; CUDA's are launched under a stand-in for the driver."""
    require_compiler()
    require_device()
    net, x = made(Net), torch.randn(2, 3, 6, 5)
    model = burnish.compile(
        net,
        (x,),
        target="hetero:cuda:sm_90:0,opencl:0,cpu",
        placement={"relu": "cpu", "matmul": "opencl:0"},
    )
    kernels = {one["name"].removesuffix("_kernel") for one in model.report.resources["sm_90"]}
    assert kernels
    assert kernels < set(model.kernels)
    library = model.library.read_bytes()
    assert b"__kernel void" in library, "OpenCL's source is in it"
    assert b"__global__" not in library, "and machine code for CUDA's"
    path = model.save(tmp_path / "net.burnish")
    with pytest.raises(ArtifactError, match="no device cuda:sm_90:0"):
        burnish.load(path)
    printed, calls = run_under_stub(build_stub(tmp_path), STUBBED, [str(path)], "sm_90")
    assert printed.split() == ["(2,", "8)"] * 2
    launched = [call[1].removesuffix("_kernel") for call in calls if call[0] == "launch"]
    assert set(launched) == kernels
    assert launched[: len(kernels)] * 2 == launched


def test_sizes_may_be_open():
    require_device()
    net, x = made(Mlp), torch.randn(3, 20)
    model = burnish.compile(
        net,
        (x,),
        target="hetero:opencl:0,cpu",
        placement={"add": "cpu"},
        dynamic={"input": {0: "rows"}},
    )
    for rows in (1, 7):
        x = torch.randn(rows, 20)
        assert parity(model(x), net(x)).rel <= 1e-5
    moved = next(row for row in model.report.rows if row.name == "PartitionGraph").details
    assert moved["transfers"][0]["bytes"] is None


def test_the_same_again_is_the_same_bytes(tmp_path):
    net, x = made(Mlp), torch.randn(3, 20)
    settings = {"target": "hetero:opencl:0,cpu", "placement": {"add": "cpu"}, "cache": False}
    files = [
        burnish.compile(net, (x,), **settings).save(tmp_path / f"{n}.burnish").read_bytes()
        for n in range(2)
    ]
    assert files[0] == files[1]


def test_inspect_says_what_runs_where(compiled, tmp_path, capsys):
    path = compiled[2].save(tmp_path / "net.burnish")
    with pytest.raises(SystemExit) as left:
        cli.main(["inspect", str(path)])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    for said in ("regions", "opencl:0", "cpu:1", "transfers", "weights"):
        assert said in shown
