"""The machine a figure was taken on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import psutil

PACKAGES = ("burnish", "apache-tvm", "torch", "onnxruntime", "openvino", "numpy")
# fmt: off
FLAGS = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "asimddp", "bf16", "i8mm", "sve", "sve2",
)
# fmt: on


def cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo() -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                found.setdefault(key.strip(), value.strip())
    except OSError:
        return {}
    return found


def describe_machine(threads: int | None = None) -> dict[str, Any]:
    """CPU model, cores, instruction sets, memory and load in bytes and cores, and versions."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    described = {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "arch": platform.machine(),
        "cores": cores(),
        "isa": [flag for flag in FLAGS if flag in flags],
        "memory": psutil.virtual_memory().total,
        "load": round(psutil.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "versions": versions,
    }
    return {**described, "threads": threads} if threads is not None else described
