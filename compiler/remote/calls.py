"""Calling regions of a model on another machine's device, from a model that runs here."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Any

import ml_dtypes  # noqa: F401 - bfloat16 and others become types of NumPy
import numpy as np
import tvm_ffi

from burnish.compiler.errors import BurnishError, TargetError
from burnish.compiler.remote.backend import SYMBOL
from burnish.targets.remote import allowed
from burnish.targets.remote.address import parse_remote
from burnish.targets.remote.session import DeviceLost, Refused, Session, session_to

CHUNK = 4 << 20
"""Bytes that are sent at once of a region and its weights."""
_now = threading.local()


class DeviceLostError(TargetError):
    """A device of another machine was not there, or went while it was used.

    The next call connects anew, and sends the region again.
    """

    stage = "run"


def call_region(
    content: Any, where: str, digest: str, region: str, count: int, *tensors: Any
) -> None:
    """Run a region on the device ``where``: ``count`` inputs, then outputs, which are written.

    ``content`` is the region's artifact, ``digest`` its sha256, which is checked before anything
    is sent. Raises :class:`DeviceLostError`, :class:`TargetError` for what the server refuses.
    """
    try:
        _call(content, where, digest, region, tensors[:count], tensors[count:])
    except BaseException as error:
        _now.fault = error
        raise


def _call(content: Any, where: str, digest: str, region: str, inputs: Any, outputs: Any) -> None:
    address, device = parse_remote(where)
    if not allowed.is_allowed(address):
        raise TargetError(not_allowed(region, where), stage="run")
    doing = "connecting"
    try:
        session = session_to(address)
        with session.sending:
            if digest not in session.held:
                doing = "sending its code and weights"
                put(session, content.numpy().tobytes(), digest)
                doing = "loading it"
                session.call("open", digest, device)
                session.held.add(digest)
        doing = "running it"
        given = b"".join(one.numpy().tobytes() for one in inputs)
        most = sum(one.numpy().nbytes for one in outputs)
        returned = session.exchange("run", digest, content=given, most=most)
    except Refused as error:
        raise TargetError(f"{where} refuses {region} ({doing}): {error}", stage="run") from None
    except DeviceLost as error:
        raise DeviceLostError(
            f"{where} was lost at {region}, {doing}: {error}. The next call connects anew"
        ) from None
    _write(returned, outputs, where)


def put(session: Session, content: bytes, digest: str) -> None:
    """Send a file to the server, by parts; ``ValueError`` where it is not what it should be."""
    if hashlib.sha256(content).hexdigest() != digest:
        raise TargetError(
            "the code of a region is not what the model was compiled with, and was not sent: "
            "compile the model again",
            stage="run",
        )
    for start in range(0, len(content), CHUNK):
        session.exchange("put", digest, start, content=content[start : start + CHUNK], most=0)


def _write(returned: bytes, outputs: Any, where: str) -> None:
    start = 0
    for one in outputs:
        shape, dtype = tuple(map(int, one.shape)), np.dtype(str(one.dtype))
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        part = np.frombuffer(returned[start : start + size], dtype)
        if part.nbytes != size:
            break
        one.copyfrom(part.reshape(shape))
        start += size
    if start != len(returned) or len(outputs) == 0:
        raise TargetError(f"{where} returned {len(returned)} bytes, which is not what was asked")


def not_allowed(what: str, where: str) -> str:
    """The message for a server that nobody in this process has named."""
    address = parse_remote(where)[0]
    return (
        f"{what} would run on {where}: code, weights and inputs would be sent there, and what "
        "comes back taken for the result. To allow it: burnish.load(..., "
        f'remotes=["{address}"]), or the environment variable {allowed.VARIABLE}={address}'
    )


def register() -> None:
    """Let models in this process call regions elsewhere."""
    tvm_ffi.register_global_func(SYMBOL, call_region, override=True)


class Told:
    """``main`` of a library that calls regions elsewhere; raises what a region raised.

    The virtual machine tells an error's class only where it is built in.
    """

    def __init__(self, main: Callable[..., Any]) -> None:
        self._main = main

    def __call__(self, *arguments: Any) -> Any:
        outer, _now.fault = getattr(_now, "fault", None), None
        try:
            return self._main(*arguments)
        except Exception:
            fault = _now.fault
            if isinstance(fault, BurnishError | KeyboardInterrupt):
                raise fault from None
            raise
        finally:
            _now.fault = outer


__all__ = ["CHUNK", "DeviceLostError", "Told", "call_region", "not_allowed", "put", "register"]
