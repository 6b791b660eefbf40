"""What a device server does for one connection: hold regions, run them, time kernels."""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - bfloat16 and others become types of NumPy
import numpy as np
import psutil
import tvm_ffi

from burnish.compiler.errors import ArtifactError
from burnish.compiler.measure import MeasureService, describe_machine
from burnish.targets.isa import instruction_sets
from burnish.targets.remote.machine import this_machine
from burnish.targets.remote.session import PREFIX
from burnish.targets.remote.stream import LARGE, Stream
from burnish.targets.target import host

ECHO_MOST = 64 << 20
STREAM_S = 10.0
"""Seconds that the connection for data may be late."""
CONTENT_S = 600.0
"""The same of what comes on it. The client's own limit, mostly shorter, ends the connection."""
TIME_S = 120.0
"""Seconds that one answer of the process that times may take."""


class Hosted:
    """Files of one connection, in a folder that goes with it, and the regions that are open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, Any] = {}
        self._listener: socket.socket | None = None
        self._stream: Stream | None = None
        self._timing: tuple[str, MeasureService] | None = None

    def describe(self) -> str:
        """This machine, as JSON."""
        found = describe_machine()
        cores = f"{found['cores']} cores"
        isa = hashlib.sha256(",".join(instruction_sets(host().features())).encode()).hexdigest()
        identity = f"{found['cpu']}, {cores}, {isa[:12]}"
        memory = int(psutil.virtual_memory().total)
        return this_machine(f"{found['cpu']}, {cores}", identity, memory).to_json()

    def stream(self) -> str:
        """Wait for a connection for data; the name that it is to give."""
        name = secrets.token_hex(16)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._folder.parent / name))
        self._listener.listen(1)
        self._listener.settimeout(STREAM_S)
        return name

    def streams(self) -> int:
        """1 when the connection for data is there; another process has it, and hands it over."""
        if self._listener is None:
            raise ValueError("no connection for data was asked for")
        where = Path(self._listener.getsockname())
        try:
            giver, _ = self._listener.accept()
            with giver:
                giver.settimeout(STREAM_S)
                _, files, _, _ = socket.recv_fds(giver, 1, 1)
            own = socket.socket(fileno=files[0])
            own.setblocking(True)
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._stream = Stream(own)
        finally:
            self._listener.close()
            self._listener = None
            where.unlink(missing_ok=True)
        return 1

    def _content(self, content: bytes, beside: int) -> bytes | bytearray:
        """The bytes of a call, or those that came beside it."""
        if not beside:
            return bytes(content)
        if self._stream is None:
            raise ValueError("there is no connection for data")
        return self._stream.take(beside, CONTENT_S)

    def _returned(self, content: bytes) -> bytes | int:
        """Bytes as an answer, or beside it, and how many those are."""
        if len(content) < LARGE or self._stream is None:
            return content
        self._stream.give(content)
        return len(content)

    def echo(self, size: int, content: bytes, beside: int) -> bytes | int:
        """``size`` bytes for any content: what the way there and back takes."""
        self._content(content, beside)
        if not 0 <= size <= ECHO_MOST:
            raise ValueError(f"{size} bytes are not sent back: {ECHO_MOST} at the most")
        return self._returned(bytes(size))

    def put(self, digest: str, start: int, content: bytes, beside: int) -> bytes:
        """Add a part to the file of this digest, which has ``start`` bytes."""
        given = self._content(content, beside)
        path = self._path(digest)
        with path.open("wb" if start == 0 else "r+b") as out:
            out.seek(0, 2)
            if out.tell() != start:
                raise ValueError(f"part {start} of a file of {out.tell()} bytes")
            out.write(given)
        return b""

    def open(self, digest: str, device: str) -> int:
        """Load the region of this digest for a device of this machine."""
        from burnish.compiler.artifact import load_apart

        path = self._checked(digest)
        try:
            compiled = load_apart(path)
        except ArtifactError as error:
            raise ValueError(error.message.replace(str(path), "it")) from error
        wanted = device.partition(":")[0]
        if compiled.target.kind != wanted:
            raise ValueError(f"the region is for {compiled.target.name!r}, not for {device!r}")
        why = compiled.target.why_not_here()
        if why:
            raise ValueError(f"this machine cannot run it: {why}")
        self._open[digest] = compiled
        path.unlink()
        return 0

    def run(self, digest: str, content: bytes, beside: int) -> bytes | int:
        """Outputs for inputs, each the bytes of its tensors one after the other."""
        given = memoryview(self._content(content, beside))
        compiled = self._open.get(digest)
        if compiled is None:
            raise ValueError("the region is not loaded")
        inputs, start = [], 0
        for spec in compiled.signature.inputs:
            dtype = np.dtype(spec.dtype)
            size = int(np.prod(spec.shape, dtype=np.int64)) * dtype.itemsize
            part = np.frombuffer(given[start : start + size], dtype)
            inputs.append(part.reshape(spec.shape))
            start += size
        if start != len(given):
            raise ValueError(f"the inputs are {start} bytes, and {len(given)} came")
        outputs: Sequence[Any] = compiled(*inputs)
        return self._returned(b"".join(np.ascontiguousarray(one).tobytes() for one in outputs))

    def time(self, digest: str, said: str, first: int, last: int) -> str:
        """Seconds of the operators ``first`` to ``last`` of a library, as JSON.

        ``[operators, rings, samples]``, taken in a process of its own.
        """
        from burnish.compiler.remote.costs import runner_of

        runner, threads = runner_of(self._library(digest), said)
        if self._timing is None or self._timing[0] != digest:
            self.forget(self._timing[0] if self._timing else "")
            service = MeasureService(threads, timeout=TIME_S)
            service.open({"operators": runner}, (0, 0))
            self._timing = digest, service
        samples = self._timing[1].outputs("operators", (first, last))
        return json.dumps([np.asarray(rings).tolist() for rings in samples])

    def forget(self, digest: str) -> int:
        """End what times a library, and remove its file."""
        if self._timing is not None and self._timing[0] == digest:
            self._timing[1].close()
            self._timing = None
        if digest:
            self._path(digest).with_suffix(".so").unlink(missing_ok=True)
        return 0

    def rates(self, device: str, again: int) -> str:
        """What a device does in a second (:mod:`burnish.compiler.placement.devices`), as JSON."""
        from burnish.compiler.placement.devices import measured, present, rated

        kind = device.partition(":")[0]
        found = next((one for one in present() if one.name in (kind, f"{kind}:0")), None)
        if found is None:
            raise ValueError(f"there is no {device} there")
        return json.dumps(asdict(rated((found,), measured, again=bool(again))[0]))

    def _library(self, digest: str) -> Path:
        """The file under a name that a loader takes."""
        path = self._path(digest).with_suffix(".so")
        if not path.exists():
            self._checked(digest).rename(path)
        return path

    def _path(self, digest: str) -> Path:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise ValueError("a file is known by its sha256")
        return self._folder / digest

    def _checked(self, digest: str) -> Path:
        path = self._path(digest)
        if not path.exists():
            raise ValueError("the file was not sent")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            path.unlink()
            raise ValueError("the file did not arrive as it was sent")
        return path


FUNCTIONS = (
    "describe",
    "stream",
    "streams",
    "echo",
    "put",
    "open",
    "run",
    "time",
    "forget",
    "rates",
)


def offered(folder: Path) -> Hosted:
    """Make the functions known to TVM's RPC server in this process."""
    hosted = Hosted(folder)
    for name in FUNCTIONS:
        tvm_ffi.register_global_func(PREFIX + name, getattr(hosted, name), override=True)
    return hosted
