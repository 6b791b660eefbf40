"""The versions of TVM and of its FFI that go together, and the parts of TVM that run a model."""

from __future__ import annotations

PINS = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}

LIBRARIES = ("libtvm_runtime.so", "libtvm_runtime_extra.so", "libtvm_runtime_cuda.so")
"""The runtime, its sorting, and its CUDA part, which needs CUDA's own runtime library."""
