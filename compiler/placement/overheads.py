"""What a call costs beside its kernels on this machine: from the smallest networks, and kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from burnish.compiler.artifact import cache_folder
from burnish.compiler.cache_key import source_digest, versions
from burnish.compiler.errors import ConfigError
from burnish.compiler.measure import ArtifactRunner, MeasureService, Timing, describe_machine
from burnish.compiler.measure.cache import TimingCache
from burnish.targets.core_sets import usable
from burnish.targets.target import CpuTarget

CALL_ROUNDS = 5
MANY = 17
"""Kernels, or turns, of the longer one of two networks that are told apart by their number."""


class _Halves(torch.nn.Module):
    """As many outputs as inputs."""

    def forward(self, *given: torch.Tensor) -> Any:
        made = tuple(torch.relu(one) for one in given)
        return made[0] if len(made) == 1 else made


class _Products(torch.nn.Module):
    """``count`` small kernels, one after another."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            *(torch.nn.Linear(16, 16, bias=False) for _ in range(count))
        )

    def forward(self, x: torch.Tensor) -> Any:
        return self.layers(x)


class _Turns(torch.nn.Module):
    """``count`` small kernels of two kinds in turns."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: torch.Tensor) -> Any:
        for turn in range(self.count):
            x = torch.tanh(x) if turn % 2 else torch.relu(x)
        return x


def call_seconds(
    target: Any,
    leaves: int,
    *,
    recorded: bool = True,
    arrays: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> float:
    """What a call costs beside its kernels on this machine, for inputs and outputs in number.

    Of torch's tensors, or NumPy's ``arrays``, which cost more. From two networks of nothing but
    the smallest kernels, one with one input and output, one with four of each; kept between runs.
    What is not ``recorded`` goes by the virtual machine, which costs more
    (:mod:`burnish.compiler.replay`): it is timed with an open size. ``target`` is where all of the
    model is: a set of cores as ``hetero:cpu@0``, or what else has kernels of its own; of any other
    its host.
    """
    if not isinstance(target, str | CpuTarget):
        target = target.host
    what = "halves" if recorded else "open halves"
    spent = [
        _call_s(
            _Halves(),
            [np.ones((1, 16), np.float32) if arrays else torch.ones(1, 16)] * count,
            target,
            f"{what} {count}",
            cache_dir,
            dynamic=None if recorded else {f"given_{at}": {0: "rows"} for at in range(count)},
        )
        for count in (1, 4)
    ]
    each = max(0.0, (spent[1] - spent[0]) / 6)
    return max(0.0, spent[0] - 2 * each) + leaves * each


def start_seconds(
    leaves: int, *, arrays: bool = False, cache_dir: str | os.PathLike[str] | None = None
) -> float:
    """What a call of regions that work at the same time costs beside its kernels and turns.

    That is the start of one region on a core and the wait for its end, and what inputs and outputs
    in number cost beside one of each. Kept between runs; raises as :func:`turn_seconds` does.
    """
    short, turn = _turns(cache_dir)
    first = f"hetero:{_cores(1)[0]}"
    more = [call_seconds(first, count, arrays=arrays, cache_dir=cache_dir) for count in (2, leaves)]
    return max(0.0, short - turn) + more[1] - more[0]


def dispatch_seconds(*, cache_dir: str | os.PathLike[str] | None = None) -> float:
    """What the virtual machine takes to start a kernel of a CPU, over a recorded call's.

    From one and :data:`MANY` small kernels, each way; kept between runs. What is not in the host's
    memory is started by the virtual machine.
    """
    ways = "cpu", "hetero:cpu:1,cpu"
    spent = {
        (target, count): _call_s(
            _Products(count), [torch.ones(1, 16)], target, f"products {count}", cache_dir
        )
        for target in ways
        for count in (1, MANY)
    }
    slopes = [(spent[target, MANY] - spent[target, 1]) / (MANY - 1) for target in ways]
    return max(0.0, slopes[1] - slopes[0])


def turn_seconds(*, cache_dir: str | os.PathLike[str] | None = None) -> float:
    """What it takes until a region of one core goes on with what a region of another has made.

    From chains of two and of :data:`MANY` regions that each wait for the one before, on two
    cores in turns; kept between runs. Raises :class:`ConfigError` where there are not two.
    """
    return _turns(cache_dir)[1]


def _turns(cache_dir: str | os.PathLike[str] | None) -> tuple[float, float]:
    """A call of two regions in turns, and what each more takes; seconds."""
    cores = _cores(2)
    placement = dict(zip(("nn.relu", "tanh"), cores, strict=True))
    spent = [
        _call_s(
            _Turns(count),
            [torch.ones(1, 16)],
            f"hetero:{','.join(cores)}",
            f"turns {count}",
            cache_dir,
            placement,
        )
        for count in (2, MANY)
    ]
    return spent[0], max(0.0, (spent[1] - spent[0]) / (MANY - 2))


def _cores(count: int) -> list[str]:
    known = sorted(usable())
    if len(known) < count:
        raise ConfigError(
            f"what cores that work at the same time cost each other is measured on {count} of "
            f"them, and this process may run on {known}: place by names, or on another machine"
        )
    return [f"cpu@{core}" for core in known[:count]]


def _call_s(
    net: torch.nn.Module,
    given: list[Any],
    target: Any,
    what: str,
    cache_dir: str | os.PathLike[str] | None,
    placement: Mapping[str, str] | None = None,
    dynamic: Mapping[str, Any] | None = None,
) -> float:
    """Seconds of a call of a network, taken once."""
    cache = TimingCache(cache_dir or cache_folder() / "calls")
    parts = {
        "call": f"{what}, of {type(given[0]).__name__}",
        "target": str(target),
        "cpu": describe_machine()["cpu"],
        "sources": source_digest(("compiler", "passes", "runtime", "targets")),
        "versions": versions(),
    }
    key = TimingCache.key(**parts)
    timing = cache.get(key)
    if timing is None:
        timing = _call_timing(net, given, target, placement or {}, dynamic)
        cache.put_all({key: {**parts, "timing": timing.to_dict()}})
    return timing.p50 / 1e3


def _call_timing(
    net: torch.nn.Module,
    given: list[Any],
    target: Any,
    placement: Mapping[str, str],
    dynamic: Mapping[str, Any] | None,
) -> Timing:
    from burnish.compiler import driver

    compiled = driver.compile(
        net.eval(),
        tuple(map(torch.as_tensor, given)),
        target=target,
        placement=dict(placement),
        dynamic=dynamic,
        cache=False,
    )
    with (
        tempfile.TemporaryDirectory(prefix="burnish-call-") as folder,
        MeasureService(1) as service,
    ):
        runner = ArtifactRunner(compiled.save(f"{folder}/call.burnish"))
        return service.take_turns({"call": runner}, tuple(given), rounds=CALL_ROUNDS, budget_s=2.0)[
            "call"
        ]


__all__ = ["call_seconds", "dispatch_seconds", "start_seconds", "turn_seconds"]
