"""A stage at work: its artifact, loaded, reading and writing frames."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from burnish.compiler.pipelines.frames import Frames
from burnish.runtime.errors import ArtifactError, InvalidInputError
from burnish.runtime.model import Model, load
from burnish.runtime.signature import TensorSpec


def open_stage(
    path: str | Path,
    takes: Sequence[str],
    gives: Sequence[str],
    values: Mapping[str, TensorSpec],
    threads: int,
) -> Model:
    """The model of a stage, checked against what goes between the stages.

    Raises :class:`ArtifactError` for a missing or damaged file, :class:`InvalidInputError` where
    it takes or gives other shapes than its neighbours.
    """
    model = load(path)
    for what, names, specs in (
        ("takes", takes, model.signature.inputs),
        ("gives", gives, model.signature.outputs),
    ):
        if len(names) != len(specs):
            raise InvalidInputError(
                f"{Path(path).name} {what} {len(specs)} values, the pipeline has {len(names)}"
            )
        for name, spec in zip(names, specs, strict=True):
            between = values[name]
            if (spec.shape, spec.dtype) != (between.shape, between.dtype):
                raise InvalidInputError(
                    f"{Path(path).name} {what} {name!r} as {spec}, and between the stages it is "
                    f"{between}: their artifacts were not made together"
                )
    if model.manifest.target["kind"] != "cpu":
        raise ArtifactError(f"{path} is for {model.manifest.target['kind']}, not for CPU cores")
    model.use_threads(threads)
    return model


def run_stage(
    model: Model, frames: Frames, frame: int, takes: Sequence[str], gives: Sequence[str]
) -> tuple[float, float]:
    """Run on a frame, in place; when it began and ended by the system's monotonic clock."""
    inputs, outputs = frames.arrays(frame, takes), frames.arrays(frame, gives)
    start = time.monotonic()
    model.fill(inputs, outputs)
    return start, time.monotonic()


def warm(model: Model, values: Mapping[str, TensorSpec], takes: Sequence[str]) -> None:
    """A call on zeros: the first one records the kernels."""
    from burnish.runtime.tensors import numpy_dtype

    model(
        *(np.zeros(tuple(map(int, values[n].shape)), numpy_dtype(values[n].dtype)) for n in takes)
    )
