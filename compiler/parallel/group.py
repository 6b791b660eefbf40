"""A rank's side of a group: sums and gathers over shared memory, and a barrier with time limits.

A collective is: write what is ours to the shared memory, tell every other rank, hear every other
rank, read. Ranks hear each other over sockets, one pair for each two of them: a rank that waits
sleeps, the kernel orders the memory, and an ended process closes its sockets, so that all others
know at once. Two halves of the memory take turns, so that one barrier a collective is enough: a
rank that writes a half again has heard, in between, that all others have read it.
"""

from __future__ import annotations

import contextlib
import ctypes
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tvm_ffi

from burnish.passes.shardings import ALL_GATHER, ALL_REDUCE
from burnish.runtime import tensors
from burnish.runtime.errors import BurnishError

_TOKEN = struct.Struct("<qq")
HALVES = 2


class GroupError(BurnishError):
    """A rank ended, took too long, or is at another collective."""


class LostRank(GroupError):
    """Another rank ended or closed: it knows better what went wrong."""


class Group:
    """Rank ``rank`` of as many as there are ``channels`` (its own is ``None``).

    ``memory`` is a buffer of ``HALVES`` times ``half`` bytes that all ranks see. ``timeout_s`` is
    the longest wait for the other ranks at a collective.
    """

    def __init__(
        self,
        rank: int,
        channels: Sequence[socket.socket | None],
        memory: Any,
        half: int,
        timeout_s: float,
    ) -> None:
        self.rank, self.parts = rank, len(channels)
        self.channels, self.timeout_s, self.half = channels, timeout_s, half
        self._bytes = np.frombuffer(memory, np.uint8, HALVES * half)
        self._count = 0
        self.error: GroupError | None = None

    def all_reduce(self, x: Any, number: int, result: Any) -> None:
        """``result`` = the sum of every rank's ``x``, added in the order of the ranks."""
        own = tensors.read(x)
        places = self._room(own.nbytes * self.parts).view(own.dtype).reshape(self.parts, -1)
        places[self.rank] = own.reshape(-1)
        self._meet(number, own.nbytes)
        total = _memory(result).reshape(-1)
        np.add(places[0], places[1], out=total) if self.parts > 1 else np.copyto(total, places[0])
        for place in places[2:]:
            np.add(total, place, out=total)

    def all_gather(self, x: Any, number: int, axis: int, start: int, result: Any) -> None:
        """``result`` = every rank's ``x`` at its place from ``start`` of ``axis``."""
        own, whole = tensors.read(x), _memory(result)
        place = self._room(whole.nbytes).view(whole.dtype).reshape(whole.shape)
        at = [slice(None)] * axis + [slice(start, start + own.shape[axis])]
        place[tuple(at)] = own
        self._meet(number, whole.nbytes)
        np.copyto(whole, place)

    def close(self) -> None:
        """Leave the group; ranks that wait for this one are told."""
        for channel in self.channels:
            if channel is not None:
                channel.close()

    def _room(self, size: int) -> np.ndarray:
        if size > self.half:
            raise GroupError(f"a collective of {size} bytes, and the memory has {self.half}")
        start = self._count % HALVES * self.half
        self._count += 1
        return self._bytes[start : start + size]

    def _meet(self, number: int, size: int) -> None:
        """Wait until every rank is at this collective."""
        token, end = _TOKEN.pack(number, size), time.monotonic() + self.timeout_s
        others = [(r, c) for r, c in enumerate(self.channels) if c is not None]
        for rank, channel in others:
            try:
                channel.send(token)
            except OSError as error:
                raise self._lost(rank, number) from error
        for rank, channel in others:
            left = max(0.0, end - time.monotonic())
            try:
                if not select.select([channel], [], [], left)[0]:
                    raise GroupError(
                        f"rank {self.rank} waited {self.timeout_s:g} s for rank {rank} at "
                        f"collective {number}"
                    )
                heard = channel.recv(_TOKEN.size)
            except (OSError, ValueError) as error:
                raise self._lost(rank, number) from error
            if not heard:
                raise self._lost(rank, number)
            if heard != token:
                there, bytes_there = _TOKEN.unpack(heard)
                raise GroupError(
                    f"rank {self.rank} is at collective {number} of {size} bytes, and rank {rank} "
                    f"at {there} of {bytes_there}: their artifacts were not made together"
                )

    def _lost(self, rank: int, number: int) -> LostRank:
        return LostRank(
            f"rank {rank} ended while rank {self.rank} waited for it at collective {number}"
        )


_HERE = threading.local()
_OWN: list[Group] = []


def join(group: Group, *, thread: bool = False) -> None:
    """Let the models of this process, or of the calling ``thread`` alone, run in this group."""
    if thread:
        _HERE.group = group
    else:
        _OWN[:] = [group]
    register()


def register() -> None:
    """Make the collectives known to virtual machines of this process."""
    tvm_ffi.register_global_func(ALL_REDUCE, _all_reduce, override=True)
    tvm_ffi.register_global_func(ALL_GATHER, _all_gather, override=True)


def meshed(parts: int) -> list[list[socket.socket | None]]:
    """A socket from every rank to every other: ``[rank][other]``."""
    found: list[list[socket.socket | None]] = [[None] * parts for _ in range(parts)]
    for one in range(parts):
        for other in range(one):
            pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            found[one][other], found[other][one] = pair
    return found


def _group() -> Group:
    group = getattr(_HERE, "group", None) or (_OWN[0] if _OWN else None)
    if group is None:
        raise GroupError(
            "this model is one rank of several: run it by burnish.tensor_parallel, which starts "
            "them all"
        )
    return group


def failure() -> GroupError | None:
    """What a collective of this process failed of: TVM tells its callers the text alone."""
    return _OWN[0].error if _OWN else None


def _all_reduce(x: Any, number: int, result: Any) -> None:
    group = _group()
    with _kept(group):
        group.all_reduce(x, int(number), result)


def _all_gather(x: Any, number: int, axis: int, start: int, result: Any) -> None:
    group = _group()
    with _kept(group):
        group.all_gather(x, int(number), int(axis), int(start), result)


@contextlib.contextmanager
def _kept(group: Group) -> Iterator[None]:
    try:
        yield
    except GroupError as error:
        group.error = error
        raise


def _memory(tensor: Any) -> np.ndarray:
    """The tensor's own memory, to write to."""
    shape, dtype = tuple(map(int, tensor.shape)), tensors.numpy_dtype(str(tensor.dtype))
    size = tensors.size_of(shape, str(tensor.dtype))
    memory = (ctypes.c_uint8 * size).from_address(tensors.address(tensor))
    return np.frombuffer(memoryview(memory), np.uint8).view(dtype).reshape(shape)


__all__ = ["HALVES", "Group", "GroupError", "LostRank", "failure", "join", "meshed", "register"]
