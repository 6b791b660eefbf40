"""What a call costs beside its kernels, and what a busy core costs a call.

    python benchmarks/overhead.py [--json FILE]

First table: a call, and its kernels alone, called in the same order, in microseconds.
Second table: the time of a call on a quiet machine, and with another process that spins on a core.
Best and median of many calls. Wants a quiet machine: ``?`` marks what other processes disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import tvm
from tvm import relax

import burnish
from burnish.compiler.measure.load import LoadMeter
from burnish.models import bench_nets
from burnish.targets.target import host_threads

SMALL = {"mlp-b1": "MLP 784-512-512-10, batch 1", "lstm": "LSTM 2 x 256, 64 steps"}
LARGE = {"resnet50": "ResNet-50", "mobilenetv2": "MobileNetV2", "lstm": "LSTM 2 x 256, 64 steps"}
SPIN = "while True: pass"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, {host_threads()} threads\n")
    models = {name: compiled(name) for name in {**SMALL, **LARGE}}
    small = {name: overhead(*models[name], options.seconds) for name in SMALL}
    print("microseconds                 call best / median   kernels best / median   the rest")
    for name, row in small.items():
        call, kernels = row["call"], row["kernels"]
        print(
            f"{SMALL[name]:28} {call['best']:9.1f} / {call['median']:.1f}"
            f" {kernels['best']:14.1f} / {kernels['median']:.1f} {row['overhead']:14.1f}{mark(row)}"
        )
    large = {name: busy(*models[name], options.seconds) for name in LARGE}
    print("\nmilliseconds                 quiet best / median   busy best / median   times (mean)")
    for name, row in large.items():
        quiet, loud = row["quiet"], row["busy"]
        print(
            f"{LARGE[name]:28} {quiet['best'] / 1e3:9.2f} / {quiet['median'] / 1e3:.2f}"
            f" {loud['best'] / 1e3:13.2f} / {loud['median'] / 1e3:.2f}"
            f" {row['ratio']:11.2f} ({row['mean_ratio']:.2f}){mark(row)}"
        )
    if options.json:
        options.json.write_text(json.dumps({"overhead": small, "busy": large}, indent=1) + "\n")


def compiled(name: str) -> tuple[burnish.Compiled, tuple[torch.Tensor, ...]]:
    """The network compiled with its defaults, and inputs."""
    if name == "mlp-b1":
        net, (inputs,) = bench_nets.load("mlp-b32")
        example: tuple[torch.Tensor, ...] = (inputs[:1].clone(),)
    else:
        net, example = bench_nets.load(name)
    return burnish.compile(net, example), example


def timed(function: Callable[[], Any], seconds: float) -> dict[str, float]:
    """Microseconds of a call: best, median and mean, in runs of about a millisecond."""
    function()
    start = time.perf_counter()
    function()
    inner = max(1, round(1e-3 / (time.perf_counter() - start)))
    samples, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples) < 5:
        start = time.perf_counter()
        for _ in range(inner):
            function()
        samples.append((time.perf_counter() - start) / inner * 1e6)
    return {
        "best": min(samples),
        "median": statistics.median(samples),
        "mean": statistics.fmean(samples),
    }


def overhead(
    model: burnish.Compiled, inputs: tuple[torch.Tensor, ...], seconds: float
) -> dict[str, Any]:
    """A call beside its kernels, less what calling those from Python costs."""
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(model.library)), tvm.cpu())
    calls: list[tuple[Any, tuple[Any, ...]]] = []

    def note(kernel: Any, name: str, before: bool, _result: Any, *arguments: Any) -> None:
        if before and not name.startswith("vm."):
            calls.append((kernel, arguments))

    def kernels_alone() -> None:
        for kernel, arguments in calls:
            kernel(*arguments)

    machine.set_instrument(note)
    machine["main"](*inputs, list(model.params.values()))
    meter = LoadMeter([os.getpid()])
    empty = timed(tvm.get_global_func("runtime.NumThreads"), seconds / 10)
    call = timed(lambda: model(*inputs), seconds)
    alone = timed(kernels_alone, seconds)
    kernels = {part: alone[part] - len(calls) * empty[part] for part in empty}
    return {
        "call": call,
        "kernels": kernels,
        "count": len(calls),
        "overhead": call["median"] - kernels["median"],
        "others": meter.others(),
    }


def busy(
    model: burnish.Compiled, inputs: tuple[torch.Tensor, ...], seconds: float
) -> dict[str, Any]:
    """A call alone on the machine, and beside a process that spins."""
    meter = LoadMeter([os.getpid()])
    quiet = timed(lambda: model(*inputs), seconds)
    others = [meter.others()]
    other = subprocess.Popen([sys.executable, "-S", "-c", SPIN])
    try:
        time.sleep(0.3)
        meter = LoadMeter([os.getpid(), other.pid])
        loud = timed(lambda: model(*inputs), 2 * seconds)
        others.append(meter.others())
    finally:
        other.kill()
        other.wait()
    return {
        "quiet": quiet,
        "busy": loud,
        "ratio": loud["median"] / quiet["median"],
        "mean_ratio": loud["mean"] / quiet["mean"],
        "others": max(others),
    }


def mark(row: dict[str, Any]) -> str:
    """``?`` where other processes took a tenth of a core or more."""
    return " ?" if row["others"] >= 0.1 else ""


if __name__ == "__main__":
    main()
