"""A model split over processes that run each call together."""

from __future__ import annotations

import atexit
import contextlib
import os
import selectors
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from burnish.compiler.parallel.group import HALVES, GroupError, meshed
from burnish.compiler.parallel.plan import Ranks
from burnish.compiler.parallel.rank_process import RankProcess
from burnish.compiler.pipelines.core_sets import parse_devices
from burnish.compiler.pipelines.frames import Frames, layout_of, mapped, shared_memory
from burnish.compiler.pipelines.pipeline import check_limit
from burnish.compiler.signature import TensorSpec

START_S = 120.0
TIMEOUT_S = 60.0
GRACE_S = 2.0
"""After a rank's failure: how long the others may take to say what they know of it."""
PAGE = 4096
WARM = -1


class TensorParallel:
    """A model over ranks, each a process with its part of the weights; calls take turns.

    ``report`` says what each rank holds and what they tell each other. ``close`` ends the
    processes, as leaving a ``with`` does; after a failure of any rank all are ended, and what
    happened is told by the call and by every later one. A call may take ``timeout_s`` seconds.
    """

    def __init__(
        self,
        folder: Path,
        ranks: Ranks,
        timeout_s: float = TIMEOUT_S,
        owner: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        check_limit(timeout_s)
        signature, report = ranks.signature, ranks.report
        self.signature, self.report, self.timeout_s = signature, report, timeout_s
        self._owner = owner
        self._takes = [f"input.{at}" for at in range(len(signature.inputs))]
        self._gives = [f"output.{at}" for at in range(len(signature.outputs))]
        specs = [*signature.inputs, *signature.outputs]
        self._values = {
            name: TensorSpec(name, tuple(map(int, spec.shape)), spec.dtype)
            for name, spec in zip([*self._takes, *self._gives], specs, strict=True)
        }
        parts = len(ranks.devices)
        layout = layout_of(self._values)
        # A sum takes a place for each rank, a gather one.
        half = max((one.bytes * parts for one in report.collectives), default=0)
        half = max(PAGE, -(-half // PAGE) * PAGE)
        self._frame, self._memory = shared_memory(layout.size), shared_memory(HALVES * half)
        self._frames = Frames(layout, mapped(self._frame, layout.size), 1)
        self._lock = threading.Lock()
        self._ranks: list[RankProcess] = []
        self._calls = 0
        self._error: GroupError | None = None
        self._open = True
        atexit.register(self.close)
        channels = meshed(parts)
        try:
            for rank, (device, count) in enumerate(zip(ranks.devices, ranks.threads, strict=True)):
                self._ranks.append(
                    RankProcess(
                        {
                            "artifact": str((folder / Ranks.artifact(rank)).resolve()),
                            "rank": rank,
                            "device": device.name,
                            "cores": device.cores,
                            "threads": count,
                            "takes": self._takes,
                            "gives": self._gives,
                            "values": {
                                name: {"shape": spec.shape, "dtype": spec.dtype}
                                for name, spec in self._values.items()
                            },
                            "frame": self._frame,
                            "memory": self._memory,
                            "half": half,
                            "timeout_s": timeout_s,
                            "peers": [None if c is None else c.fileno() for c in channels[rank]],
                        }
                    )
                )
            for row in channels:
                for channel in filter(None, row):
                    channel.close()
            self._wait(lambda message: "loaded" in message, START_S, "start")
            self._tell(WARM)
            self._wait(lambda message: "ready" in message, START_S + timeout_s, "run on zeros")
        except BaseException:
            self.close()
            raise

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model: NumPy arrays out, nested as in the source model.

        Raises :class:`~burnish.compiler.errors.InvalidInputError` for a wrong number, dtype or
        shape of inputs, :class:`GroupError` where a rank ended, failed or took too long.
        """
        leaves = [np.asarray(leaf) for leaf in self.signature.flatten(args, kwargs)]
        self.signature.check(leaves)
        with self._lock:
            if self._error is not None:
                raise self._error
            if not self._open:
                raise GroupError("the ranks are closed")
            for place, leaf in zip(self._frames.arrays(0, self._takes), leaves, strict=True):
                np.copyto(place, leaf)
            number = self._calls
            self._calls += 1
            self._tell(number)
            limit = self.timeout_s + GRACE_S  # a rank that waits for another tells more
            self._wait(lambda m: isinstance(m, list) and m[0] == number, limit, "run")
            given = [array.copy() for array in self._frames.arrays(0, self._gives)]
        return self.signature.unflatten(given)

    @property
    def pids(self) -> list[int]:
        """The ranks' processes."""
        return [rank.pid for rank in self._ranks]

    def close(self) -> None:
        """End the processes; nothing of them is left."""
        if not self._open:
            return
        self._open = False
        atexit.unregister(self.close)
        for rank in self._ranks:
            rank.channel.close()
        for rank in self._ranks:
            rank.close()
        os.close(self._frame)
        os.close(self._memory)
        if self._owner is not None:
            self._owner.cleanup()

    def __enter__(self) -> TensorParallel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tell(self, number: int) -> None:
        for rank in self._ranks:
            rank.send(number, 0)

    def _wait(self, wanted: Any, limit_s: float, doing: str) -> None:
        """Until every rank has answered as ``wanted``; else all are ended and the cause is told."""
        pending, end = {rank.number for rank in self._ranks}, time.monotonic() + limit_s
        causes: list[str] = []
        lost: list[str] = []
        with selectors.DefaultSelector() as selector:
            for rank in self._ranks:
                selector.register(rank.channel, selectors.EVENT_READ, rank)
            while pending:
                left = end - time.monotonic()
                if left <= 0:
                    break
                for key, _ in selector.select(left):
                    rank = key.data
                    message = rank.receive()
                    failed = isinstance(message, dict) and "error" in message
                    if message is None or failed:
                        selector.unregister(rank.channel)
                        pending.discard(rank.number)
                        where = f"rank {rank.number} on {rank.device}"
                        text = message["error"] if failed else rank.death()
                        known = lost if failed and message["lost"] else causes
                        known.append(f"{where} failed: {text}" if failed else f"{where} {text}")
                        end = min(end, time.monotonic() + GRACE_S)
                    elif message and wanted(message):
                        pending.discard(rank.number)
        if causes or lost:
            self._fail((causes or lost)[0])
        if pending:
            self._fail(f"ranks {sorted(pending)} did not {doing} within {limit_s:g} s")

    def _fail(self, why: str) -> None:
        self._error = GroupError(why, stage="run")
        for rank in self._ranks:
            with contextlib.suppress(OSError):
                rank.kill()
        self.close()
        raise self._error


def load_tensor_parallel(folder: str | Path, timeout_s: float = TIMEOUT_S) -> TensorParallel:
    """The split model saved in ``folder``, on the devices that it was made for.

    Raises :class:`~burnish.compiler.errors.ArtifactError` for a missing or damaged one. It runs
    the libraries that are inside: load only what you trust.
    """
    path = Path(folder)
    ranks = Ranks.load(path)
    parse_devices([device.name for device in ranks.devices], here=True)
    return TensorParallel(path, ranks, timeout_s)


__all__ = ["TIMEOUT_S", "TensorParallel", "load_tensor_parallel"]
