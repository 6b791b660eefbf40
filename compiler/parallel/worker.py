"""The process of one rank: ``python -m burnish.compiler.parallel.worker FD < SETUP``.

FD is its end of a socket pair with the parent, SETUP a JSON object, in which other file
descriptors are told: the memory of inputs and outputs, that of the collectives, and a socket to
every other rank. It needs neither torch nor TVM's compiler. It leaves when the parent's end closes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from typing import Any

from burnish.compiler.pipelines.worker import MESSAGE_BYTES


def main(descriptor: int) -> None:
    """Answer each ``"run"`` with ``[number, start, end]`` until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its ranks
    channel = socket.socket(fileno=descriptor)
    try:
        _serve(channel, json.load(sys.stdin))
    except (ConnectionError, BrokenPipeError):
        return
    except Exception as error:  # noqa: BLE001 - every failure is the parent's to tell
        traceback.print_exc()
        group = sys.modules.get("burnish.compiler.parallel.group")
        known = group.failure() if group is not None else None
        told = known or error
        lost = group is not None and isinstance(told, group.LostRank)
        _send(channel, {"error": f"{type(told).__name__}: {told}"[:4096], "lost": lost})


def _serve(channel: socket.socket, setup: dict[str, Any]) -> None:
    # tvm-ffi imports torch where there is one, which takes seconds and is of no use here.
    sys.modules["torch"] = None  # type: ignore[assignment]
    from burnish.compiler.parallel.group import HALVES, Group, join
    from burnish.compiler.pipelines.core_sets import CoreSet
    from burnish.compiler.pipelines.frames import Frames, layout_of, mapped
    from burnish.compiler.pipelines.stage import open_stage, run_stage, warm
    from burnish.runtime.signature import TensorSpec
    from burnish.runtime.tensors import aligned, numpy_dtype

    CoreSet(setup["device"], tuple(setup["cores"])).bind()
    rank = int(setup["rank"])
    values = {
        name: TensorSpec(name, tuple(item["shape"]), item["dtype"])
        for name, item in setup["values"].items()
    }
    takes, gives = setup["takes"], setup["gives"]
    layout = layout_of(values)
    frames = Frames(layout, mapped(setup["frame"], layout.size), 1)
    peers = [None if fd is None else socket.socket(fileno=fd) for fd in setup["peers"]]
    half = setup["half"]
    group = Group(rank, peers, mapped(setup["memory"], HALVES * half), half, setup["timeout_s"])
    join(group)
    model = open_stage(setup["artifact"], takes, gives, values, setup["threads"])
    own = [aligned(tuple(map(int, values[n].shape)), numpy_dtype(values[n].dtype)) for n in gives]
    _send(channel, {"loaded": os.getpid()})
    while message := channel.recv(MESSAGE_BYTES):
        number = json.loads(message)[0]
        if number < 0:
            warm(model, values, takes)
            _send(channel, {"ready": os.getpid()})
        elif rank == 0:
            start, end = run_stage(model, frames, 0, takes, gives)
            _send(channel, [number, start, end])
        else:
            model.fill(frames.arrays(0, takes), own)
            _send(channel, [number, 0.0, 0.0])


def _send(channel: socket.socket, message: Any) -> None:
    channel.send(json.dumps(message).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]))
