"""The process of a stage as its parent sees it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from burnish.compiler.errors import TargetError
from burnish.compiler.measure.process import thread_environment
from burnish.compiler.pipelines.plan import Plan
from burnish.compiler.pipelines.worker import MESSAGE_BYTES

TAIL = 2000
LEAVE_S = 5.0


class StageProcess:
    """One child process; made without waiting, it says when it is ready.

    ``outstanding`` maps the micro-batches that it was given and has not finished to their frames;
    ``since`` is when it last began to owe an answer.
    """

    def __init__(self, plan: Plan, number: int, folder: Path, memory: int, frames: int) -> None:
        if not hasattr(socket, "SOCK_SEQPACKET") or not sys.platform.startswith("linux"):
            raise TargetError("stages as processes need Linux: use engine='threads'", stage="run")
        stage = plan.stages[number]
        self.number, self.device = number, stage.device.name
        self.ready = False
        self.outstanding: dict[int, int] = {}
        self.since = time.monotonic()
        setup = {
            "artifact": str((folder / stage.artifact).resolve()),
            "takes": stage.takes,
            "gives": stage.gives,
            "values": {
                name: {"shape": spec.shape, "dtype": spec.dtype}
                for name, spec in plan.values.items()
            },
            "device": stage.device.name,
            "cores": stage.device.cores,
            "frames": frames,
        }
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with tempfile.TemporaryFile("w+") as given, theirs:
            json.dump(setup, given)
            given.seek(0)
            command = [sys.executable, "-m", "burnish.compiler.pipelines.worker"]
            environment = thread_environment(stage.device.threads)
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
            self.process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(memory)],
                stdin=given,
                stdout=self.stderr,
                stderr=self.stderr,
                pass_fds=[theirs.fileno(), memory],
                env=environment,
                start_new_session=True,
            )
        ours.setblocking(False)
        self.channel = ours

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, number: int, frame: int) -> None:
        """Give it a micro-batch."""
        if not self.outstanding:
            self.since = time.monotonic()
        self.outstanding[number] = frame
        try:
            self.channel.send(json.dumps([number, frame]).encode())
        except OSError:
            return  # it died: its end of the channel says so, and all outstanding is given again

    def receive(self) -> Any:
        """Its message; None where it is gone. Blocks only where nothing waits to be read."""
        try:
            data = self.channel.recv(MESSAGE_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            return None
        self.since = time.monotonic()
        return json.loads(data) if data else None

    def death(self) -> str:
        """How it ended, and the last that it printed."""
        try:
            code = self.process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            return "closed its channel"
        text = f"ended with exit code {code}"
        if code < 0:
            text = f"died of {signal.Signals(-code).name}"
        end = os.fstat(self.stderr.fileno()).st_size
        tail = os.pread(self.stderr.fileno(), TAIL, max(0, end - TAIL)).decode(errors="replace")
        return f"{text}; its last output:\n{tail.strip()}" if tail.strip() else text

    def kill(self) -> None:
        """End it at once, with all it started."""
        if self.process.poll() is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                self.process.kill()

    def close(self, limit_s: float = LEAVE_S) -> None:
        """Let it leave after the call it is in, or end it after ``limit_s``."""
        self.channel.close()
        try:
            self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(LEAVE_S)
        self.stderr.close()
