"""The process of one stage: ``python -m burnish.compiler.pipelines.worker FD MEMORY < SETUP``.

FD is its end of a socket pair, MEMORY the frames' memory, SETUP a JSON object. It needs
neither torch nor TVM's compiler, so that it starts in a part of a second. It leaves when the other
end closes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from typing import Any

MESSAGE_BYTES = 1 << 16


def main(descriptor: int, memory: int) -> None:
    """Answer ``[number, frame]`` with ``[number, start, end]`` until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its stages
    channel = socket.socket(fileno=descriptor)
    try:
        _serve(channel, json.load(sys.stdin), memory)
    except (ConnectionError, BrokenPipeError):
        return
    except Exception as error:  # noqa: BLE001 - every failure is the parent's to tell
        traceback.print_exc()
        _send(channel, {"error": f"{type(error).__name__}: {error}"[:4096]})


def _serve(channel: socket.socket, setup: dict[str, Any], memory: int) -> None:
    # tvm-ffi imports torch where there is one, which takes seconds and is of no use here.
    sys.modules["torch"] = None  # type: ignore[assignment]
    from burnish.compiler.pipelines.core_sets import CoreSet
    from burnish.compiler.pipelines.frames import Frames, layout_of, mapped
    from burnish.compiler.pipelines.stage import open_stage, run_stage, warm
    from burnish.runtime.signature import TensorSpec

    device = CoreSet(setup["device"], tuple(setup["cores"]))
    device.bind()

    values = {
        name: TensorSpec(name, tuple(item["shape"]), item["dtype"])
        for name, item in setup["values"].items()
    }
    takes, gives = setup["takes"], setup["gives"]
    layout = layout_of(values)
    frames = Frames(layout, mapped(memory, layout.size * setup["frames"]), setup["frames"])
    model = open_stage(setup["artifact"], takes, gives, values, device.threads)
    if model.signature.static:
        warm(model, values, takes)
    _send(channel, {"ready": os.getpid()})
    while message := channel.recv(MESSAGE_BYTES):
        number, frame = json.loads(message)
        start, end = run_stage(model, frames, frame, takes, gives)
        _send(channel, [number, start, end])


def _send(channel: socket.socket, message: Any) -> None:
    channel.send(json.dumps(message).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
