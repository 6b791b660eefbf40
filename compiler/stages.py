"""The stages of a compilation. Each is a type, and each shows its IR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import tvm
from tvm import tirx

from burnish.compiler.config import CompileConfig
from burnish.compiler.signature import Signature
from burnish.compiler.waterfall import Report
from burnish.passes.params import without_params
from burnish.targets.choose import Target


def ir_text(mod: tvm.IRModule) -> str:
    """A module as TVMScript, weight values left out."""
    return str(without_params(mod).script())


@dataclass(frozen=True)
class Source:
    """Where a module came from: content hash, kind (``torch``, ``onnx``, ...), examples to run.

    ``calibration`` and ``tuning`` are the sha256 of the calibration data and of the records of
    the tuning database that it was made with, if any.
    """

    hash: str
    kind: str
    example_inputs: tuple[Any, ...] = ()
    calibration: str | None = None
    tuning: str | None = None


@dataclass(frozen=True)
class Imported:
    """A model as graph IR, as imported."""

    mod: tvm.IRModule
    signature: Signature
    source: Source
    report: Report = field(default_factory=Report)

    def show(self) -> str:
        """The graph as text."""
        return ir_text(self.mod)


@dataclass(frozen=True)
class Optimized:
    """A model after its passes. ``graph`` is the last graph form, ``mod`` its fused kernels."""

    mod: tvm.IRModule
    graph: tvm.IRModule
    signature: Signature
    source: Source
    target: Target
    config: CompileConfig
    report: Report

    def show(self) -> str:
        """The fused kernels and the graph that calls them, as text."""
        return ir_text(self.mod)


@dataclass(frozen=True)
class Tuned:
    """An optimized model with the kernels that measured faster than the default schedules.

    ``best`` maps a kernel's structural hash to its schedule; ``records`` is the sha256 of the
    records of the tuning database that it was taken from.
    """

    optimized: Optimized
    best: Mapping[int, tirx.PrimFunc]
    report: Report
    tuning: Mapping[str, Any] | None = None
    records: str | None = None

    @property
    def mod(self) -> tvm.IRModule:
        return self.optimized.mod

    @property
    def signature(self) -> Signature:
        return self.optimized.signature

    def show(self) -> str:
        """The fused kernels, the tuned ones as scheduled, as text."""
        return ir_text(self.optimized.mod)
