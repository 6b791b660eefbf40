"""A device server in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from burnish.targets.remote.address import Address

START_S = 60.0


class Server:
    """``burnish serve-device`` on a free port; ended on leaving."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start it, on the port that it had before."""
        command = [sys.executable, "-c", "from burnish.cli import main; main()", "serve-device"]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said.startswith("serving rpc://127.0.0.1:"), said
        assert "can run code" in said
        self.port = int(said.split("/cpu")[0].rpartition(":")[2])

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port)

    def device(self, name: str = "cpu") -> str:
        return f"rpc://{self.address}/{name}"

    def sessions(self) -> list[psutil.Process]:
        found = psutil.Process(self.process.pid).children()
        return [one for one in found if one.status() != psutil.STATUS_ZOMBIE]

    def kill(self) -> None:
        """End it as a power cut would."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(START_S)
        self._closed()

    def close(self) -> int:
        self.process.terminate()
        code = self.process.wait(START_S)
        self._closed()
        return code

    def _closed(self) -> None:
        if self.process.stdout is not None:
            self.process.stdout.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def folders() -> set[Path]:
    """Folders of servers that have not been removed."""
    import tempfile

    return set(Path(tempfile.gettempdir()).glob("burnish-devices-*"))
