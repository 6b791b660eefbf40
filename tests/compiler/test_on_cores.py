"""One model over cores that work at the same time: parity, order, errors, limits, files."""

from __future__ import annotations

import os
import threading
import time

import pytest
import torch
from small_nets import made

import burnish
from burnish.compiler import on_cores
from burnish.compiler.errors import ArtifactError, TargetError
from burnish.compiler.on_cores import OnCores, RegionError
from burnish.compiler.parity import parity
from burnish.compiler.placed import supports
from burnish.passes.partition_graph import PartitionGraph, regions
from burnish.targets.choose import choose_target

CORES = (sorted(os.sched_getaffinity(0)) * 2)[:2]
FIRST, SECOND = (f"cpu@{core}" for core in CORES)
TARGET = f"hetero:{FIRST},{SECOND}"
PLACEMENT = {"tanh": SECOND, "split": SECOND, "conv2d": SECOND}


class Net(torch.nn.Module):
    """Two branches, one with several results, that join."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.left = torch.nn.Linear(12, 8)
        self.last = torch.nn.Linear(8, 5)

    def forward(self, x):
        one, two = torch.split(torch.tanh(self.conv(x)).mean(3), 4, dim=1)
        left = torch.relu(self.left(x.mean(1).flatten(1)[:, :12]))
        right = torch.cat([one, two], 1).mean(2)
        return {"sum": self.last(left + right), "left": left}


class Small(torch.nn.Module):
    """Two branches that join."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = torch.nn.Linear(6, 4), torch.nn.Linear(6, 4)

    def forward(self, x):
        return torch.relu(self.left(x)) + torch.tanh(self.right(x))


pytestmark = pytest.mark.skipif(CORES[0] == CORES[1], reason="needs two cores")


@pytest.fixture(scope="module")
def compiled():
    net, x = made(Net), torch.randn(2, 3, 4, 5)
    return net, x, burnish.compile(net, (x,), target=TARGET, placement=PLACEMENT, cache=False)


def test_it_gives_what_one_core_gives_again_from_a_file(compiled, tmp_path):
    net, x, model = compiled
    again = burnish.load(model.save(tmp_path / "net.burnish"))
    assert again.target.concurrent
    for _ in range(3):
        x = torch.randn(x.shape)
        for one in (model, again):
            assert parity(one(x), net(x)).rel <= 1e-5


def test_open_sizes_run():
    net, x = made(Small), torch.randn(2, 6)
    rows = {"x": {0: "batch"}}
    model = burnish.compile(
        net, (x,), dynamic=rows, target=TARGET, placement={"tanh": SECOND}, cache=False
    )
    for size in (1, 3, 2):
        x = torch.randn(size, *x.shape[1:])
        assert parity(model(x), net(x)).rel <= 1e-5


def test_branches_run_at_the_same_time_each_on_its_core(compiled, monkeypatch):
    net, x, model = compiled
    together = threading.Barrier(2, timeout=60)
    met: dict[str, set[int]] = {}
    run = on_cores._run

    def meeting(*arguments):
        name = threading.current_thread().name
        if name not in met:
            met[name] = os.sched_getaffinity(0)
            together.wait()  # broken where one waits for the other to be done
        run(*arguments)

    monkeypatch.setattr(on_cores, "_run", meeting)
    assert parity(model(x), net(x)).rel <= 1e-5
    assert met == {f"burnish-{FIRST}": {CORES[0]}, f"burnish-{SECOND}": {CORES[1]}}


class _Failing:
    def __getitem__(self, region):
        raise MemoryError(f"no memory left for {region}")


class _Slow:
    def __getitem__(self, region):
        time.sleep(0.5)
        raise AssertionError(region)


def _with_machine(monkeypatch, device, machine):
    run = on_cores._run

    def replaced(own, *rest):
        run(machine if threading.current_thread().name.endswith(device) else own, *rest)

    monkeypatch.setattr(on_cores, "_run", replaced)


def test_an_error_in_a_region_ends_the_call_and_not_the_next(compiled, monkeypatch):
    net, x, model = compiled
    with monkeypatch.context() as patched:
        _with_machine(patched, SECOND, _Failing())
        with pytest.raises(MemoryError, match="no memory left for"):
            model(x)
    assert parity(model(x), net(x)).rel <= 1e-5


def test_a_region_that_does_not_end_is_given_up(compiled, monkeypatch):
    _, x, model = compiled
    cores = dict(zip((FIRST, SECOND), CORES, strict=True))
    slow = OnCores(model._loaded, list(model.params.values()), cores, limit_s=0.1)
    _with_machine(monkeypatch, SECOND, _Slow())
    inputs = [slot.take(leaf) for slot, leaf in zip(model._slots, [x], strict=True)]
    with pytest.raises(RegionError, match="has not ended in time"):
        slow(*inputs, None)
    with pytest.raises(RegionError, match="an earlier call was given up"):
        slow(*inputs, None)


def test_a_region_reads_nothing_that_it_could_do_without(compiled):
    net, x, _ = compiled
    target = choose_target(TARGET)
    graph = burnish.import_model(net, (x,)).mod
    cut = regions(PartitionGraph(target, supports(target), PLACEMENT)(graph))
    reads = {str(f.attrs["burnish.device"]): 0 for f in cut.values()}
    for function in cut.values():
        given = function.params[: int(function.attrs["burnish.inputs"])]
        if all(str(param.name) == "x" for param in given):
            reads[str(function.attrs["burnish.device"])] += 1
    assert reads == {FIRST: 1, SECOND: 1}  # both start at once


def test_what_cannot_be_is_refused(tmp_path):
    net, x = made(Small), torch.randn(2, 6)
    with pytest.raises(TargetError, match="each runs one thread: leave threads out"):
        burnish.compile(net, (x,), target=TARGET, threads=2)
    model = burnish.compile(net, (x,), target=f"hetero:{FIRST},cpu@4000", cache=False)
    with pytest.raises(TargetError, match="no device cpu@4000: the cores that this process"):
        model(x)
    with pytest.raises(ArtifactError, match="cpu@4000, and not all of them are here"):
        burnish.load(model.save(tmp_path / "net.burnish"))
