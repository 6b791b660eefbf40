"""A model over sets of cores that is all on one: run by its caller, there, and nowhere after."""

from __future__ import annotations

import gc
import os
import threading

import pytest
import torch
from cores_support import CORES, FIRST, SECOND, TARGET, Small, Wide, workers
from small_nets import made

import burnish
from burnish.compiler import artifact, on_one_set
from burnish.compiler.errors import ArtifactError
from burnish.compiler.on_cores import RegionError
from burnish.compiler.parity import parity
from support import require


@pytest.fixture(scope="module", autouse=True)
def two_cores():
    require(CORES[0] != CORES[1], "needs two cores")


@pytest.fixture(scope="module")
def small():
    net, x = made(Small), torch.randn(2, 6)
    placement = {"*": SECOND}
    return net, x, burnish.compile(net, (x,), target=TARGET, placement=placement, cache=False)


def _noting_cores(model, where):
    """Let a model tell on which cores each call may run."""
    main, run = model._main, model._replay

    def noted(of):
        def call(*given):
            where.append((threading.current_thread(), os.sched_getaffinity(0)))
            return of(*given)

        return call

    model._main = noted(main)
    if run is not None:
        model._replay = noted(run)


def test_its_caller_runs_it_on_the_set_alone(small, tmp_path, monkeypatch):
    net, _, model = small
    assert model.one_set == SECOND
    again = burnish.load(model.save(tmp_path / "net.burnish"))
    assert again.one_set == SECOND
    before = os.sched_getaffinity(0)
    for one in (model, again):
        for _ in range(3):
            x = torch.randn(2, 6)
            assert parity(one(x), net(x)).rel <= 1e-5
        assert one._replay is not None
    where = []
    _noting_cores(again, where)
    monkeypatch.setattr(again._set, "_short", False)
    monkeypatch.setattr(again._set, "_to_time", 0)
    again(torch.randn(2, 6))
    again(torch.randn(2, 6))
    own = threading.Thread(target=again, args=(torch.randn(2, 6),))
    own.start()
    own.join()
    assert [cores for _, cores in where] == [{CORES[1]}] * 3
    assert [caller for caller, _ in where] == [threading.main_thread()] * 2 + [own]
    assert os.sched_getaffinity(0) == before


def test_a_call_that_begins_on_the_set_is_not_bound_if_it_is_short(small, monkeypatch):
    net, x, model = small
    bound = []
    monkeypatch.setattr(on_one_set, "bind", bound.append)
    for at_most, times in ((0.0, 4), (60.0, 1)):
        monkeypatch.setattr(on_one_set, "SHORT_S", at_most)
        monkeypatch.setattr(model._set, "_short", False)
        monkeypatch.setattr(model._set, "_to_time", 3)
        monkeypatch.setattr(model._set, "_on_core", lambda core: core == CORES[1])
        bound.clear()
        for _ in range(4):
            assert parity(model(x), net(x)).rel <= 1e-5
        assert bound == [{CORES[1]}] * times
    monkeypatch.setattr(model._set, "_on_core", lambda core: 0)
    model(x)
    assert len(bound) == 2


def test_a_set_knows_the_core_of_its_caller(small):
    model = small[-1]
    before = os.sched_getaffinity(0)
    try:
        for core in CORES:
            os.sched_setaffinity(0, {core})
            found = [bool(model._set._on_core(one)) for one in CORES]
            assert found == [one == core for one in CORES]
    finally:
        os.sched_setaffinity(0, before)


def test_errors_leave_the_caller_as_it_was(small, monkeypatch):
    net, x, model = small
    before = os.sched_getaffinity(0)
    with pytest.raises(burnish.compiler.errors.InvalidInputError):
        model(torch.randn(3, 5))

    def fails(cores):
        raise ValueError(f"there are no cores {sorted(cores)} to run on")

    with monkeypatch.context() as patch:
        patch.setattr(on_one_set, "bind", fails)
        patch.setattr(model._set, "_short", False)
        message = f"{SECOND}: there are no cores .{CORES[1]}. to run on"
        with pytest.raises(RegionError, match=message):
            model(x)
    assert parity(model(x), net(x)).rel <= 1e-5
    assert os.sched_getaffinity(0) == before


def test_open_sizes_run():
    net, x = made(Small), torch.randn(2, 6)
    rows = {"x": {0: "batch"}}
    model = burnish.compile(net, (x,), dynamic=rows, target=f"hetero:{FIRST}", cache=False)
    for size in (1, 3, 2):
        x = torch.randn(size, 6)
        assert parity(model(x), net(x)).rel <= 1e-5


def test_a_set_of_two_cores_has_threads_there_that_end_with_the_model(tmp_path):
    net, x = made(Wide), torch.randn(48, 192)
    name = f"cpu@{CORES[0]}+{CORES[1]}"
    model = burnish.compile(net, (x,), target=f"hetero:{name}", do_no_harm=False, cache=False)
    gc.collect()  # models of other tests
    before = workers()
    again = burnish.load(model.save(tmp_path / "net.burnish"))
    assert again.target.place(name).cores == tuple(CORES)
    errors = []

    def call(one):
        for _ in range(50):
            x = torch.randn(48, 192)
            errors.append(parity(one(x), net(x)).rel)

    callers = [threading.Thread(target=call, args=(again,)) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(errors) == 150
    assert max(errors) <= 1e-5
    (worker,) = workers() - before
    assert os.sched_getaffinity(int(worker)) == set(CORES)
    del again, callers, caller
    gc.collect()
    assert workers() == before


@pytest.mark.parametrize("name", ["cpu@77", "cpu", 7, ["cpu@0"]])
def test_a_file_that_names_another_set_is_refused(small, tmp_path, name, monkeypatch):
    *_, model = small
    said = artifact._target

    def other(compiled):
        return {**said(compiled), "one_set": name}

    monkeypatch.setattr(artifact, "_target", other)
    path = model.save(tmp_path / "net.burnish")
    with pytest.raises(ArtifactError, match=r"the set .* of its target is none of its devices"):
        burnish.load(path)
