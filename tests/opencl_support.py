"""What tests of OpenCL share: the device to run on, and clean folders for what is cached."""

from __future__ import annotations

import functools
import os
import tempfile

import pytest

from burnish.targets.opencl import runtime
from support import require

# PoCL keeps compiled kernels too; the user's own are neither read nor written by tests.
_folder = tempfile.TemporaryDirectory(prefix="burnish-test-pocl-")
os.environ.setdefault("POCL_CACHE_DIR", _folder.name)


@functools.cache
def _why_not() -> str:
    return runtime.why_not()


def require_device() -> runtime.Device:
    """The first OpenCL device, or a skip (a failure under ``BURNISH_CI=1``)."""
    why = _why_not()
    require(not why, why)
    return runtime.devices()[0]


@pytest.fixture
def device() -> runtime.Device:
    return require_device()
