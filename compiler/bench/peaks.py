"""The machine's peak rates, measured by a small C program that the system's compiler builds."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from burnish.compiler.artifact import cache_folder
from burnish.compiler.errors import MeasureError
from burnish.compiler.measure import describe_machine
from burnish.targets.target import host

SOURCE = Path(__file__).with_name("peaks.c")
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-pthread")
COMPILERS = ("cc", "gcc", "clang")
SECONDS = 0.3
TIMEOUT_S = 120.0
LEAST_BUFFER = 256 << 20


@dataclass(frozen=True)
class Peaks:
    """What ``threads`` cores can do at most.

    ``fp32``, ``bf16`` and ``int8`` are GFLOP/s (GOP/s) of multiply-adds, each counted as two,
    None where the CPU has no such dot product; ``read`` is GB/s of memory read.
    """

    threads: int
    fp32: float
    bf16: float | None
    int8: float | None
    read: float

    def limit_ms(self, flops: float, moved: float) -> float:
        """The least milliseconds for float32 operations and bytes: the larger of the two times."""
        return max(self.compute_ms(flops), self.memory_ms(moved))

    def compute_ms(self, flops: float) -> float:
        return flops / self.fp32 / 1e6

    def memory_ms(self, moved: float) -> float:
        return moved / self.read / 1e6

    def best_of(self, other: Peaks) -> Peaks:
        """The higher of each rate: a peak is the highest rate that was seen."""
        rates = {
            name: max((r for r in (getattr(self, name), getattr(other, name)) if r), default=None)
            for name in ("fp32", "bf16", "int8", "read")
        }
        return Peaks(threads=self.threads, **rates)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Peaks:
        return cls(**{field.name: data[field.name] for field in fields(cls)})


def measure_peaks(threads: int, seconds: float = SECONDS) -> Peaks:
    """Run the C program: ``seconds`` for each of four rates.

    MeasureError where there is no C compiler, or the program fails.
    """
    memory = psutil.virtual_memory().available // 4
    size = min(max(LEAST_BUFFER, 8 * host().l3), memory)
    with tempfile.TemporaryDirectory(prefix="burnish-peaks-") as folder:
        program = Path(folder) / "peaks"
        _run([_compiler(), *FLAGS, str(SOURCE), "-o", str(program)], "build")
        found = _run([str(program), str(threads), str(seconds), str(size)], "run")
    return Peaks.from_dict(json.loads(found))


def known_peaks(threads: int) -> Peaks:
    """The machine's peaks, measured once and kept in the cache folder."""
    path = cache_folder() / "peaks" / f"{_machine_key(threads)}.json"
    try:
        return Peaks.from_dict(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or damaged: measured again
    peaks = measure_peaks(threads)
    keep_peaks(peaks)
    return peaks


def keep_peaks(peaks: Peaks) -> None:
    """Keep these as the machine's; a folder that cannot be written keeps nothing."""
    path = cache_folder() / "peaks" / f"{_machine_key(peaks.threads)}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(handle, "w") as out:
            json.dump(peaks.to_dict(), out)
        os.replace(partial, path)
    except OSError:
        return


@cache
def _machine_key(threads: int) -> str:
    machine = describe_machine()
    parts = [machine["cpu"], machine["arch"], machine["isa"], machine["cores"], threads]
    text = json.dumps(parts) + SOURCE.read_text()
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _compiler() -> str:
    for name in COMPILERS:
        path = shutil.which(name)
        if path is not None:
            return path
    raise MeasureError(
        f"measuring the machine's peaks needs a C compiler on PATH: one of {', '.join(COMPILERS)}"
    )


def _run(command: list[str], verb: str) -> str:
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MeasureError(f"could not {verb} the program that measures peaks: {error}") from error
    if run.returncode != 0:
        lines = (run.stderr or run.stdout).splitlines()
        said = next((line for line in lines if "error" in line), f"exit code {run.returncode}")
        raise MeasureError(f"could not {verb} the program that measures peaks: {said}")
    return run.stdout
