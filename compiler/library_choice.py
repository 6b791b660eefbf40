"""Which products a tuned library computes in a kernel's place, and how that is found out.

``libraries`` of a configuration says it: ``cublas`` for all that cuBLASLt takes, ``cublas:KEY`` for
one product (:attr:`~burnish.targets.cuda.blas.Product.key`), ``auto`` for those where it measures
faster on this machine's GPU; a finished configuration lists these, so that it measures nothing.
"""

from __future__ import annotations

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
from burnish.compiler.libraries import LIBRARY
from burnish.compiler.optimizer import lowered
from burnish.passes.call_blas import CallBlas
from burnish.targets.cuda.blas import Product
from burnish.targets.cuda.target import CudaTarget

GAIN = 0.97
"""A library is called where it takes less than this share of the kernel's time."""
Timed = Callable[[Product, CudaTarget], tuple[float, float]]
"""Milliseconds of a product on this machine's GPU: by our kernel, by the library."""


def settled(
    graph: tvm.IRModule, target: CudaTarget, config: CompileConfig, timed: Timed | None = None
) -> CompileConfig:
    """``config`` with the products that measured faster in the library for ``auto``.

    ``graph`` is what the lowering passes will read.
    """
    clock = timed or gpu_times
    chosen = []
    for key, product in products(graph, target, config).items():
        ours, theirs = clock(product, target)
        if theirs < GAIN * ours:
            chosen.append(f"{LIBRARY}:{key}")
    return config.overridden(libraries=tuple(sorted(chosen)))


def products(graph: tvm.IRModule, target: CudaTarget, config: CompileConfig) -> dict[str, Product]:
    """Every product of a graph that the library would take, by key."""
    found: dict[str, Product] = {}

    def seen(product: Product) -> bool:
        found.setdefault(product.key, product)
        return False

    mod = graph
    (phase,) = (one for one in pipeline.graph_phases(target, config) if one.name == "lower")
    with target.tvm():
        for step in phase.passes:
            if step.info.name == "CallBlas":
                tvm.transform.Sequential([CallBlas(seen)])(mod)
                break
            mod = step(mod)
    return found


def product_module(product: Product) -> tvm.IRModule:
    """A module whose ``main`` is the product alone, operands as run-time inputs."""
    builder = relax.BlockBuilder()

    def operand(name: str, outer: tuple[int, ...], rows: int, columns: int) -> relax.Var:
        return relax.Var(name, relax.TensorType((*outer, rows, columns), product.dtype))

    m, n, k = product.m, product.n, product.k
    a = operand("a", product.a_outer, *((k, m) if product.a_turned else (m, k)))
    b = operand("b", product.b_outer, *((n, k) if product.b_turned else (k, n)))
    bias = relax.Var("bias", relax.TensorType((n,), product.dtype))
    with builder.function("main", [a, b, bias] if product.bias else [a, b]):
        with builder.dataflow():
            left = builder.emit(_turned(a)) if product.a_turned else a
            right = builder.emit(_turned(b)) if product.b_turned else b
            value = builder.emit(relax.op.matmul(left, right))
            if product.bias:
                value = builder.emit(relax.op.add(value, bias))
            if product.activation:
                value = builder.emit(getattr(relax.op.nn, product.activation)(value))
            out = builder.emit_output(value)
        builder.emit_func_output(out)
    return builder.finalize()


def _turned(operand: relax.Var) -> relax.Call:
    rank = int(operand.ty.ndim)
    return relax.op.permute_dims(operand, [*range(rank - 2), rank - 1, rank - 2])


def gpu_times(product: Product, target: CudaTarget) -> tuple[float, float]:
    """Best of five rounds on this machine's first GPU; not yet run on one."""
    ours, theirs = (_gpu_ms(product, target, names) for names in ((), (LIBRARY,)))
    return ours, theirs


def _gpu_ms(product: Product, target: CudaTarget, libraries: tuple[str, ...]) -> float:
    one = replace(target, arches=(target.arches[0],))
    mod = product_module(product)
    phases = pipeline.graph_phases(one, CompileConfig(libraries=libraries))
    with tempfile.TemporaryDirectory(prefix="burnish-product-") as folder:
        built = build_library(lowered(mod, one, phases), one, Path(folder))
        device = tvm.cuda(0)
        machine = relax.VirtualMachine(tvm.runtime.load_module(str(built.path)), device)
        rng = np.random.default_rng(0)
        inputs = [
            tvm.runtime.empty(tuple(map(int, var.ty.shape)), product.dtype, device).copyfrom(
                rng.standard_normal(tuple(map(int, var.ty.shape))).astype(product.dtype)
            )
            for var in mod["main"].params
        ]
        clock = machine.time_evaluator("main", device, number=10, repeat=5)
        return float(min(clock(*inputs, tvm.runtime.convert([])).results)) * 1e3
