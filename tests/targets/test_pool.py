"""The thread pool in every library: each iteration done once, whoever calls, whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st
from tvm import tirx
from tvm.script import tirx as T
from tvm.support import cc

from burnish.runtime import threads as process_threads
from burnish.targets.cpu import pool


@T.prim_func
def count(x: T.handle):
    T.func_attr({"global_symbol": "count", "tirx.noalias": True})
    n = T.int64()
    X = T.match_buffer(x, (n,), "int32")
    for i in T.parallel(n):
        X[i] = X[i] + 1


@T.prim_func
def check(x: T.handle):
    T.func_attr({"global_symbol": "check", "tirx.noalias": True})
    n = T.int64()
    X = T.match_buffer(x, (n,), "int32")
    for i in T.parallel(n):
        assert X[i] >= 0, "an element is negative"
        X[i] = X[i] + 1


@T.prim_func
def who(x: T.handle):
    T.func_attr({"global_symbol": "who", "tirx.noalias": True})
    n = T.int64()
    X = T.match_buffer(x, (n,), "int64")
    for i in T.parallel(n):
        X[i] = T.call_extern("int64", "pthread_self")
        if i == 0:
            T.evaluate(T.call_extern("int32", "usleep", 50000))


def built(folder: Path) -> Path:
    """A library of the kernels above with the pool in it."""
    module = tvm.IRModule({"count": count, "check": check, "who": who})
    module = pool.announce_iterations(module)
    path = folder / "kernels.so"
    linked = pool.compile_linked(cc.get_cc(), folder)
    tirx.build(module, target="llvm").export_library(str(path), addons=linked)
    return path


class Library:
    """The kernels, loaded."""

    def __init__(self, path: Path) -> None:
        self.module = tvm.runtime.load_module(str(path))
        self.threads = process_threads.adopt(self.module)
        self.own_pool = process_threads.own_pool(self.module)

    def __call__(self, kernel: str, values: np.ndarray) -> np.ndarray:
        tensor = tvm.runtime.tensor(values)
        self.module[kernel](tensor)
        return tensor.numpy()


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return built(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="module")
def library(path) -> Library:
    return Library(path)


def workers() -> list[Path]:
    """The pool's threads in this process."""
    tasks = Path("/proc/self/task").iterdir()
    return [task for task in tasks if (task / "comm").read_text().strip() == "burnish"]


@given(st.integers(0, 3000), st.integers(1, 9))
def test_each_iteration_is_done_once(library, extent, threads):
    library.threads(threads)
    values = np.arange(extent, dtype="int32")
    np.testing.assert_array_equal(library("count", values), values + 1)


def test_many_loops_in_a_row_are_all_whole(library):
    library.threads(4)
    tensor = tvm.runtime.tensor(np.zeros(37, "int32"))
    kernel = library.module["count"]
    for _ in range(20_000):
        kernel(tensor)
    np.testing.assert_array_equal(tensor.numpy(), np.full(37, 20_000))


def test_callers_at_the_same_time_do_not_mix(library):
    wrong: list[int] = []

    def work(seed: int) -> None:
        library.threads(1 + seed % 3)
        values = np.random.default_rng(seed).integers(0, 100, 200 + seed, dtype="int32")
        for _ in range(300):
            if not np.array_equal(library("count", values), values + 1):
                wrong.append(seed)

    callers = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


def test_what_a_slow_thread_has_not_begun_is_done_by_another(library):
    library.threads(2)
    for _ in range(50):  # until the second thread wakes while the first one is held up
        done_by = library("who", np.zeros(64, "int64"))
        if set(done_by[1:32]) - {done_by[0]}:
            assert len(set(done_by)) == 2
            return
    pytest.fail("the thread in the first iteration did all that it owned")


def test_an_error_in_any_iteration_reaches_the_caller(library):
    library.threads(3)
    values = np.zeros(100, "int32")
    for place in (0, 50, 99):
        bad = values.copy()
        bad[place] = -1
        with pytest.raises(Exception, match="an element is negative"):
            library("check", bad)
    np.testing.assert_array_equal(library("check", values), values + 1)


def test_threads_sleep_when_there_is_nothing_to_do(library):
    library.threads(3)
    library("count", np.zeros(100, "int32"))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        states = [(task / "stat").read_text().rsplit(")", 1)[1].split()[0] for task in workers()]
        if set(states) == {"S"}:
            return
        time.sleep(0.01)
    pytest.fail(f"the threads are {states}, not asleep")


def test_a_second_library_brings_no_threads_of_its_own(library, tmp_path):
    library.threads(4)
    library("who", np.zeros(8, "int64"))
    before = len(workers())
    other = Library(built(tmp_path))
    other.threads(4)
    values = np.arange(500, dtype="int32")
    for _ in range(20):
        np.testing.assert_array_equal(other("count", values), values + 1)
    assert len(workers()) == before >= 3


def test_pools_of_threads_own_run_at_the_same_time_on_the_cores_of_each(library):
    library.threads(1)
    old = set(workers())
    cores = sorted(os.sched_getaffinity(0))
    wrong: list[object] = []
    began = threading.Barrier(2, timeout=60)

    def work(count: int) -> None:
        os.sched_setaffinity(0, {cores[count % len(cores)]})
        library.own_pool(count)
        for round in range(300):
            values = np.arange(700 + round, dtype="int32")
            if not np.array_equal(library("count", values), values + 1):
                wrong.append(count)
        began.wait()
        started = set(workers()) - old  # those of both
        bound = sorted(core for task in started for core in os.sched_getaffinity(int(task.name)))
        if bound != sorted([cores[2 % len(cores)], *[cores[3 % len(cores)]] * 2]):
            wrong.append(bound)
        began.wait()
        with pytest.raises(Exception, match="an element is negative"):
            library("check", np.full(100, -1, "int32"))
        library.own_pool(2 * count)  # in the place of the first
        values = np.arange(500, dtype="int32")
        if not np.array_equal(library("count", values), values + 1):
            wrong.append(count)
        library.own_pool(0)

    callers = [threading.Thread(target=work, args=(count,)) for count in (2, 3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []
    assert set(workers()) == old


def test_a_forked_child_starts_threads_of_its_own(path):
    # In a process of its own: forking this one would copy every other library's locks as well.
    code = f"""
    import os, sys
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    import numpy as np
    from pathlib import Path
    from test_pool import Library, workers
    library = Library(Path({str(path)!r}))
    library.threads(3)
    values = np.arange(1000, dtype="int32")
    assert np.array_equal(library("count", values), values + 1)
    library.own_pool(2)
    assert np.array_equal(library("count", values), values + 1)
    child = os.fork()
    if child == 0:
        assert not workers()
        assert np.array_equal(library("count", values), values + 1)
        assert len(workers()) == 1
        library.own_pool(0)
    for _ in range(50):
        assert np.array_equal(library("count", values), values + 1)
    if child == 0:
        os._exit(10 + len(workers()))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert python(code).strip() == "12"


@pytest.mark.parametrize("last", ["del library", "os._exit(0)"])
def test_a_process_ends_cleanly_while_threads_spin(path, last):
    code = f"""
    import os, sys, threading
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    import numpy as np
    from pathlib import Path
    from test_pool import Library
    library = Library(Path({str(path)!r}))
    library.threads(4)
    library("count", np.zeros(1000, "int32"))
    library.own_pool(3)
    library("count", np.zeros(1000, "int32"))
    print("done", flush=True)
    {last}
    """
    assert python(code).strip() == "done"


def test_the_system_refusing_a_thread_is_an_error(path):
    code = f"""
    import resource, sys
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    import numpy as np
    from pathlib import Path
    from test_pool import Library
    library = Library(Path({str(path)!r}))
    library.threads(900)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20), -1))
    try:
        library("who", np.zeros(1000, "int64"))
    except RuntimeError as error:
        print(error)
    """
    assert "the system starts no more threads: compile the model with fewer" in python(code)


def test_a_pool_that_does_not_compile_says_what_the_compiler_said(tmp_path, monkeypatch):
    broken = tmp_path / "pool.c"
    broken.write_text("int broken(void) { return undeclared; }")
    monkeypatch.setattr(pool, "SOURCES", (broken,))
    with pytest.raises(RuntimeError, match=r"does not compile pool.c:(.|\n)*undeclared"):
        pool.compile_linked(cc.get_cc(), tmp_path)


def python(code: str) -> str:
    """What a fresh process prints; its failure is the test's."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
