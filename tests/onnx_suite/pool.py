"""Two workers that share out the cases; a crash or a hang costs its case only."""

from __future__ import annotations

import json
import os
import queue
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

WORKERS = 2
LIMIT_S = 90.0
"""For one case."""
START_S = 240.0
TESTS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Outcome:
    """``status`` is pass, random (right, judged as drawn), inexact (the expected values are less
    exact than ours), refused, wrong, failed, crash or timeout."""

    name: str
    status: str
    reason: str = ""
    seconds: float = 0.0


def run_all(
    names: Iterable[str],
    *,
    workers: int = WORKERS,
    report: Callable[[Outcome], None] = lambda outcome: None,
) -> dict[str, Outcome]:
    """Run cases by name; ``report`` is called with each outcome as it comes."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    todo = list(names)
    for name in todo:
        waiting.put(name)
    found: dict[str, Outcome] = {}
    lock = threading.Lock()

    def serve() -> None:
        worker = Worker()
        try:
            while True:
                try:
                    name = waiting.get_nowait()
                except queue.Empty:
                    return
                outcome = worker.run(name)
                with lock:
                    found[name] = outcome
                    report(outcome)
        finally:
            worker.stop()

    threads = [threading.Thread(target=serve) for _ in range(min(workers, len(todo)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    missing = [name for name in todo if name not in found]
    if missing:
        raise RuntimeError(f"no outcome for {missing[:5]}: the workers do not start")
    return found


class Worker:
    """One process; started when first needed, and again after it died."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.answers = -1
        self._rest = b""

    def run(self, name: str) -> Outcome:
        """The outcome of one case."""
        if self.process is None:
            self._start()
        assert self.process is not None
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(name + "\n")
            self.process.stdin.flush()
            line = self._line(LIMIT_S)
        except BrokenPipeError:
            line = ""
        if line:
            status, reason, seconds = json.loads(line)
            return Outcome(name, status, reason, seconds)
        if line is None:
            self.stop()
            return Outcome(name, "timeout", f"over {LIMIT_S:.0f} s", LIMIT_S)
        code = self.process.wait()
        self.stop()
        return Outcome(name, "crash", f"the process ended with {code}")

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            os.close(self.answers)
        self.process = None

    def _start(self) -> None:
        read, write = os.pipe()
        path = os.pathsep.join(p for p in (os.environ.get("PYTHONPATH"), str(TESTS)) if p)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "onnx_suite.worker", str(write)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if not os.environ.get("ONNX_SUITE_STDERR") else None,
            text=True,
            pass_fds=(write,),
            env={**os.environ, "PYTHONPATH": path, "BURNISH_CACHE_LIMIT": "0"},
        )
        os.close(write)
        self.answers, self._rest = read, b""
        if self._line(START_S) != "ready":
            self.stop()
            raise RuntimeError(
                "a worker of the suite does not start: run python -m onnx_suite.worker"
            )

    def _line(self, limit: float) -> str | None:
        """The next line; "" at the end of the stream, None after ``limit`` seconds."""
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self.answers], [], [], limit)
            if not ready:
                return None
            chunk = os.read(self.answers, 1 << 16)
            if not chunk:
                return ""
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()
