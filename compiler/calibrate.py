"""The one calibration service: statistics of activations over the user's data.

The imported module is built with its operators' activations as further outputs, and run over
the data one sample at a time: memory is that of one sample's activations, however many samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tvm

from burnish.compiler.activations import Site, observed
from burnish.compiler.errors import ConfigError
from burnish.compiler.measure.values import array

Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
Build = Callable[[tvm.IRModule], Run]

OPS = ("relax.matmul", "relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d")
"""Operators whose activations quantizers and pruners ask about."""


class Observer(Protocol):
    """Folds one site's activations, sample by sample, into arrays of fixed size."""

    def update(self, value: np.ndarray, channel_axis: int) -> None:
        """Take one sample's activation in."""
        ...

    def result(self) -> Mapping[str, np.ndarray]:
        """The statistics so far, by name."""
        ...


class MinMax:
    """Smallest and largest value of the whole tensor: ``min`` [] and ``max`` []."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf

    def update(self, value: np.ndarray, channel_axis: int) -> None:
        self.low = min(self.low, float(value.min()))
        self.high = max(self.high, float(value.max()))

    def result(self) -> Mapping[str, np.ndarray]:
        return {"min": np.asarray(self.low), "max": np.asarray(self.high)}


class MeanSquare:
    """Mean square of each channel, ``mean_square`` [C] over ``count`` [] values a channel.

    Sums in float64, in the order of the data, so the same data give the same bits.
    """

    def __init__(self) -> None:
        self.total: np.ndarray | None = None
        self.count = 0

    def update(self, value: np.ndarray, channel_axis: int) -> None:
        rows = np.moveaxis(value, channel_axis, -1).reshape(-1, value.shape[channel_axis])
        squares = np.einsum("nc,nc->c", rows, rows, dtype=np.float64)
        self.total = squares if self.total is None else self.total + squares
        self.count += len(rows)

    def result(self) -> Mapping[str, np.ndarray]:
        total = np.zeros(0) if self.total is None else self.total
        return {"mean_square": total / max(1, self.count), "count": np.asarray(self.count)}


@dataclass(frozen=True)
class Calibration:
    """Statistics by site and observer name; how many samples, and the hash of their contents."""

    sites: Mapping[str, Site]
    statistics: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]
    samples: int
    data_hash: str


def calibrate(
    mod: tvm.IRModule,
    data: Iterable[Sequence[Any]],
    observers: Mapping[str, Callable[[], Observer]] | None = None,
    *,
    ops: Sequence[str] = OPS,
    build: Build | None = None,
) -> Calibration:
    """Run the module over ``data`` and observe what its operators are given.

    ``mod`` holds its weights (:mod:`burnish.passes.params`); ``data`` yields tuples of inputs, in
    the order of the module's. A site is one activation operand of one of ``ops``, named after the
    weight it meets, or after the operator where it meets none. ``observers`` are made anew for
    each site: ``{"range": MinMax, "power": MeanSquare}`` by default. ``build`` turns a module
    into a function of input arrays; TVM's own default build unless given.

    Raises ConfigError when there are no data, no such operators, or a value is not finite.
    """
    makers: Mapping[str, Callable[[], Observer]]
    makers = observers if observers is not None else {"range": MinMax, "power": MeanSquare}
    sites, watched = observed(mod, ops)
    if not sites:
        raise ConfigError(f"nothing to calibrate: the module has none of {', '.join(ops)}")
    run = (build or plain_build)(watched)
    watching = {site.name: {key: make() for key, make in makers.items()} for site in sites}
    digest = hashlib.sha256()
    samples = 0
    for number, sample in enumerate(data):
        arrays = [array(value) for value in sample]
        _add(digest, arrays)
        _check_inputs(arrays, number)
        activations = run(arrays)[-len(sites) :]
        for site, value in zip(sites, activations, strict=True):
            if not np.isfinite(value).all():
                raise ConfigError(
                    f"calibration sample {number} gives NaN or infinity before {site.name} "
                    f"({site.op})"
                )
            for observer in watching[site.name].values():
                observer.update(value, site.channel_axis)
        samples += 1
    if not samples:
        raise ConfigError("the calibration data are empty: give at least one tuple of inputs")
    found = {
        name: {key: dict(one.result()) for key, one in group.items()}
        for name, group in watching.items()
    }
    return Calibration({site.name: site for site in sites}, found, samples, digest.hexdigest())


def _add(digest: Any, arrays: Sequence[np.ndarray]) -> None:
    digest.update(str(len(arrays)).encode())
    for value in arrays:
        digest.update(f"{value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())


def _check_inputs(arrays: Sequence[np.ndarray], number: int) -> None:
    for index, value in enumerate(arrays):
        if value.dtype.kind == "f" and np.isnan(value).any():
            raise ConfigError(f"calibration sample {number} has NaN in input {index}")


def plain_build(mod: tvm.IRModule) -> Run:
    """TVM's default CPU build: slow, and independent of this project's schedules."""
    from tvm import relax

    from burnish.compiler.environment import set_threads
    from burnish.passes.params import get_params, without_params

    set_threads()
    ready = relax.transform.DecomposeOpsForInference()(without_params(mod))
    machine = relax.VirtualMachine(relax.build(ready, "llvm"), tvm.cpu())
    weights = list(get_params(mod).values())

    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        tensors = [tvm.runtime.tensor(value) for value in inputs]
        return [value.numpy() for value in _flat(machine["main"](*tensors, *weights))]

    return run


def _flat(value: Any) -> list[Any]:
    if hasattr(value, "numpy"):
        return [value]
    return [leaf for one in value for leaf in _flat(one)]
