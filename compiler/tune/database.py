"""What was measured before: one JSON line a candidate, one folder a target.

    <work_dir>/<target key>/records.jsonl    what was measured
    <work_dir>/<target key>/rejected.jsonl   lines of it that could not be used, as they were
    <work_dir>/<target key>/target.json      what the key stands for, for a reader

Lines hold data only: reading them runs nothing. A candidate found by search is kept as its
schedule trace, whose instructions are looked up by name in TVM's own table.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import tvm

from burnish.compiler.errors import TuneError
from burnish.compiler.measure.machine import describe_machine

VERSION = 1
KINDS = ("default", "alternative", "trace")
Kind = Literal["default", "alternative", "trace"]


@dataclass(frozen=True)
class Record:
    """One measured kernel. ``task`` and ``kernel`` are structural hashes, of the function before
    and after scheduling.

    ``secs`` is of one call; None where it failed, and ``error`` says how. ``trace`` is the
    schedule as JSON, of a candidate found by search.
    """

    task: int
    kernel: int
    kind: Kind
    secs: float | None
    error: str = ""
    trace: Sequence[Any] | None = None


def default_work_dir() -> Path:
    """``$BURNISH_CACHE/tuning``, or ``~/.cache/burnish/tuning``."""
    cache = os.environ.get("BURNISH_CACHE")
    return (Path(cache) if cache else Path.home() / ".cache" / "burnish") / "tuning"


def describe_target(target: tvm.target.Target, threads: int) -> dict[str, Any]:
    """Everything a timing depends on besides the kernel."""
    return {
        "target": json.loads(str(target)),
        "cpu": describe_machine()["cpu"],
        "threads": threads,
        "tvm": importlib.metadata.version("apache-tvm"),
    }


class TuneDatabase:
    """The records of one target, read once and appended to, each line as soon as it is known.

    Lines that are damaged, of another version or of another target are moved to
    ``rejected.jsonl`` with a warning. Raises TuneError where the folder cannot be written.
    """

    def __init__(self, work_dir: Path | None, target: tvm.target.Target, threads: int) -> None:
        facts = describe_target(target, threads)
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
        self.key = f"{target.kind.name}-{digest}"
        self.folder = (work_dir or default_work_dir()) / self.key
        self.path = self.folder / "records.jsonl"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "target.json").write_text(json.dumps(facts, indent=1))
            with self._locked():
                records = self._read()
        except OSError as error:
            raise TuneError(
                f"the tuning database {self.folder} cannot be used: {error.strerror or error}; "
                "give another folder as TuneConfig(work_dir=...)"
            ) from error
        self._records: dict[tuple[int, int], Record] = {}
        for record in records:
            self._keep(record)

    def records(self, task: int) -> list[Record]:
        """What is known of a task, fastest first, failures last."""
        found = [record for (key, _), record in self._records.items() if key == task]
        return sorted(found, key=lambda r: (math.inf if r.secs is None else r.secs, r.kernel))

    def get(self, task: int, kernel: int) -> Record | None:
        """The record of one kernel of a task."""
        return self._records.get((task, kernel))

    def add(self, *records: Record) -> None:
        """Keep records, on disk too when this returns; a later one of a kernel replaces it."""
        lines = "".join(
            json.dumps({"version": VERSION, "target": self.key, **asdict(record)}) + "\n"
            for record in records
        )
        try:
            with self._locked(), open(self.path, "a", encoding="utf-8") as file:
                file.write(lines)
        except OSError as error:
            raise TuneError(
                f"cannot write to the tuning database {self.path}: {error.strerror or error}"
            ) from error
        for record in records:
            self._keep(record)

    def _keep(self, record: Record) -> None:
        self._records[record.task, record.kernel] = record

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self.folder / "lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _read(self) -> list[Record]:
        if not self.path.exists():
            return []
        good, records, bad, reasons = [], [], [], []
        for line in self.path.read_bytes().splitlines():
            try:
                records.append(_parse(line, self.key))
                good.append(line)
            except ValueError as error:
                bad.append(line)
                reasons.append(str(error))
        if bad:
            with open(self.folder / "rejected.jsonl", "ab") as file:
                file.write(b"\n".join(bad) + b"\n")
            part = self.path.with_suffix(".part")
            part.write_bytes(b"".join(line + b"\n" for line in good))
            os.replace(part, self.path)
            warnings.warn(
                f"{len(bad)} of {len(bad) + len(good)} lines of the tuning database {self.path} "
                f"cannot be used ({reasons[0]}); they were moved to rejected.jsonl beside it",
                stacklevel=4,
            )
        return records


def _parse(line: bytes, target: str) -> Record:
    """The record of a line; ValueError saying what is wrong with it."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(data, dict):
        raise ValueError("not a record")
    if data.pop("version", None) != VERSION:
        raise ValueError("of another version")
    if data.pop("target", None) != target:
        raise ValueError("of another target")
    try:
        record = Record(**data)
    except TypeError:
        raise ValueError("not a record") from None
    timed = isinstance(record.secs, float) and math.isfinite(record.secs) and record.secs > 0
    if (
        not all(type(v) is int for v in (record.task, record.kernel))
        or not isinstance(record.error, str)
        or record.kind not in KINDS
        or not (timed or (record.secs is None and record.error))
        or not isinstance(record.trace, list if record.kind == "trace" else type(None))
    ):
        raise ValueError("a field has a wrong value")
    return record
