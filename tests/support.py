"""What several tests need: how a test says that it cannot run here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def in_ci() -> bool:
    """Whether a skip for a missing tool, weight or data file counts as a failure."""
    return os.environ.get("BURNISH_CI", "") not in ("", "0")


def require(condition: object, reason: str) -> None:
    """Skip the test unless ``condition`` holds; under ``BURNISH_CI=1`` fail it instead.

    ``reason`` names what is missing and how to get it.
    """
    __tracebackhide__ = True
    if condition:
        return
    if in_ci():
        pytest.fail(f"BURNISH_CI=1 allows no skip: {reason}", pytrace=False)
    pytest.skip(reason)


def require_program(name: str, package: str = "") -> str:
    """The path of a program on PATH, or a skip (a failure under ``BURNISH_CI=1``).

    ``package`` is the Debian package that has it.
    """
    path = shutil.which(name)
    how = f": apt install {package}" if package else ""
    require(path, f"the program {name!r} is not on PATH{how}")
    return str(path)
