"""Which operations tuned libraries compute in a kernel's place, and how that is found out.

``libraries`` of a configuration says it: ``cublas`` for every product that cuBLASLt takes,
``cudnn`` for every convolution that cuDNN takes, ``cublas:KEY`` for one (its ``key``), ``auto`` for
those where the library measures faster on this machine's GPU; a finished configuration lists these,
so that it measures nothing.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import tvm
from tvm import relax

from burnish.compiler import pipeline
from burnish.compiler.build import build_library
from burnish.compiler.config import CompileConfig
from burnish.compiler.optimizer import lowered
from burnish.passes.call_library import CallLibrary
from burnish.targets.cuda.called import Operation
from burnish.targets.cuda.dnn import Convolution
from burnish.targets.cuda.target import CudaTarget

GAIN = 0.97
"""A library is called where it takes less than this share of the kernel's time."""
Timed = Callable[[Operation, CudaTarget], tuple[float, float]]
"""Milliseconds of an operation on this machine's GPU: by our kernel, by the library."""


def settled(
    graph: tvm.IRModule, target: CudaTarget, config: CompileConfig, timed: Timed | None = None
) -> CompileConfig:
    """``config`` with the operations that measured faster in the library for ``auto``.

    ``graph`` is what the lowering passes will read.
    """
    clock = timed or gpu_times
    chosen = []
    for name, operation in operations(graph, target, config).items():
        ours, theirs = clock(operation, target)
        if theirs < GAIN * ours:
            chosen.append(name)
    return config.overridden(libraries=tuple(sorted(chosen)))


def operations(
    graph: tvm.IRModule, target: CudaTarget, config: CompileConfig
) -> dict[str, Operation]:
    """Every operation of a graph that a library would take, by its name for ``libraries``."""
    found: dict[str, Operation] = {}

    def seen(operation: Operation) -> bool:
        found.setdefault(f"{operation.library}:{operation.key}", operation)
        return False

    mod = graph
    (phase,) = (one for one in pipeline.graph_phases(target, config) if one.name == "lower")
    with target.tvm():
        for step in phase.passes:
            if step.info.name == "CallLibrary":
                tvm.transform.Sequential([CallLibrary(seen)])(mod)
                break
            mod = step(mod)
    return found


def alone(operation: Operation) -> tvm.IRModule:
    """A module whose ``main`` is the operation alone, operands as run-time inputs."""
    builder = relax.BlockBuilder()
    shapes = _operands(operation)
    names = ["x", "w", "bias"][: len(shapes)]
    operands = [
        relax.Var(name, relax.TensorType(shape, operation.dtype))
        for name, shape in zip(names, shapes, strict=True)
    ]
    with builder.function("main", operands):
        with builder.dataflow():
            value = builder.emit(_applied(operation, operands[0], operands[1], builder))
            if operation.bias:
                value = builder.emit(relax.op.add(value, operands[2]))
            if operation.activation:
                value = builder.emit(getattr(relax.op.nn, operation.activation)(value))
            out = builder.emit_output(value)
        builder.emit_func_output(out)
    return builder.finalize()


def _operands(operation: Operation) -> list[tuple[int, ...]]:
    """Shapes of the operands, the bias last."""
    if isinstance(operation, Convolution):
        shapes = [operation.x, operation.w]
        return [*shapes, (1, 1, 1, operation.w[0])] if operation.bias else shapes
    m, n, k = operation.m, operation.n, operation.k
    a = (k, m) if operation.a_turned else (m, k)
    b = (n, k) if operation.b_turned else (k, n)
    shapes = [(*operation.a_outer, *a), (*operation.b_outer, *b)]
    return [*shapes, (n,)] if operation.bias else shapes


def _applied(
    operation: Operation, x: relax.Var, w: relax.Var, builder: relax.BlockBuilder
) -> relax.Call:
    if isinstance(operation, Convolution):
        return relax.op.nn.conv2d(
            x,
            w,
            strides=list(operation.strides),
            padding=[*operation.pads, *operation.pads],
            dilation=list(operation.dilations),
            groups=operation.groups,
            data_layout="NHWC",
            kernel_layout="OHWI",
            out_layout="NHWC",
        )
    left = builder.emit(_turned(x)) if operation.a_turned else x
    right = builder.emit(_turned(w)) if operation.b_turned else w
    return relax.op.matmul(left, right)


def _turned(operand: relax.Var) -> relax.Call:
    rank = int(operand.ty.ndim)
    return relax.op.permute_dims(operand, [*range(rank - 2), rank - 1, rank - 2])


def gpu_times(operation: Operation, target: CudaTarget) -> tuple[float, float]:
    """Best of five rounds on this machine's first GPU; not yet run on one.

    What a library refuses takes it for ever.
    """
    ours = _gpu_ms(operation, target, ())
    try:
        return ours, _gpu_ms(operation, target, (operation.library,))
    except RuntimeError:
        return ours, math.inf


def _gpu_ms(operation: Operation, target: CudaTarget, libraries: tuple[str, ...]) -> float:
    one = replace(target, arches=(target.arches[0],))
    mod = alone(operation)
    phases = pipeline.graph_phases(one, CompileConfig(libraries=libraries))
    with tempfile.TemporaryDirectory(prefix="burnish-operation-") as folder:
        built = build_library(lowered(mod, one, phases), one, Path(folder))
        device = tvm.cuda(0)
        machine = relax.VirtualMachine(tvm.runtime.load_module(str(built.path)), device)
        rng = np.random.default_rng(0)
        inputs = [
            tvm.runtime.empty(tuple(map(int, var.ty.shape)), operation.dtype, device).copyfrom(
                rng.standard_normal(tuple(map(int, var.ty.shape))).astype(operation.dtype)
            )
            for var in mod["main"].params
        ]
        clock = machine.time_evaluator("main", device, number=10, repeat=5)
        return float(min(clock(*inputs, tvm.runtime.convert([])).results)) * 1e3
