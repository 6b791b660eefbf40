"""An engine as a weight of a model: a line of JSON that says what for, then TensorRT's plan."""

from __future__ import annotations

import json

NAME = "tensorrt."
"""How the names of such weights begin."""


def is_engine(name: str) -> bool:
    return name.startswith(NAME)


def with_head(plan: bytes, version: str, gpu: str, capability: int) -> bytes:
    """The weight: ``plan`` for this version of TensorRT and this GPU, 90 for 9.0."""
    head = {"version": version, "gpu": gpu, "capability": f"sm_{capability}"}
    return json.dumps(head, sort_keys=True).encode() + b"\n" + plan


def engine_head(engine: bytes) -> dict[str, str]:
    """``version``, ``gpu`` and ``capability`` that an engine is for."""
    return dict(json.loads(engine.partition(b"\n")[0]))
