"""Nothing leaks, threads do not disturb each other, times come from the device."""

from __future__ import annotations

import gc
import threading

import numpy as np
import psutil
import pytest
import tvm
import tvm_ffi

from burnish.targets.opencl import runtime
from opencl_support import kernel, load, require_device, zeros

OUT = ("handle", "__global float* out")
FILL = kernel("out[get_global_id(0)] = value;", OUT, ("float32", "float value"), name="fill")
SPIN = kernel(
    "float x = 1; for (int i = 0; i < count; ++i) x = x * 0.999f + 0.5f; out[0] = x;",
    *(OUT, ("int32", "int count")),
    name="spin",
)


def test_ten_thousand_calls_leak_nothing() -> None:
    run = load(FILL).get_function("fill")
    out = zeros((256,), "float32")

    def calls(count: int) -> None:
        for number in range(count):
            run(out, number, 4, 64)
            if number % 4 == 0:
                other = tvm.runtime.empty((4096,), "float32", tvm.opencl(0))
                other.copyfrom(np.zeros(4096, "float32"))
        tvm.opencl(0).sync()

    calls(2000)
    gc.collect()
    before = runtime.counters()
    bytes_before = psutil.Process().memory_info().rss
    calls(10_000)
    gc.collect()
    after = runtime.counters()
    grown = psutil.Process().memory_info().rss - bytes_before
    for name in ("live_buffers", "live_bytes", "live_kernels", "live_events"):
        assert after[name] == before[name], name
    assert after["launched"] - before["launched"] == 10_000
    assert after["built"] == before["built"]
    assert grown < 16 * 2**20, f"{grown / 10_000:.0f} bytes a call"


def test_ten_thousand_copies_that_nobody_waits_for_leak_nothing() -> None:
    run = load(FILL).get_function("fill")
    move = tvm_ffi.get_global_func("burnish.opencl.move")

    def copies(count: int, size: int) -> None:
        for number in range(count):
            there = move(tvm.runtime.tensor(np.full(size, number, "float32")), 4, 0)
            run(zeros((64,), "float32"), number, 1, 64)  # other work of the same queue
            if number % 100 == 0:
                assert set(move(there, 1, 0).numpy()) == {number}

    copies(1000, 4096)
    gc.collect()
    before = runtime.counters()
    bytes_before = psutil.Process().memory_info().rss
    copies(10_000, 4096)
    assert set(move(move(tvm.runtime.tensor(np.ones(3, "int8")), 4, 0), 1, 0).numpy()) == {1}
    gc.collect()
    after = runtime.counters()
    for name in ("live_buffers", "live_bytes", "live_events", "live_sends"):
        assert after[name] == before[name], name
    assert after["live_sends"] == 0
    assert after["sent"] - before["sent"] == 10_001
    grown = psutil.Process().memory_info().rss - bytes_before
    assert grown < 16 * 2**20, f"{grown / 10_000:.0f} bytes a copy"


def test_a_tensor_is_held_until_the_device_has_read_it() -> None:
    run = load(SPIN).get_function("spin")
    move = tvm_ffi.get_global_func("burnish.opencl.move")
    out = zeros((1,), "float32")
    for number in range(20):
        run(out, 3_000_000, 1, 1)  # the copies wait behind it
        found = [
            move(tvm.runtime.tensor(np.full((1 << 16) + at, number + at, "int32")), 4, 0)
            for at in range(4)
        ]
        over = [np.full((1 << 16) + at, -1, "int32") for at in range(4)]  # in freed memory
        assert runtime.counters()["live_sends"] >= 1
        for at, one in enumerate(found):
            assert set(move(one, 1, 0).numpy()) == {number + at}
        del over
    assert runtime.counters()["live_sends"] == 0
    view = tvm.runtime.tensor(np.zeros((4, 4), "float32"))
    with pytest.raises(ValueError, match="between the host and OpenCL, not from device type 1"):
        move(view, 1, 0)


def test_modules_give_their_kernels_back() -> None:
    out = zeros((64,), "float32")
    gc.collect()
    before = runtime.counters()["live_kernels"]
    module = load(FILL)
    run = module.get_function("fill")
    run(out, 1.0, 1, 64)
    assert runtime.counters()["live_kernels"] == before + 1
    del module
    run(out, 2.0, 1, 64)  # a function outlives its module
    assert out.numpy()[0] == 2
    del run
    gc.collect()
    assert runtime.counters()["live_kernels"] == before


def test_threads_share_a_kernel() -> None:
    run = load(FILL).get_function("fill")
    wrong: list[str] = []

    def work(number: int) -> None:
        out = zeros((512,), "float32")
        for call in range(200):
            run(out, number * 1000 + call, 8, 64)
            if call % 10 == 0 and not (out.numpy() == number * 1000 + call).all():
                wrong.append(f"thread {number}, call {call}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_copies_of_parts_and_between_buffers() -> None:
    require_device()
    values = np.arange(24, dtype="int16").reshape(4, 6)
    first = tvm.runtime.tensor(values, tvm.opencl(0))
    second = tvm.runtime.empty((4, 6), "int16", tvm.opencl(0))
    first.copyto(second)
    np.testing.assert_array_equal(second.numpy(), values)
    empty = tvm.runtime.empty((0, 6), "int16", tvm.opencl(0))
    assert empty.numpy().shape == (0, 6)


def test_a_buffer_larger_than_the_device_allows() -> None:
    device = require_device()
    before = runtime.counters()
    with pytest.raises(MemoryError, match=rf"its largest buffer is {device.max_alloc_bytes} bytes"):
        tvm.runtime.empty((device.max_alloc_bytes + 1,), "uint8", tvm.opencl(0))
    assert runtime.counters()["live_buffers"] == before["live_buffers"]


def test_the_timer_sums_the_times_of_the_device() -> None:
    module = load(SPIN)
    out = zeros((1,), "float32")
    before = runtime.counters()
    found = module.time_evaluator("spin", tvm.opencl(0), number=5, repeat=300)(out, 1_000, 1, 1)
    after = runtime.counters()
    assert len(found.results) == 300
    assert min(found.results) > 0
    assert after["timed"] - before["timed"] == 1500  # each of the timed calls, not the warm-up
    assert after["launched"] - before["launched"] == 1501
    assert after["live_events"] == before["live_events"]
    long = module.time_evaluator("spin", tvm.opencl(0), number=3000, repeat=1)(out, 1_000, 1, 1)
    assert long.mean > 0  # more commands than a timer keeps waiting
    assert runtime.counters()["timed"] - after["timed"] == 3000
    assert runtime.counters()["live_events"] == before["live_events"]
