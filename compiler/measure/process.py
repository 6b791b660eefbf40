"""A worker process as its parent sees it: started, asked, and put an end to."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO, Any

from burnish.compiler.errors import MeasureError
from burnish.compiler.measure.wire import Channel
from burnish.targets.remote import allowed

START_S = 120.0
TAIL = 2000


class RemoteError(MeasureError):
    """The worker answered that the request failed; it lives on. ``trace`` is its traceback."""

    def __init__(self, message: str, trace: str) -> None:
        super().__init__(message)
        self.trace = trace


def thread_environment(threads: int) -> dict[str, str]:
    """This process's environment with every pool held to ``threads``.

    TVM's binding is off: its affinity puts several threads on one core where the pool's size is
    set by hand.
    """
    count = str(threads)
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TVM_NUM_THREADS")
    own = {**dict.fromkeys(pools, count), "TVM_BIND_THREADS": "0"}
    return {**os.environ, **allowed.environment(), **own}


class Worker:
    """One child process. A wait past its limit, or the child's death, ends it with MeasureError.

    Made without waiting; the first request waits until the child has imported ``imports``.
    """

    def __init__(self, name: str, threads: int, imports: Sequence[str] = ()) -> None:
        self.name = name
        self.ready = False
        self.stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        ours, theirs = socket.socketpair()
        fd = theirs.fileno()
        command = [sys.executable, "-m", "burnish.compiler.measure.worker"]
        self.process = subprocess.Popen(
            [*command, str(fd), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=self.stderr,
            stderr=self.stderr,
            pass_fds=[fd],
            env=thread_environment(threads),
            start_new_session=True,
        )
        theirs.close()
        self.channel = Channel(ours)
        self.channel.send((list(sys.path), threads, tuple(imports)))

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def ask(self, verb: str, *arguments: Any, timeout: float, doing: str) -> Any:
        """The worker's answer. ``doing`` completes "while ..." in errors.

        RemoteError when the request failed in the worker; MeasureError when the worker died or
        did not answer in ``timeout`` seconds, after which it is gone.
        """
        if not self.ready:
            self._exchange(None, START_S, "starting")
            self.ready = True
        return self._exchange((verb, arguments), timeout, doing)

    def _exchange(self, message: Any, timeout: float, doing: str) -> Any:
        start = time.monotonic()
        try:
            if message is not None:
                self.channel.send(message, timeout)
            status, value = self.channel.receive(max(0.1, timeout - (time.monotonic() - start)))
        except TimeoutError:
            text = f"{self.name}: no answer within {timeout:g} s while {doing}; its process was"
            text += f" ended{self._tail()}"
            self.close()
            raise MeasureError(text) from None
        except (EOFError, OSError):
            text = f"{self.name}: its process {self._death()} while {doing}{self._tail()}"
            self.close()
            raise MeasureError(text) from None
        except BaseException:
            self.close()
            raise
        if status == "error":
            raise RemoteError(f"{self.name}: {value[0]} (while {doing})", value[1])
        return value

    def _death(self) -> str:
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        if code < 0:
            return f"died of {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def _tail(self) -> str:
        end = os.fstat(self.stderr.fileno()).st_size
        text = os.pread(self.stderr.fileno(), TAIL, max(0, end - TAIL)).decode(errors="replace")
        return f"; its last output:\n{text.strip()}" if text.strip() else ""

    def close(self) -> None:
        """End the process and all it started."""
        self.channel.close()
        if self.process.poll() is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(START_S)
        self.stderr.close()
