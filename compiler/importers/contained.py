"""Work on files that nobody vouches for, in a child process under limits.

Parsers and converters written in C++ (protobuf, ONNX's checker, ONNX Runtime, TVM) may crash or
spin on a damaged file. So such a file is read, checked and converted in a forked copy of this
process, and only plain data comes back: JSON and arrays, nothing that runs code when it is read.
A crash, a hang or an exhausted limit there is an :class:`ImportModelError` here.

A fork costs some milliseconds and inherits every loaded library; a fresh process would load them
again, in seconds. The price: threads of this process do not exist in the copy, so nothing there
may wait for a thread pool of TVM, torch or OpenMP. Importing runs no kernel.

The child is no sandbox: it may do what the user may. It stands between a parser's bugs and the
user's session.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import json
import mmap
import os
import resource
import select
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import psutil

from burnish.compiler.errors import BurnishError, ImportModelError
from burnish.compiler.importers.error_data import error_from_dict, error_to_dict

SECONDS, GIBIBYTES = "BURNISH_IMPORT_SECONDS", "BURNISH_IMPORT_GIB"
ALIGNED = 64
Data = dict[str, Any]
Arrays = dict[str, np.ndarray]
_SET_DEATH_SIGNAL = 1  # of prctl


@dataclass(frozen=True)
class Limits:
    """What reading one file may take: seconds of the clock and of the CPU, and bytes beside
    those that the process holds already."""

    seconds: float
    bytes: int

    @classmethod
    def of(cls, file_bytes: int) -> Limits:
        """For a file of this size; ``$BURNISH_IMPORT_SECONDS`` and ``$BURNISH_IMPORT_GIB`` win."""
        seconds = _number(SECONDS) or 300 + file_bytes / 10e6
        chosen = _number(GIBIBYTES)
        return cls(seconds, int(chosen * 2**30) if chosen else 2**32 + 8 * file_bytes)


def contained(
    work: Callable[[], tuple[Data, Arrays]], what: str, limits: Limits
) -> tuple[Data, Arrays]:
    """``work()`` as a child process finds it: data for JSON, and arrays by name.

    ``what`` names the file in errors. A :class:`BurnishError` of the child is raised here as it
    was; any other exception, a crash, and a limit that was reached as :class:`ImportModelError`.
    Warnings of the child are issued here.
    """
    reply, noise = os.memfd_create("burnish-reply"), os.memfd_create("burnish-noise")
    done, child_end = os.pipe()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
            try:
                pid = os.fork()
            except OSError as error:
                raise ImportModelError(
                    f"no process can be started to read {what}: {error}; close other programs"
                ) from error
        if pid == 0:
            _child(work, what, reply, noise, limits)
        os.close(child_end)
        child_end = -1
        try:
            timely = _closed(done, limits.seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                if not _closed(done, 0):
                    os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        if status != 0:
            raise ImportModelError(_ending(what, status, timely, noise, limits))
        return _read(reply)
    finally:
        for descriptor in (reply, noise, done, child_end):
            if descriptor >= 0:
                os.close(descriptor)


def grant(more: int) -> None:
    """Let this process take as many bytes more, where it is under a limit: for weights in files
    beside the one whose size set the limit. A limit that the user has set stays."""
    if _number(GIBIBYTES) or more < 0:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        most = soft + more if hard == resource.RLIM_INFINITY else min(soft + more, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _closed(pipe: int, seconds: float) -> bool:
    """Whether the other end of a pipe was closed within this time."""
    waiting = select.poll()
    waiting.register(pipe, select.POLLIN)
    return bool(waiting.poll(1000 * seconds))


def _child(
    work: Callable[[], tuple[Data, Arrays]], what: str, reply: int, noise: int, limits: Limits
) -> None:
    """Never returns; what the parent's objects would do at their end must not happen here."""
    try:
        gc.freeze()
        _confine(noise, limits)
        _write(reply, *_outcome(work, what))
    except BaseException as error:  # noqa: BLE001
        os.write(2, f"{type(error).__name__}: {error}".encode(errors="replace"))
        os._exit(1)
    os._exit(0)


def _confine(noise: int, limits: Limits) -> None:
    faulthandler.disable()
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT):
        signal.signal(number, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(noise, 1)
    os.dup2(noise, 2)
    sys.stdout = sys.stderr = os.fdopen(os.dup(noise), "w", buffering=1, errors="replace")
    held = psutil.Process().memory_info().vms
    cpu = int(limits.seconds) + 1
    for kind, most in (
        (resource.RLIMIT_AS, held + limits.bytes),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(kind, (most, hard if kind != resource.RLIMIT_CORE else 0))


def _outcome(work: Callable[[], tuple[Data, Arrays]], what: str) -> tuple[Data, Arrays]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            data, arrays = work()
            reply: Data = {"data": data}
        except BurnishError as error:
            reply, arrays = {"error": error_to_dict(error)}, {}
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a parser raises
            kind, text = type(error).__name__, str(error).strip()
            said = f"{what} cannot be read; it may be damaged: {kind}: {text}"
            reply, arrays = {"error": error_to_dict(ImportModelError(said))}, {}
    reply["warnings"] = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    return reply, arrays


def _write(reply: int, data: Data, arrays: Mapping[str, np.ndarray]) -> None:
    """The header's length, the header, and each array at a multiple of 64 bytes."""
    places: list[tuple[str, str, list[int], int]] = []
    at = 0
    for name, array in arrays.items():
        places.append((name, array.dtype.name, list(array.shape), at))
        at += -(-array.nbytes // ALIGNED) * ALIGNED
    header = json.dumps({**data, "arrays": places}).encode()
    start = -(-(8 + len(header)) // ALIGNED) * ALIGNED
    with os.fdopen(os.dup(reply), "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for array, (_, _, _, place) in zip(arrays.values(), places, strict=True):
            file.seek(start + place)
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        file.truncate(start + at)


def _read(reply: int) -> tuple[Data, Arrays]:
    memory = mmap.mmap(reply, os.fstat(reply).st_size, flags=mmap.MAP_PRIVATE)
    length = int.from_bytes(memory[:8], "little")
    data = json.loads(memory[8 : 8 + length])
    for text in data["warnings"]:
        warnings.warn(text, stacklevel=4)
    if "error" in data:
        raise error_from_dict(data["error"])
    start = -(-(8 + length) // ALIGNED) * ALIGNED
    whole = np.frombuffer(memory, np.uint8)
    arrays = {}
    for name, dtype, shape, place in data["arrays"]:
        kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        part = whole[start + place : start + place + size]
        arrays[name] = part.view(kind).reshape(shape)
    return data["data"], arrays


def _ending(what: str, status: int, timely: bool, noise: int, limits: Limits) -> str:
    """Why there is no reply, from how the child ended."""
    often = "the file may be damaged, or made to do this"
    if not timely or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return (
            f"{what} was not read within {limits.seconds:.0f} s: {often}; for a model that needs "
            f"longer set {SECONDS}"
        )
    said = os.pread(noise, 2**16, 0).decode(errors="replace").strip()
    memory = "bad_alloc" in said or "MemoryError" in said or "Cannot allocate" in said
    if memory:
        return (
            f"{what} needs more than {limits.bytes / 2**30:.1f} GiB to read: {often}; for a model "
            f"that needs more set {GIBIBYTES}"
        )
    last = said.splitlines()[-1][:200] if said else "it said nothing"
    if os.WIFSIGNALED(status):
        how = signal.Signals(os.WTERMSIG(status)).name
        return f"{what} crashes the library that reads it ({how}; {last}): {often}"
    return f"{what} cannot be read: {last}"


def _number(name: str) -> float | None:
    text = os.environ.get(name, "")
    if not text:
        return None
    with contextlib.suppress(ValueError):
        if float(text) > 0:
            return float(text)
    raise ImportModelError(f"{name} must be a positive number, got {text!r}")
