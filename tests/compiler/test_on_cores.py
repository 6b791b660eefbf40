"""One model over cores that work at the same time: parity, order, errors, limits, files, sets."""

from __future__ import annotations

import gc
import os
import threading
import time

import pytest
import torch
import tvm
from cores_support import CORES, FIRST, SECOND, TARGET, Small, Wide, workers
from small_nets import made

import burnish
from burnish.compiler import on_cores
from burnish.compiler.errors import ArtifactError, TargetError
from burnish.compiler.on_cores import OnCores, RegionError
from burnish.compiler.parity import parity
from burnish.compiler.placed import supports
from burnish.passes.partition_graph import PartitionGraph, regions
from burnish.targets.choose import choose_target
from burnish.targets.core_sets import usable
from support import require

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


@pytest.fixture(scope="module", autouse=True)
def two_cores():
    require(CORES[0] != CORES[1], "needs two cores")


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
        message = rf"region\d on {SECOND} failed: no memory left for region"
        with pytest.raises(RegionError, match=message) as failed:
            model(x)
        assert isinstance(failed.value.__cause__, MemoryError)
    assert parity(model(x), net(x)).rel <= 1e-5


def test_a_region_that_does_not_end_is_given_up(compiled, monkeypatch):
    _, x, model = compiled
    cores = {FIRST: CORES[:1], SECOND: CORES[1:]}
    slow = OnCores(model._loaded, list(model.params.values()), cores, limit_s=0.1)
    _with_machine(monkeypatch, SECOND, _Slow())
    inputs = [slot.take(leaf) for slot, leaf in zip(model._slots, [x], strict=True)]
    with pytest.raises(RegionError, match=rf"region\d on {SECOND} has not ended in time"):
        slow(*inputs, None)
    with pytest.raises(RegionError, match="an earlier call was given up"):
        slow(*inputs, None)


def test_a_thread_that_is_gone_is_not_waited_for(compiled, monkeypatch):
    _, x, model = compiled
    cores = {name: [core] for name, core in zip((FIRST, SECOND), CORES, strict=True)}
    lone = OnCores(model._loaded, list(model.params.values()), cores)
    inputs = [slot.take(leaf) for slot, leaf in zip(model._slots, [x], strict=True)]
    lone(*inputs, None)
    lone._queues[SECOND].put(None)
    lone._threads[SECOND].join(10)
    start = time.monotonic()
    with pytest.raises(RegionError, match=rf"on {SECOND} will not end: the thread of its cores is"):
        lone(*inputs, None)
    assert time.monotonic() - start < 60


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


FEW, MANY = "cpu@0-1", "cpu@2+4-5"


@pytest.fixture(scope="module")
def sets():
    """A model for sets of two and of three cores, of a machine that this one may not be."""
    net, x = made(Wide), torch.randn(48, 192)
    target, placement = f"hetero:{FEW},{MANY}", {"conv2d": MANY, "tanh": MANY}
    return net, x, burnish.compile(net, (x,), target=target, placement=placement, cache=False)


def test_each_set_has_kernels_for_its_threads(sets):
    *_, model = sets
    devices = {where: model.target.place(where).target.threads for where in (FEW, MANY)}
    assert devices == {FEW: 2, MANY: 3}
    assert model.target.threads == 2
    if not usable() >= {0, 1, 2, 4, 5}:
        with pytest.raises(TargetError, match=r"no device cpu@.*: the cores"):
            model(sets[1])


def test_two_sets_at_once_are_right_and_their_threads_end_with_them(sets):
    net, _, model = sets
    gc.collect()  # models of other tests
    before = workers()
    cores = {FEW: CORES, MANY: [*CORES, CORES[0]]}  # what runs is the same, on the cores there are
    library = tvm.runtime.load_module(str(model.library))
    models = [OnCores(library, list(model.params.values()), cores) for _ in range(2)]
    errors: list[float] = []

    def call(one: OnCores, seed: int) -> None:
        x = torch.randn(48, 192, generator=torch.Generator().manual_seed(seed))
        want = net(x).detach().numpy()
        given = tvm.runtime.tensor(x.numpy())
        for _ in range(200):
            errors.append(float(abs(one(given, None)[0].numpy() - want).max()))

    callers = [threading.Thread(target=call, args=(one, seed)) for seed, one in enumerate(models)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(errors) == 400
    assert max(errors) < 1e-4
    assert len(workers() - before) == 2 * (1 + 2)
    for name in workers() - before:
        assert os.sched_getaffinity(int(name)) == set(CORES)
    models.clear()
    del callers
    gc.collect()
    assert workers() == before


def test_one_set_of_two_cores_runs_and_is_written_to_a_file(tmp_path):
    net, x = made(Wide), torch.randn(48, 192)
    name = f"cpu@{CORES[0]}+{CORES[1]}"
    model = burnish.compile(net, (x,), target=f"hetero:{name}", cache=False)
    again = burnish.load(model.save(tmp_path / "net.burnish"))
    assert again.target.place(name).cores == tuple(CORES)
    for one in (model, again):
        assert parity(one(x), net(x)).rel <= 1e-5
