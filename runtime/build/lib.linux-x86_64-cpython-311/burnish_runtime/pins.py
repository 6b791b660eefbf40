"""The versions of TVM and of its FFI that go together; no other pair is loaded."""

from __future__ import annotations

PINS = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}
