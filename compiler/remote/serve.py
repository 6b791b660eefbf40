"""The device server: TVM's RPC, a process for each connection."""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from burnish.compiler.errors import ConfigError
from burnish.targets.remote.address import Address
from burnish.targets.remote.stream import MAGIC, NAME

HANDSHAKE_S = 10.0
MOST = 64
"""Connections at a time."""
_GRACE_S = 5.0
_PARENT_ENDS = 1
"""Linux's PR_SET_PDEATHSIG."""


def serve(
    host: str = "127.0.0.1",
    port: int = 9090,
    *,
    ready: Callable[[Address], object] = lambda _: None,
) -> None:
    """Serve this machine's devices until the process is told to end (SIGTERM, SIGINT).

    Whoever can connect can run code as this user. ``port`` 0 takes a free one; ``ready`` is
    called with the address. Raises :class:`ConfigError` for one that cannot be listened at.
    """
    # Imported before the first fork, so that a connection does not wait for it.
    import tvm.rpc.server  # noqa: F401

    from burnish.compiler import artifact  # noqa: F401
    from burnish.compiler.remote import hosted  # noqa: F401

    listener = _listening(host, port)
    folder = tempfile.TemporaryDirectory(prefix="burnish-devices-")
    children: dict[int, Path] = {}

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    ready(Address(host, listener.getsockname()[1]))
    try:
        while True:
            readable, _, _ = select.select([listener], [], [], 1.0)
            _reap(children)
            if not readable:
                continue
            _accept(listener, children, Path(folder.name))
    except KeyboardInterrupt:
        pass
    finally:
        listener.close()
        _end(children)
        folder.cleanup()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(
            f"cannot listen at {host}:{port}: {error}; give another --port, or --host an address "
            "of this machine"
        ) from error
    listener.listen(MOST)
    return listener


def _accept(listener: socket.socket, children: dict[int, Path], folder: Path) -> None:
    """A process for the next connection, with a folder of its own, which goes with it."""
    try:
        connection, _ = listener.accept()
    except OSError as error:
        print(f"a connection was not taken: {error}", file=sys.stderr, flush=True)
        return
    with connection:
        if len(children) >= MOST:
            print(f"a connection was refused: {MOST} are open", file=sys.stderr, flush=True)
            return
        own = Path(tempfile.mkdtemp(dir=folder))
        try:
            children[_forked(connection, listener, own)] = own
        except OSError as error:  # of fork: the others go on
            print(f"a connection was refused: {error}", file=sys.stderr, flush=True)
            own.rmdir()


def _forked(connection: socket.socket, listener: socket.socket, folder: Path) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        listener.close()
        _leave_with(parent)
        _session(connection, folder)
        code = 0
    except (OSError, ValueError, RuntimeError) as error:
        print(f"a connection ended: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def _leave_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_ENDS, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _session(connection: socket.socket, folder: Path) -> None:
    """Greet the client, as TVM's server does, and serve it until it leaves.

    All temporary files of the process are in ``folder``.
    """
    from tvm.rpc import _ffi_api, base

    from burnish.compiler.remote.hosted import offered

    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.settimeout(HANDSHAKE_S)
    magic, length = struct.unpack("<ii", base.recvall(connection, 8))
    if magic not in (base.RPC_MAGIC, MAGIC) or not 0 <= length <= 4096:
        raise ValueError("what connected does not speak TVM's RPC")
    name = base.recvall(connection, length).decode()
    if magic == MAGIC:
        _hand_over(connection, folder.parent, name)
        return
    own = b"server:burnish"
    connection.sendall(struct.pack("<ii", base.RPC_CODE_SUCCESS, len(own)) + own)
    connection.settimeout(None)
    tempfile.tempdir = str(folder)
    offered(folder)
    _ffi_api.ServerLoop(connection.fileno())


def _hand_over(connection: socket.socket, folder: Path, name: str) -> None:
    """Give a connection for data to the process that waits for it under this name."""
    if not NAME.fullmatch(name):
        raise ValueError("a connection for data has no name")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as there:
        there.settimeout(HANDSHAKE_S)
        there.connect(str(folder / name))
        socket.send_fds(there, [b"."], [connection.fileno()])


def _reap(children: dict[int, Path]) -> None:
    for child in list(children):
        if os.waitpid(child, os.WNOHANG)[0]:
            shutil.rmtree(children.pop(child), ignore_errors=True)


def _end(children: dict[int, Path]) -> None:
    for child in children:
        os.kill(child, signal.SIGTERM)
    until = time.monotonic() + _GRACE_S
    while children and time.monotonic() < until:
        _reap(children)
        time.sleep(0.02)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
