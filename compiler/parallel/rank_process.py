"""The process of a rank as its parent sees it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

from burnish.compiler.errors import TargetError
from burnish.compiler.measure.process import thread_environment
from burnish.compiler.pipelines.stage_process import StageProcess


class RankProcess(StageProcess):
    """One child process, started without waiting; ``setup`` is what its worker reads."""

    def __init__(self, setup: dict[str, Any]) -> None:
        if not hasattr(socket, "SOCK_SEQPACKET") or not sys.platform.startswith("linux"):
            raise TargetError("ranks as processes need Linux", stage="run")
        self.number, self.device = setup["rank"], setup["device"]
        self.ready = False
        self.outstanding = {}
        self.since = time.monotonic()
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peers = [fd for fd in setup["peers"] if fd is not None]
        with tempfile.TemporaryFile("w+") as given, theirs:
            json.dump(setup, given)
            given.seek(0)
            environment = thread_environment(setup["threads"])
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
            worker = "burnish.compiler.parallel.worker"
            self.process = subprocess.Popen(
                [sys.executable, "-m", worker, str(theirs.fileno())],
                stdin=given,
                stdout=self.stderr,
                stderr=self.stderr,
                pass_fds=[theirs.fileno(), setup["frame"], setup["memory"], *peers],
                env=environment,
                start_new_session=True,
            )
        ours.setblocking(False)
        self.channel = ours
