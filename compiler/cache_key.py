"""What a compilation depends on, as one sha256: the key of the compile cache.

1. The model's content: the graph and every weight.
2. What it is called with: names, nesting, shapes, dtypes and plain numbers of the example
   inputs, and the open sizes. Their values too where passes are measured on them.
3. The resolved configuration, calibration data by content.
4. Every field of the target, and the kind of machine.
5. The code that compiles: Burnish's own sources, and the versions of TVM, torch and ONNX.

What has no content to hash is not cached: functions and passes given in code, whose results may
change while their names stay; tuned models, whose search goes on at the next compile; and passes
observed by instruments, which want them to run.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tvm

import burnish
from burnish.compiler import registry
from burnish.compiler.config import CompileConfig
from burnish.compiler.importers import LoadedModel
from burnish.compiler.importers.tensors import to_numpy
from burnish.passes.backends import registered
from burnish.runtime.pins import PINS
from burnish.targets.choose import Target
from burnish.targets.hetero import HeteroTarget

SCHEMA = 1
DISTRIBUTIONS = ("torch", "numpy", "onnx", "onnxruntime")
SOURCES = ("compiler", "passes", "runtime", "targets")
"""Subpackages whose files decide what is compiled."""


class NotCachedError(Exception):
    """This compilation has no key; the message says why."""


def cache_key(
    loaded: LoadedModel,
    example_inputs: Any,
    dynamic: Mapping[str, Any] | None,
    target: Target,
    config: CompileConfig,
) -> str:
    """The key, in hexadecimal; :class:`NotCachedError` where there is none."""
    _check(target, config)
    own = {"torch": registry.converters, "onnx": registry.onnx_converters}
    if own.get(loaded.kind):
        raise NotCachedError("converters of your own are registered, whose code may change")
    measured = config.do_no_harm and config.resolved is None
    measured = measured and bool(config.prune or config.quantize)
    parts = {
        "schema": SCHEMA,
        "inputs": described(example_inputs, values=measured),
        "dynamic": described(dynamic, values=True),
        "config": config.to_toml(drop_unnamed=True),
        "calibration": described(config.calibration_data(), values=True),
        "target": dataclasses.asdict(target),
        "machine": platform.machine(),
        "python": list(sys.version_info[:2]),
        "versions": versions(),
        "sources": source_digest(),
    }
    try:
        parts["model"] = [loaded.kind, loaded.hash]
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise NotCachedError(f"the model's content cannot be hashed: {error}") from error
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _check(target: Target, config: CompileConfig) -> None:
    context = tvm.transform.PassContext.current()
    if reason := target.why_not_here():
        raise NotCachedError(reason)
    if isinstance(target, HeteroTarget) and any(p.backend in registered for p in target.places):
        raise NotCachedError("it is built by a device of your own, whose code may change")
    if config.tune is not None:
        raise NotCachedError("tuning goes on from its database at each compile")
    if config.passes:
        raise NotCachedError("it runs passes of your own, whose code may change")
    if config.evaluate is not None:
        raise NotCachedError("it is judged by a function of your own, whose code may change")
    if context.instruments or context.config or context.disabled_pass or context.required_pass:
        raise NotCachedError("a pass context with settings or instruments of its own is active")


def content_hash(value: Any) -> str:
    """sha256 of nested data by content."""
    found = described(value, values=True)
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def described(value: Any, *, values: bool) -> Any:
    """Nested inputs as JSON data: tensors by shape and dtype, and by bytes with ``values``."""
    if value is None or isinstance(value, bool | int | float | str):
        return [type(value).__name__, repr(value)]
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        array = np.asarray(to_numpy(value) if isinstance(value, torch.Tensor) else value)
        digest = hashlib.sha256(array.tobytes()).hexdigest() if values else ""
        return ["tensor", [int(n) for n in array.shape], str(array.dtype), digest]
    if isinstance(value, Mapping):
        return ["map", [[repr(key), described(item, values=values)] for key, item in value.items()]]
    if isinstance(value, list | tuple):
        return [type(value).__name__, [described(item, values=values) for item in value]]
    if hasattr(value, "min") and hasattr(value, "max") and hasattr(value, "__name__"):
        return ["size", value.__name__, repr(value.min), repr(value.max)]  # a torch.export.Dim
    if type(value).__module__.partition(".")[0] == "torch" and "0x" not in repr(value):
        return ["torch", repr(value)]
    raise NotCachedError(f"an input or setting is of {type(value).__name__}, which has no content")


@functools.cache
def versions() -> dict[str, str]:
    """The packages that take part in a compilation; an absent one is ``""``."""
    found = dict(PINS)
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


@functools.cache
def source_digest(packages: tuple[str, ...] = SOURCES) -> str:
    """sha256 of the files that Burnish compiles with, as installed; of these subpackages alone."""
    digest = hashlib.sha256(burnish.__version__.encode())
    for package in packages:
        root = Path(str(sys.modules[f"burnish.{package}"].__file__)).parent
        for file in sorted(root.rglob("*")):
            if file.suffix in (".py", ".c", ".cc", ".h"):
                digest.update(f"{package}/{file.relative_to(root).as_posix()}\n".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()
