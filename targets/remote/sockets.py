"""Sockets that other code of this process has opened: found, limited, shut."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Collection
from contextlib import suppress

_OPEN_FILES = ("/proc/self/fd", "/dev/fd")


def open_files() -> dict[int, int]:
    """A file descriptor of each open file of this process, by the file's number."""
    folder = next((one for one in _OPEN_FILES if os.path.isdir(one)), "")
    if not folder:
        raise OSError("this system does not list a process's open files: no remote devices here")
    found: dict[int, int] = {}
    for name in os.listdir(folder):
        with suppress(OSError):  # it was closed meanwhile
            found[os.fstat(int(name)).st_ino] = int(name)
    return found


def connected_sockets(port: int, known: Collection[int]) -> list[socket.socket]:
    """Copies of the sockets that are connected to the port, but for those that are known."""
    found: list[socket.socket] = []
    for number, descriptor in open_files().items():
        if number in known:
            continue
        try:
            own = socket.socket(fileno=os.dup(descriptor))
        except OSError:  # no socket, or it was closed meanwhile
            continue
        if _port(own) == port:
            found.append(own)
        else:
            own.close()
    return found


def _port(own: socket.socket) -> int | None:
    try:
        peer = own.getpeername()
    except OSError:
        return None
    return peer[1] if isinstance(peer, tuple) else None


def limit_waits(own: socket.socket, seconds: float) -> None:
    """Let receiving and sending fail that wait longer, for whoever uses the socket."""
    whole = int(seconds)
    packed = struct.pack("@ll", whole, max(1, int((seconds - whole) * 1e6)))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        own.setsockopt(socket.SOL_SOCKET, option, packed)


def shut(own: socket.socket) -> None:
    """End a connection, for whoever waits at it too."""
    with suppress(OSError):  # the other side was first
        own.shutdown(socket.SHUT_RDWR)
