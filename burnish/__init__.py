"""Burnish: prune, quantize, tune and build trained networks, and prove each gain.

Names are resolved on first use, so that ``burnish --help`` starts without torch or TVM. Importing
this changes nothing in the process: ``import tvm`` imports it too, for OpenCL.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from burnish.runtime.pins import check_versions

if TYPE_CHECKING:
    from burnish import models
    from burnish.compiler.artifact import load
    from burnish.compiler.compare import compare
    from burnish.compiler.compiled import Compiled
    from burnish.compiler.config import CompileConfig, TuneConfig
    from burnish.compiler.driver import build, compile, import_model, optimize, tune
    from burnish.compiler.errors import BurnishError
    from burnish.compiler.parallel.make import tensor_parallel
    from burnish.compiler.parallel.run import TensorParallel, load_tensor_parallel
    from burnish.compiler.pipelines.make import pipeline
    from burnish.compiler.pipelines.pipeline import Pipeline, load_pipeline
    from burnish.compiler.placed import register_device
    from burnish.compiler.placement.devices import devices
    from burnish.compiler.profile.result import Profile
    from burnish.compiler.profile.run import profile
    from burnish.compiler.registry import (
        register_calibration,
        register_converter,
        register_evaluator,
        register_pass,
    )
    from burnish.compiler.stages import Imported, Optimized, Tuned
    from burnish.passes.configs import PruneConfig, QuantizeConfig

__version__ = "0.1.0"

check_versions()

_WHERE = {
    "BurnishError": "burnish.compiler.errors",
    "CompileConfig": "burnish.compiler.config",
    "Compiled": "burnish.compiler.compiled",
    "Imported": "burnish.compiler.stages",
    "Optimized": "burnish.compiler.stages",
    "Pipeline": "burnish.compiler.pipelines.pipeline",
    "Profile": "burnish.compiler.profile.result",
    "PruneConfig": "burnish.passes.configs",
    "QuantizeConfig": "burnish.passes.configs",
    "TensorParallel": "burnish.compiler.parallel.run",
    "TuneConfig": "burnish.compiler.config",
    "Tuned": "burnish.compiler.stages",
    "build": "burnish.compiler.driver",
    "compare": "burnish.compiler.compare",
    "compile": "burnish.compiler.driver",
    "devices": "burnish.compiler.placement.devices",
    "import_model": "burnish.compiler.driver",
    "load": "burnish.compiler.artifact",
    "load_pipeline": "burnish.compiler.pipelines.pipeline",
    "load_tensor_parallel": "burnish.compiler.parallel.run",
    "optimize": "burnish.compiler.driver",
    "pipeline": "burnish.compiler.pipelines.make",
    "profile": "burnish.compiler.profile.run",
    "register_calibration": "burnish.compiler.registry",
    "register_converter": "burnish.compiler.registry",
    "register_device": "burnish.compiler.placed",
    "register_evaluator": "burnish.compiler.registry",
    "register_pass": "burnish.compiler.registry",
    "tensor_parallel": "burnish.compiler.parallel.make",
    "tune": "burnish.compiler.driver",
}


def __getattr__(name: str) -> Any:
    if name == "models":
        return importlib.import_module("burnish.models")
    if name in _WHERE:
        value = getattr(importlib.import_module(_WHERE[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'burnish' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE, "models"])


__all__ = [
    "BurnishError",
    "CompileConfig",
    "Compiled",
    "Imported",
    "Optimized",
    "Pipeline",
    "Profile",
    "PruneConfig",
    "QuantizeConfig",
    "TensorParallel",
    "TuneConfig",
    "Tuned",
    "build",
    "compare",
    "compile",
    "devices",
    "import_model",
    "load",
    "load_pipeline",
    "load_tensor_parallel",
    "models",
    "optimize",
    "pipeline",
    "profile",
    "register_calibration",
    "register_converter",
    "register_device",
    "register_evaluator",
    "register_pass",
    "tensor_parallel",
    "tune",
]
