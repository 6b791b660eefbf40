"""Bytes beside TVM's RPC, on a connection of their own to the same port.

TVM's RPC writes what it is given byte by byte, 20 to 70 MB/s. So what is large goes beside it:
calls and answers are TVM's, and say how many bytes wait here.
"""

from __future__ import annotations

import queue
import re
import socket
import struct
import threading
import time

from burnish.targets.remote.sockets import shut

MAGIC = 0x0B17_5715
"""What such a connection begins with, in the place of TVM's; then the length of a name, and it."""
LARGE = 16 << 10
"""Bytes from which on they go beside a call, and not in it."""
NAME = re.compile(r"[0-9a-f]{32}")


def receive(own: socket.socket, size: int, limit: float | None = None) -> bytearray:
    """``size`` bytes; ``ConnectionError`` where fewer come, ``TimeoutError`` where not all of them
    come in ``limit`` seconds."""
    found = bytearray(size)
    view, at = memoryview(found), 0
    until = None if limit is None else time.monotonic() + limit
    while at < size:
        if until is not None:
            own.settimeout(max(1e-3, until - time.monotonic()))
        count = own.recv_into(view[at:])
        if not count:
            raise ConnectionError("the connection for data was closed")
        at += count
    return found


def greeting(name: str) -> bytes:
    """What the client sends first."""
    return struct.pack("<ii", MAGIC, len(name)) + name.encode()


class Stream:
    """The server's end: threads take in and give out, so that no side waits for the other."""

    def __init__(self, own: socket.socket) -> None:
        self._socket, self._broken = own, False
        self._taken: queue.SimpleQueue[bytearray | None] = queue.SimpleQueue()
        self._given: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        for work in (self._take_in, self._give_out):
            threading.Thread(target=work, name="burnish-stream", daemon=True).start()

    def take(self, size: int, limit: float) -> bytearray:
        """What the client sent; ``ValueError`` where it is not ``size`` bytes.

        Then the connection is over: what comes late would be taken for the next call's.
        """
        try:
            found = None if self._broken else self._taken.get(timeout=limit)
        except queue.Empty:
            found = None
        if found is None or len(found) != size:
            self._broken = True
            shut(self._socket)
            raise ValueError(f"{size} bytes did not come")
        return found

    def give(self, content: bytes) -> None:
        """Send to the client, in the background."""
        self._given.put(content)

    def _take_in(self) -> None:
        try:
            while True:
                (size,) = struct.unpack("<Q", receive(self._socket, 8))
                self._taken.put(receive(self._socket, size))
        except (OSError, MemoryError, OverflowError):
            self._taken.put(None)

    def _give_out(self) -> None:
        try:
            while True:
                self._socket.sendall(self._given.get())
        except OSError:
            return
