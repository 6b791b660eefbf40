"""The versions of TVM and of its FFI that go together, and the parts of TVM that run a model."""

from __future__ import annotations

from importlib import metadata

PINS = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}

LIBRARIES = ("libtvm_runtime.so", "libtvm_runtime_extra.so", "libtvm_runtime_cuda.so")
"""The runtime, its sorting, and its CUDA part, which needs CUDA's own runtime library."""

OPENCL_LIBRARY = "libburnish_opencl.so"
"""The OpenCL part, which is ours, in the wheel of burnish-runtime."""
OPENCL_FLAGS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-Wno-deprecated")
"""What the C++ compiler is told for it."""


def check_versions() -> None:
    """Raise ``ImportError`` unless TVM and its FFI are the pair that works.

    Their metadata allow newer FFI releases, which crash the process in serialization.
    """
    found: dict[str, str] = {}
    for name in PINS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    wrong = {name: version for name, version in found.items() if version != PINS[name]}
    if wrong:
        have = ", ".join(f"{name} {version}" for name, version in found.items())
        want = " ".join(f"{name}=={version}" for name, version in PINS.items())
        raise ImportError(
            f"burnish needs {want}: other pairs crash in serialization; found {have}. "
            f"Run: pip install {want}"
        )
