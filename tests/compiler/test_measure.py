"""The measuring service: isolation, turns, limits, honest comparison. Times are never asserted
beyond being positive, or ordered by a sleep five times longer."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx
import pytest
import torch
import tvm
from onnx import TensorProto, helper
from tvm.script import tirx as T

from burnish.compiler.errors import MeasureError
from burnish.compiler.measure import (
    ArtifactRunner,
    EagerRunner,
    KernelRunner,
    MeasureService,
    OnnxRuntimeRunner,
    Runner,
    Timing,
    describe_machine,
    faster,
)
from burnish.compiler.measure.timing import summarize

X = (torch.ones(4, 8),)


def sleeper(seconds):
    """A runner whose call sleeps; any callable of the inputs can be hosted so."""

    @dataclass(eq=False)
    class Sleeper(Runner):
        seconds: float
        runtime: ClassVar[str] = "sleep"

        def open(self):
            def bind(inputs):
                def call():
                    time.sleep(self.seconds)
                    return {"threads": int(os.environ["OMP_NUM_THREADS"]), "pid": os.getpid()}

                return call

            return bind

    return Sleeper(seconds)


def broken(action, runtime="broken"):
    @dataclass(eq=False)
    class Broken(Runner):
        runtime: ClassVar[str] = "broken"

        def open(self):
            return lambda inputs: action

    return Broken()


@pytest.fixture(scope="module")
def service():
    with MeasureService(2, timeout=60) as running:
        yield running


def test_turns_tell_a_five_times_longer_sleep(service):
    timings = service.take_turns(
        {"short": sleeper(0.002), "long": sleeper(0.01)}, (), rounds=5, retries=0
    )
    short, long = timings["short"], timings["long"]
    assert 0 < short.best <= short.p50 <= short.p95 <= short.p99
    assert short.n >= 5
    assert short.p50 < long.p50
    assert faster(short, long) is True
    assert faster(long, short) is False


def test_each_runner_has_its_own_process_and_the_threads_asked_for(service):
    service.take_turns({"a": sleeper(0), "b": sleeper(0)}, (), rounds=3, retries=0)
    a, b = (service.outputs(name, ()) for name in "ab")
    assert a["pid"] != b["pid"]
    assert int(a["threads"]) == int(b["threads"]) == 2


def test_variants_can_share_a_process(service):
    runners = {"a": sleeper(0), "b": sleeper(0)}
    timings = service.take_turns(runners, (), rounds=3, retries=0, share_process=True)
    assert service.outputs("a", ())["pid"] == service.outputs("b", ())["pid"]
    assert timings["a"].peak_memory_bytes is None


def test_a_shared_process_makes_room_for_later_variants(service):
    runners = {f"v{number}": sleeper(0) for number in range(6)}
    service.open(runners, (), share_process=True)
    assert len({service.outputs(name, ())["pid"].item() for name in runners}) == 1
    service.open({"one more": sleeper(0)}, (), share_process=True)
    with pytest.raises(MeasureError, match="no runner is loaded as 'v0'"):
        service.outputs("v0", ())
    assert service.open(runners, (), share_process=True)["v0"].worker.alive


def test_two_runtimes_cannot_share_a_process(service):
    with pytest.raises(MeasureError, match="runners of sleep and torch cannot share a process"):
        service.take_turns(
            {"a": sleeper(0), "b": EagerRunner(torch.nn.ReLU())}, X, share_process=True
        )


def test_eager_outputs_and_memory(service):
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Dropout(0.5))
    timing = service.take_turns({"eager": EagerRunner(model)}, X, rounds=3, retries=0)["eager"]
    assert timing.p50 > 0
    assert timing.load_s > 0
    assert timing.note == ""
    expected = model.eval()(*X).detach().numpy()
    np.testing.assert_allclose(service.outputs("eager", X), expected, rtol=1e-6)


def test_peak_memory_counts_activations(service):
    class Large(torch.nn.Module):
        def forward(self, x):
            return torch.ones(32, 1024, 1024).sum() + x  # 128 MiB

    timing = service.take_turns({"large": EagerRunner(Large())}, X, rounds=1, retries=0)["large"]
    assert 120 << 20 < timing.peak_memory_bytes < 200 << 20


def test_a_module_that_cannot_be_pickled_is_exported_and_says_so(service):
    model = torch.nn.Linear(8, 2)
    model.unpicklable = threading.Lock()
    loaded = service.open({"exported": EagerRunner(model)}, X, share_process=True)
    assert "timed as an exported program" in loaded["exported"].note
    np.testing.assert_allclose(service.outputs("exported", X), model(*X).detach(), rtol=1e-6)


def test_exported_program(service):
    program = torch.export.export(torch.nn.Linear(8, 2), X)
    service.open({"program": EagerRunner(program)}, X, share_process=True)
    assert service.outputs("program", X).shape == (4, 2)


def doubling():
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("form", ["proto", "bytes", "path"])
def test_onnxruntime(service, tmp_path, form):
    model = doubling()
    onnx.save(model, tmp_path / "m.onnx")
    forms = {"proto": model, "bytes": model.SerializeToString(), "path": tmp_path / "m.onnx"}
    service.open({"ort": OnnxRuntimeRunner(forms[form])}, X, share_process=True)
    np.testing.assert_array_equal(service.outputs("ort", X)[0], np.full((4, 8), 2, np.float32))


def test_onnxruntime_input_count(service):
    service.open({"ort": OnnxRuntimeRunner(doubling())}, X, share_process=True)
    with pytest.raises(MeasureError, match=r"takes 1 inputs \['x'\], 2 were given"):
        service.outputs("ort", X + X)


def test_artifact(service, tmp_path):
    path = tmp_path / "scale.txt"

    def load(path):
        factor = float(open(path).read())  # noqa: SIM115
        return lambda x: [x * factor]

    path.write_text("3")
    service.open({"artifact": ArtifactRunner(str(path), load)}, X, share_process=True)
    assert service.outputs("artifact", X)[0][0, 0] == 3
    path.write_text("4.0")
    service.open({"artifact": ArtifactRunner(str(path), load)}, X, share_process=True)
    assert service.outputs("artifact", X)[0][0, 0] == 4


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    @T.prim_func(s_tir=True)
    def add_one(a: T.Buffer((64,), "float32"), b: T.Buffer((64,), "float32")):
        T.func_attr({"global_symbol": "add_one", "tirx.noalias": True})
        for i in range(64):
            with T.sblock("b"):
                v = T.axis.spatial(64, i)
                b[v] = a[v] + T.float32(1)

    path = tmp_path_factory.mktemp("kernel") / "lib.so"
    tvm.compile(tvm.IRModule({"add_one": add_one}), target="llvm").export_library(str(path))
    return KernelRunner(str(path), "add_one", (((64,), "float32"), ((64,), "float32")))


def test_kernels(kernel):
    with MeasureService(1) as service:
        found = service.time_kernel(kernel, signature="add_one(64)", target="llvm")
    assert 0 < found.best <= found.p50


def test_kernels_are_timed_once(kernel, tmp_path, monkeypatch):
    taken = []

    def take_turns(self, runners, inputs, **options):
        taken.append(next(iter(runners)))
        return {taken[-1]: replace(timing([1.0, 1.0, 1.0]), noisy="noisy" in taken[-1])}

    monkeypatch.setattr(MeasureService, "take_turns", take_turns)
    for signature in ("add(64)", "add(64)", "add(32)", "noisy(1)", "noisy(1)"):
        with MeasureService(1, cache_dir=tmp_path) as service:
            service.time_kernel(kernel, signature=signature, target="llvm")
    with MeasureService(2, cache_dir=tmp_path) as service:
        service.time_kernel(kernel, signature="add(64)", target="llvm")
        service.time_kernel(kernel, signature="add(64)", target="llvm -mcpu=znver4")
    assert taken == ["add(64)", "add(32)", "noisy(1)", "noisy(1)", "add(64)", "add(64)"]


def test_a_damaged_cache_counts_as_empty(tmp_path):
    (tmp_path / "timings.json").write_text("{")
    assert MeasureService(1, cache_dir=tmp_path).cache.entries == {}


def test_a_failing_model_is_named_and_its_process_lives(service):
    def fail():
        raise ValueError("no such layer")

    runner = broken(fail)
    with pytest.raises(
        MeasureError, match=r"ValueError: no such layer \(while first running 'failing'"
    ):
        service.take_turns({"failing": runner}, ())
    assert service.open({"failing": runner}, ())["failing"].worker.alive


def test_a_crash_names_the_signal_and_shows_the_last_output(service):
    def crash():
        os.write(2, b"kernel went wrong\n")
        os.kill(os.getpid(), signal.SIGSEGV)

    with pytest.raises(
        MeasureError,
        match=r"(?s)died of SIGSEGV while first running 'crash'; its last output:\nkernel went",
    ):
        service.take_turns({"crash": broken(crash)}, ())
    assert service.take_turns({"crash": sleeper(0)}, (), rounds=1, retries=0)["crash"].n > 0


def test_exit_names_the_code(service):
    with pytest.raises(MeasureError, match="ended with exit code 3 while first running 'exit'"):
        service.take_turns({"exit": broken(lambda: os._exit(3))}, ())


def test_a_hanging_call_is_ended():
    with MeasureService(1, timeout=1.0) as service:
        runner = sleeper(60)
        worker = service.open({"hang": runner}, ())["hang"].worker
        with pytest.raises(MeasureError, match="no answer within 1 s while first running 'hang'"):
            service.take_turns({"hang": runner}, ())
        assert not worker.alive


def test_closing_ends_every_process():
    with MeasureService(1) as service:
        worker = service.open({"a": sleeper(0)}, ())["a"].worker
        assert worker.alive
    assert not worker.alive


def test_bad_requests(service):
    with pytest.raises(MeasureError, match="no runners were given"):
        service.take_turns({}, ())
    with pytest.raises(MeasureError, match="rounds is 0; it must be 1 or more"):
        service.take_turns({"a": sleeper(0)}, (), rounds=0)
    with pytest.raises(MeasureError, match="no runner is loaded as 'nobody'"):
        service.outputs("nobody", ())
    with pytest.raises(MeasureError, match="threads is 0; it must be 1 or more"):
        MeasureService(0)


def timing(rounds):
    return summarize([[value] for value in rounds])


def test_equal_times_cannot_be_told_apart():
    rng = np.random.default_rng(0)
    a, b = (timing(10 + rng.normal(0, 0.5, 15)) for _ in range(2))
    assert faster(a, b) is None
    assert faster(timing([10.0] * 15), timing([10.1] * 15)) is None


def test_drift_common_to_both_does_not_hide_a_difference():
    drift = np.linspace(1, 3, 15)
    assert faster(timing(9 * drift), timing(10 * drift)) is True


def test_a_claim_must_hold_for_the_best_too():
    assert faster(timing([9.0] * 15), timing([8.0] + [10.0] * 14)) is None


def test_too_few_rounds_claim_nothing():
    assert faster(timing([1.0, 1.0]), timing([2.0, 2.0])) is None


def test_wide_spread_is_noisy():
    assert timing([1.0, 1.0, 2.0, 2.0]).noisy
    assert not timing([1.0, 1.0, 1.01, 1.0]).noisy


def test_timing_round_trip():
    found = timing([1.0, 2.0, 3.0])
    assert Timing.from_dict(found.to_dict()) == found
    assert found.per_second == pytest.approx(500)


def test_machine():
    machine = describe_machine(2)
    assert machine["cores"] >= 1
    assert machine["threads"] == 2
    assert machine["versions"]["torch"] == torch.__version__
