"""Optional libraries: each is used in a process of its own, on a small case with a known answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from burnish.compiler.doctor.check import Check, first_line

_TRIALS = Path(__file__).with_name("trials.py")
_SECONDS = 120
_MISSING = 3
"""Exit code of a trial whose library is not installed."""


@dataclass(frozen=True)
class Library:
    """What it is for, and what pip installs it with."""

    use: str
    extra: str


LIBRARIES = {
    "onnx": Library("reads ONNX files", "burnish"),
    "onnxruntime": Library("folds ONNX files, and is their baseline", "burnish[onnx]"),
    "openvino": Library("a peer in benchmarks", "burnish[bench]"),
    "keras": Library("reads .keras files", "burnish[keras]"),
    "tflite": Library("reads TFLite files", "burnish[tflite]"),
    "ai_edge_litert": Library("the baseline of TFLite files", "burnish[bench]"),
    "tensorflow": Library("reads SavedModels", "burnish[tensorflow]"),
    "transformers": Library("brings models, needed by the tests only", "transformers"),
    "tokenizers": Library("tokenizes text for the zoo", "burnish[zoo]"),
    "xgboost": Library("the tuner's cost model", "burnish"),
}


def probe(name: str) -> Callable[[], Check]:
    """The probe of one library of the table."""
    return lambda: trial(name)


def trial(name: str) -> Check:
    """Use the library ``name``."""
    known = LIBRARIES[name]
    remedy = f"pip install '{known.extra}'"
    command = [sys.executable, "-P", str(_TRIALS), name]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        return Check(name, "broken", f"used {_SECONDS} s and was stopped; {known.use}", remedy)
    if done.returncode == _MISSING:
        return Check(name, "unavailable", f"not installed; {known.use}", remedy)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
        remedy = f"pip install --force-reinstall {name}"
        return Check(name, "broken", f"{first_line(lines[-1])}; {known.use}", remedy)
    return Check(name, "run", f"{done.stdout.strip()}; {known.use}")
