"""The checked-in list of what does not pass: a line a case, ``status name: reason``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onnx_suite.pool import Outcome

FILE = Path(__file__).with_name("cases.txt")
HEAD = """\
# Cases of onnx.backend.test that do not pass, and why. Written by: python tests/onnx_suite --write
# Every other case passes; a case that leaves or enters this list fails the test.
"""


def read() -> dict[str, tuple[str, str]]:
    """Name -> (status, reason)."""
    found = {}
    for line in FILE.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            head, _, reason = line.partition(": ")
            status, _, name = head.partition(" ")
            found[name] = (status, reason)
    return found


def write(outcomes: Mapping[str, Outcome]) -> None:
    """Write the list anew."""
    lines = [
        f"{o.status} {name}: {o.reason}"
        for name, o in sorted(outcomes.items(), key=lambda item: (item[1].status, item[0]))
        if o.status not in ("pass", "random")
    ]
    FILE.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
