"""Kernels in the real measuring service: wrong, crashing and endless ones, and a whole search."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st
from tvm import relax, te, tirx

from burnish.compiler.config import TuneConfig
from burnish.compiler.measure import MeasureService
from burnish.compiler.tune import bench as bench_module
from burnish.compiler.tune import tune_module
from burnish.compiler.tune.bench import Bench, difference
from burnish.compiler.tune.kernels import random_tensors
from burnish.compiler.tune.tasks import Task, extract_tasks


@pytest.fixture
def bench(service: MeasureService, target: tvm.target.Target) -> Bench:
    return Bench(service, target)


@pytest.fixture
def task(matmul: tvm.IRModule) -> Task:
    return extract_tasks(matmul)[0]


def calls(name: str, *arguments: int) -> tirx.PrimFunc:
    """A kernel of the matmul's signature that only calls a C function."""
    x = te.placeholder((64, 128), name="x")
    w = te.placeholder((128, 128), name="w")
    y = te.extern((64, 128), [x, w], lambda ins, outs: tirx.call_extern("int32", name, *arguments))
    return te.create_prim_func([x, w, y])


def fills(value: float) -> tirx.PrimFunc:
    """A kernel of the matmul's signature that ignores its inputs."""
    x = te.placeholder((64, 128), name="x")
    w = te.placeholder((128, 128), name="w")
    y = te.compute((64, 128), lambda i, j: tirx.const(value, "float32"))
    return te.create_prim_func([x, w, y])


def test_a_crash_a_bad_build_and_a_good_kernel_in_one_batch(bench: Bench, task: Task) -> None:
    good, bad, crash = bench.screen(
        [(task, f) for f in (task.func, calls("no_such_function"), calls("abort"))]
    )
    assert good.secs is not None
    assert good.secs < 1.0
    assert crash.secs is None
    assert crash.error.startswith("the tvm process: its process died of SIGABRT while running")
    assert bad.secs is None
    assert bad.error
    (again,) = bench.screen([(task, task.func)])
    assert again.secs is not None


def test_an_endless_kernel_is_ended(
    bench: Bench, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_module, "KERNEL_S", 1.0)
    kept = bench.measure.timeout
    (found,) = bench.screen([(task, calls("sleep", 60))])
    assert found.secs is None
    assert found.error.startswith("the tvm process: no answer within 1 s while running")
    assert bench.measure.timeout == kept


def test_a_slow_kernel_gets_two_calls(bench: Bench, task: Task) -> None:
    bench.screen([(task, task.func)])
    start = time.perf_counter()
    (found,) = bench.screen([(task, calls("usleep", 1_000_000))], limit_ms=10.0)
    assert found.secs == pytest.approx(1.0, rel=0.5)
    assert time.perf_counter() - start < 3.5


def test_wrong_and_unwritten_outputs_are_told(
    bench: Bench, task: Task, parallel: Callable[[tirx.PrimFunc], tirx.PrimFunc]
) -> None:
    assert bench.disagreement(task, task.func, parallel(task.func)) == ""
    assert bench.disagreement(task, task.func, fills(0.0)).startswith(
        "output 0 differs from the default's: by "
    )
    assert bench.disagreement(task, task.func, calls("abs", 1)) == (
        "output 0 differs from the default's: 8192 of 8192 values are not finite alike"
    )


def test_a_search_beats_serial_code_and_a_wrong_kernel_never_wins(
    matmul: tvm.IRModule,
    target: tvm.target.Target,
    serial: Any,
    service: MeasureService,
    tmp_path: Path,
) -> None:
    config = TuneConfig(trials=12, work_dir=tmp_path)
    best, report = tune_module(
        matmul,
        target,
        config,
        schedule=serial,
        measure=service,
        alternatives=lambda func: [fills(0.0)],
    )
    (row,) = report.rows
    assert row.trials == 12
    assert row.chosen == "tuned"
    assert row.tuned_ms is not None
    assert row.default_ms is not None
    assert row.tuned_ms < row.default_ms
    (kernel,) = best.values()
    functions = {
        var: kernel if isinstance(func, tirx.PrimFunc) else func
        for var, func in matmul.functions.items()
    }
    built = relax.build(tvm.IRModule(functions), target=target)
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype("float32") for s in ((64, 128), (128, 128)))
    out = relax.VirtualMachine(built, tvm.cpu())["main"](*map(tvm.runtime.tensor, (x, w)))
    np.testing.assert_allclose(out.numpy(), np.maximum(x @ w, 0), atol=1e-3)


@pytest.mark.heavy
def test_a_convolution_and_a_softmax_are_tuned_and_reused(
    conv: tvm.IRModule,
    three: tvm.IRModule,
    target: tvm.target.Target,
    serial: Any,
    service: MeasureService,
    tmp_path: Path,
) -> None:
    for mod in (conv, three):
        config = TuneConfig(trials=32, work_dir=tmp_path)
        best, report = tune_module(mod, target, config, schedule=serial, measure=service)
        assert best
        assert report.rows[0].chosen == "tuned"
        again, second = tune_module(mod, target, config, schedule=serial, measure=service)
        assert second.trials == 0
        assert again.keys() == best.keys()


shapes = st.tuples(st.integers(1, 4), st.integers(1, 4))


@given(shape=shapes, seed=st.integers(0, 1000), dtype=st.sampled_from(["float32", "int32"]))
def test_an_output_agrees_with_itself_and_not_with_another(
    shape: tuple[int, int], seed: int, dtype: str
) -> None:
    value = (np.random.default_rng(seed).uniform(1, 9, shape)).astype(dtype)
    assert difference(value, value.copy(), dtype) == ""
    assert difference(value, value + 1, dtype) != ""


def test_floats_agree_within_a_share_of_the_largest() -> None:
    ref = np.array([1.0, 1000.0], "float32")
    assert difference(ref, ref + np.float32(0.05), "float32") == ""
    assert difference(ref, ref + np.float32(0.5), "float32") == (
        "by 0.5 where the largest is 1e+03 (limit 0.0001 of it)"
    )
    assert difference(ref, ref + np.float32(5.0), "float16") == ""
    low = ref.astype(ml_dtypes.bfloat16)
    assert difference(low, low, "bfloat16") == ""


def test_infinities_and_nans_must_be_the_same() -> None:
    ref = np.array([np.nan, np.inf, 1.0])
    assert difference(ref, ref.copy(), "float64") == ""
    assert difference(ref, np.array([np.nan, -np.inf, 1.0]), "float64") == (
        "1 of 3 values are not finite alike"
    )
    assert difference(ref, np.array([0.0, np.inf, 1.0]), "float64") != ""
    assert difference(np.full(2, np.nan), np.full(2, np.nan), "float32") == ""


def test_random_arguments_are_equal_in_any_worker_and_inside_their_bounds() -> None:
    specs = (((64,), "float32"), ((64,), "int64"), ((64,), "uint8"), ((64,), "bool"))
    first = [t.numpy() for t in random_tensors(specs, 1)]
    random_tensors.cache_clear()
    again = [t.numpy() for t in random_tensors(specs, 1)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    floats, ints, packed, flags = first
    assert floats.min() >= 0.1
    assert set(ints.tolist()) == {0, 1}
    assert packed.max() > 100
    assert flags.dtype == bool
    assert random_tensors(specs, 0)[0].numpy().min() < 0
