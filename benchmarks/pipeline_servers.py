"""A process that calls one artifact as fast as it goes, on some cores, and the handle of one.

    python benchmarks/pipeline_servers.py ARTIFACT INPUTS CORES

``ARTIFACT`` is called with the arrays of the ``.npz`` file ``INPUTS`` for the seconds that each
line of standard input says; the answer is calls a second. ``CORES`` are numbers with commas.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np


class Server:
    """A process that serves one artifact on some cores."""

    def __init__(self, folder: Path, artifact: str, cores: tuple[int, ...]) -> None:
        command = [sys.executable, "-P", __file__, str(folder / artifact)]
        command += [str(folder / "inputs.npz"), ",".join(map(str, cores))]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Server:
        if self.line() != "ready":
            raise RuntimeError("a server did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def rate(self) -> float:
        """Calls a second of what :meth:`begin` began, when it has ended."""
        return float(self.line())

    def begin(self, seconds: float) -> None:
        assert self.process.stdin is not None
        print(seconds, file=self.process.stdin, flush=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def serve(artifact: Path, inputs: Path, cores: tuple[int, ...]) -> None:
    """Call an artifact as fast as it goes for the seconds that each line of stdin says."""
    os.sched_setaffinity(0, cores)
    sys.modules["torch"] = None  # type: ignore[assignment]
    from burnish.runtime.model import load

    model = load(artifact)
    model.use_threads(len(cores))
    arrays = list(np.load(inputs).values())
    for _ in range(3):
        model(*arrays)
    print("ready", flush=True)
    for line in sys.stdin:
        end, calls, start = float(line), 0, time.monotonic()
        while time.monotonic() - start < end:
            model(*arrays)
            calls += 1
        print(calls / (time.monotonic() - start), flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]), tuple(map(int, sys.argv[3].split(","))))
