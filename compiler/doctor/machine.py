"""What every compilation needs of this machine."""

from __future__ import annotations

import os
import platform
import shutil

from burnish.compiler.doctor.check import Check, first_line
from burnish.runtime.pins import PINS, check_versions

LOW_MEMORY = 4e9


def python() -> Check:
    detail = f"{platform.python_version()} (3.11 is the version tested)"
    return Check("python", "ok", detail, needed=True)


def tvm_pair() -> Check:
    """TVM and its FFI must be one exact pair: other pairs their metadata allow crash."""
    try:
        check_versions()
    except ImportError as error:
        said, _, remedy = str(error).partition(". Run: ")
        return Check("tvm", "broken", said, remedy, needed=True)
    said = ", ".join(f"{name} {version}" for name, version in PINS.items())
    return Check("tvm", "ok", said, needed=True)


def torch_() -> Check:
    """Add two tensors."""
    try:
        import torch

        if (torch.ones(3) + torch.ones(3)).tolist() != [2.0, 2.0, 2.0]:
            return Check("torch", "broken", "1 + 1 came out wrong", "pip install torch", True)
    except Exception as error:  # noqa: BLE001
        return Check("torch", "broken", first_line(error), "pip install torch", needed=True)
    build = f"CUDA {torch.version.cuda} build" if torch.version.cuda else "CPU build"
    return Check("torch", "run", f"{torch.__version__}, {build}", needed=True)


def memory() -> Check:
    import psutil

    found = psutil.virtual_memory()
    detail = f"{found.available / 1e9:.1f} GB free of {found.total / 1e9:.1f} GB"
    if found.available < LOW_MEMORY:
        return Check("memory", "broken", detail, "4 GB free is a comfortable least")
    return Check("memory", "ok", detail)


def zoo() -> Check:
    """Where weights are kept, and how much room there is."""
    from burnish.models.files import cache_dir

    folder = cache_dir()
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(parent, os.W_OK):
        remedy = "set BURNISH_CACHE to a folder that can be written"
        return Check("zoo", "broken", f"cannot write {parent}", remedy)
    free = shutil.disk_usage(parent).free / 1e9
    return Check("zoo", "ok", f"{folder}, {free:.0f} GB free on its disk")
