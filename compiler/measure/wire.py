"""Length-prefixed messages over a socket, each wait with a time limit."""

from __future__ import annotations

import pickle
import socket
import struct
import time
from typing import Any

HEADER = struct.Struct("<Q")
CHUNK = 1 << 20


class Channel:
    """One end of the pipe between this process and a child of its own.

    Messages are pickled. A pickle can run code, so a channel only ever joins a process with a
    child that it started itself, over an unnamed socket pair.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, message: Any, timeout: float | None = None) -> None:
        """Send one message; TimeoutError after ``timeout`` seconds, OSError if the end is gone."""
        body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        self.sock.settimeout(timeout)
        self.sock.sendall(HEADER.pack(len(body)))
        self.sock.sendall(body)

    def receive(self, timeout: float | None = None) -> Any:
        """The next message; TimeoutError after ``timeout`` seconds in all, EOFError at the end."""
        deadline = None if timeout is None else time.monotonic() + timeout
        (length,) = HEADER.unpack(self._exactly(HEADER.size, deadline))
        return pickle.loads(self._exactly(length, deadline))  # noqa: S301 - see the class

    def _exactly(self, count: int, deadline: float | None) -> bytearray:
        data = bytearray(count)
        view = memoryview(data)
        done = 0
        while done < count:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            self.sock.settimeout(left)
            got = self.sock.recv_into(view[done : done + CHUNK])
            if got == 0:
                raise EOFError
            done += got
        return data

    def close(self) -> None:
        self.sock.close()
