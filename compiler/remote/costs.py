"""What another machine's device costs: its kernels timed there, and the way there and back."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from burnish.compiler.artifact import cache_folder
from burnish.compiler.cache_key import versions
from burnish.compiler.errors import MeasureError
from burnish.compiler.measure.cache import TimingCache
from burnish.compiler.measure.timing import summarize
from burnish.compiler.placement.operator_runner import OperatorRunner
from burnish.compiler.remote.calls import put
from burnish.targets.remote.address import Address
from burnish.targets.remote.machine import machine_at
from burnish.targets.remote.session import DeviceLost, Refused, Session, session_to

SIZES = (1 << 10, 1 << 20)
"""Bytes of the round trips by which a link is told."""
ROUNDS = 9
SLACK_S = 10.0
"""The server has a limit of its own, and tells when it is reached."""


def timed_there(
    address: Address,
    runner: OperatorRunner,
    threads: int,
    parts: Sequence[tuple[int, int]],
    limit: float,
) -> Generator[Any]:
    """Samples of ``runner`` for each of ``parts``, taken by the server in a process of its own.

    As on this machine: the same program times, with weights that go around in as many bytes.
    Raises MeasureError where the server is not there, goes, or refuses.
    """
    session: Session | None = None
    digest = ""
    try:
        session = session_to(address)
        content = Path(runner.library).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        put(session, content, digest)
        said = json.dumps({**_fields(runner), "threads": threads})
        for first, last in parts:
            found = session.call("time", digest, said, first, last, limit=limit + SLACK_S)
            yield [[np.array(ring) for ring in one] for one in json.loads(found)]
    except (DeviceLost, Refused) as error:
        raise MeasureError(f"timing operators on rpc://{address}: {error}") from error
    finally:
        if session is not None and session.lives and digest:
            with suppress(DeviceLost, Refused):
                session.call("forget", digest)


def _fields(runner: OperatorRunner) -> dict[str, Any]:
    return {
        name: value
        for name, value in asdict(runner).items()
        if name in ("kind", "symbols", "arguments", "weights", "rings")
    }


def runner_of(library: Path, said: str) -> tuple[OperatorRunner, int]:
    """What :func:`timed_there` wrote, for a library of this machine, and the threads."""
    given = json.loads(said)
    arguments = tuple(
        tuple((tuple(map(int, shape)), str(dtype)) for shape, dtype in one)
        for one in given["arguments"]
    )
    weights = tuple(tuple(map(int, one)) for one in given["weights"])
    symbols, rings = tuple(map(str, given["symbols"])), tuple(map(int, given["rings"]))
    runner = OperatorRunner(str(library), str(given["kind"]), symbols, arguments, weights, rings)
    return runner, int(given["threads"])


def link_to(
    address: Address, *, cache_dir: str | os.PathLike[str] | None = None, again: bool = False
) -> tuple[float, float, float]:
    """Latency of one way in seconds, and bytes a second there and back.

    Told by round trips of two sizes, measured once for an address and a machine. Raises
    MeasureError where the server is not there, or goes.
    """
    cache = TimingCache(cache_dir or cache_folder() / "links")
    try:
        parts = {
            "link": f"rpc://{address}",
            "cpu": machine_at(address).identity,
            "versions": versions(),
        }
        key = TimingCache.key(**parts)
        names = [f"{key}-{way}-{size}" for way in ("there", "back") for size in SIZES]
        if again or any(cache.get(name) is None for name in names):
            cache.put_all(_trips(session_to(address), names, parts))
    except (DeviceLost, Refused) as error:
        raise MeasureError(f"measuring the link to rpc://{address}: {error}") from error
    taken = [timing.p50 / 1e3 for name in names if (timing := cache.get(name)) is not None]
    (small, large), (least, most) = taken[:2], taken[2:]
    size = SIZES[1] - SIZES[0]
    there, back = (size / max(one, 1e-9) for one in (large - small, most - least))
    return min(small, least) / 2, there, back


def _trips(session: Session, names: Sequence[str], parts: dict[str, Any]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    sizes = [(size, 0) for size in SIZES] + [(0, size) for size in SIZES]
    for name, (out, back) in zip(names, sizes, strict=True):
        content, samples = bytes(out), []
        for _ in range(ROUNDS + 1):
            start = time.perf_counter()
            session.exchange("echo", back, content=content, most=back)
            samples.append(1e3 * (time.perf_counter() - start))
        timing = summarize([samples[1:]]).to_dict()
        entries[name] = {**parts, "bytes": max(out, back), "timing": timing}
    return entries
