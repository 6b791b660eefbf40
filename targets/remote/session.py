"""A connection to a device server: TVM's RPC, with a limit on every wait.

TVM's client waits without limit. So the socket that it opens is looked up among those of this
process, and given the system's own limits for receiving and sending.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from burnish.targets.remote.address import Address
from burnish.targets.remote.sockets import connected_sockets, limit_waits, open_files, shut
from burnish.targets.remote.stream import LARGE, greeting, receive

LIMIT = "BURNISH_REMOTE_LIMIT_S"
LIMIT_S = 60.0
CONNECT_S = 10.0
PREFIX = "burnish.device."
"""How the names of a server's functions begin."""
_connecting = threading.Lock()
_forgotten: list[object] = []
"""Connections of the process that this one was forked from: ending them would end its own."""


class DeviceLost(ConnectionError):
    """There is no server, it has gone, or it did not answer in time; the connection is closed."""


class Refused(RuntimeError):
    """The server answered that it cannot do what was asked; the connection lives on."""


def limit_s() -> float:
    """Seconds that one answer of a server may take: ``$BURNISH_REMOTE_LIMIT_S``, else 60."""
    given = os.environ.get(LIMIT, "")
    try:
        found = float(given) if given else LIMIT_S
    except ValueError:
        found = 0.0
    if not 0 < found < 1e6:
        raise ValueError(f"{LIMIT} must be a number of seconds above 0, got {given!r}")
    return found


class Session:
    """A connection; calls take turns, and one that fails for want of an answer closes it.

    Raises :class:`DeviceLost` where there is no server of ours at the address.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.process = os.getpid()
        self.held: set[str] = set()
        """What the server holds for this connection, by digest."""
        self.sending = threading.Lock()
        """To be had while a region is sent and opened: two models may hold the same one."""
        self._lock = threading.Lock()
        self._turns = threading.Lock()
        self._functions: dict[str, Any] = {}
        self._limit = 0.0
        self._stream: socket.socket | None = None
        short = min(CONNECT_S, limit_s())
        self._remote, self._socket = _connected(address, short)
        try:
            self.call("describe", limit=short)
            self._attach(str(self.call("stream", limit=short)), short)
        except Refused as error:
            self.close()
            raise DeviceLost(
                f"what listens at {address} is no device server of this version ({error}): start "
                f"one there with `{address.start}`"
            ) from None

    @property
    def lives(self) -> bool:
        """Whether it can be called: by the process that opened it, while nothing went wrong.

        Between calls nothing comes from a server; where something does, it is its end.
        """
        if self._socket is None or self.process != os.getpid():
            return False
        if not self._lock.acquire(blocking=False):
            return True
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        else:
            return False
        finally:
            self._lock.release()

    def call(self, name: str, *arguments: str | bytes | int, limit: float | None = None) -> Any:
        """The answer of a function of the server.

        ``limit`` is for this call, where it may take longer than :func:`limit_s`. Raises
        :class:`Refused` with what the server said, and :class:`DeviceLost`.
        """
        from tvm.error import RPCError

        given = limit_s() if limit is None else limit
        with self._lock:
            if self._socket is None:
                raise DeviceLost(f"the connection to {self.address} was closed before")
            start = time.monotonic()
            try:
                self._limited(given)
                if name not in self._functions:
                    self._functions[name] = self._remote.get_function(PREFIX + name)
                return self._functions[name](*arguments)
            except RPCError as error:
                said = str(error).partition("RPC call:")[2] or str(error)
                raise Refused(said.strip()) from None
            except AttributeError:
                raise Refused(f"it has no {PREFIX}{name}") from None
            except Exception as error:  # noqa: BLE001 - whatever TVM says, the stream is broken
                self.close()
                late = time.monotonic() - start >= 0.9 * given
                raise self._lost(given if late else None, error) from None
            except BaseException:  # Ctrl-C: an answer may be half read
                self.close()
                raise

    def exchange(
        self, name: str, *arguments: str | bytes | int, content: bytes, most: int
    ) -> bytes:
        """As :meth:`call` of a function that takes bytes last, and returns ``most`` bytes or less.

        What is large goes beside the call, each way (:mod:`.stream`). Where the bytes sent or to
        come are not all gone through, the connection is closed: the next call would take them for
        its own.
        """
        with self._turns:
            try:
                beside = len(content) >= LARGE
                if beside:
                    self._send(content)
                given = (b"", len(content)) if beside else (content, 0)
                found = self.call(name, *arguments, *given)
                size = found if isinstance(found, int) else len(found)
                if not 0 <= size <= most:
                    raise DeviceLost(
                        f"the server at {self.address} returns {size} bytes where {most} were "
                        "asked for: the connection was ended"
                    )
                return bytes(self._received(size) if isinstance(found, int) else found)
            except Refused:
                raise
            except BaseException:
                self.close()
                raise

    def _attach(self, name: str, limit: float) -> None:
        try:
            self._stream = socket.create_connection((self.address.host, self.address.port), limit)
            self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._stream.sendall(greeting(name))
            if not self.call("streams", limit=limit):
                raise ConnectionError("the server did not take it")
        except OSError as error:
            self.close()
            raise DeviceLost(f"no connection for data to {self.address}: {error}") from None

    def _send(self, content: bytes) -> None:
        with self._waiting() as stream:
            stream.sendall(struct.pack("<Q", len(content)))
            stream.sendall(content)

    def _received(self, size: int) -> bytearray:
        with self._waiting() as stream:
            return receive(stream, size, limit_s())

    @contextmanager
    def _waiting(self) -> Iterator[socket.socket]:
        """The connection for data with its limit; :class:`DeviceLost` where that ends the wait."""
        limit = limit_s()
        if self._stream is None:
            raise DeviceLost(f"the connection to {self.address} was closed before")
        try:
            self._stream.settimeout(limit)
            yield self._stream
        except OSError as error:
            self.close()
            late = isinstance(error, TimeoutError)
            raise self._lost(limit if late else None, error) from None

    def _lost(self, limit: float | None, error: Exception) -> DeviceLost:
        if limit is not None:
            why = f"did not answer within {limit:g} s ({LIMIT} sets the limit)"
        else:
            why = f"has gone ({_first_line(error)}): start it with `{self.address.start}`"
        return DeviceLost(f"the server at {self.address} {why}")

    def close(self) -> None:
        """End the connection; what waits for an answer is told so."""
        if self._stream is not None:
            shut(self._stream)
            self._stream.close()
            self._stream = None
        if self._socket is not None:
            shut(self._socket)
            self._socket.close()
            self._socket = None

    def _limited(self, seconds: float) -> None:
        if seconds != self._limit and self._socket is not None:
            limit_waits(self._socket, seconds)
            self._limit = seconds


_sessions: dict[Address, Session] = {}
_lock = threading.Lock()


def session_to(address: Address) -> Session:
    """This process's connection to a server: the one that is open, else a new one."""
    with _lock:
        found = _sessions.get(address)
        if found is not None and found.lives:
            return found
        if found is not None:
            _dropped(found)
        _sessions[address] = Session(address)
        return _sessions[address]


def disconnect(address: Address) -> None:
    """Close this process's connection, if there is one; the next use opens another."""
    with _lock:
        found = _sessions.pop(address, None)
    if found is not None:
        _dropped(found)


def _dropped(old: Session) -> None:
    if old.process == os.getpid():
        old.close()
    else:
        _forgotten.append(old)


def _connected(address: Address, limit: float) -> tuple[Any, socket.socket | None]:
    """TVM's session, and its socket with limits; connecting has ``limit`` seconds."""
    from tvm import rpc

    made: list[Any] = []

    def connect() -> None:
        try:
            made.append(rpc.connect(address.host, address.port))
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            made.append(error)

    with _connecting:
        before = set(open_files())
        thread = threading.Thread(target=connect, name="burnish-connect", daemon=True)
        thread.start()
        thread.join(limit)
        new = connected_sockets(address.port, before)
        if not made:
            for own in new:
                shut(own)
            thread.join(1.0)
            raise _none(address, f"no answer within {limit:g} s")
    if isinstance(made[0], BaseException):
        raise _none(address, _first_line(made[0])) from None
    if not new:
        raise RuntimeError(f"the connection to {address} is not among this process's sockets")
    for own in new[1:]:
        own.close()
    return made[0], new[0]


def _none(address: Address, why: str) -> DeviceLost:
    return DeviceLost(
        f"no device server at {address} ({why}): start one there with `{address.start}`, or take "
        "the device out of the target"
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
