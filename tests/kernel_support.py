"""Building small graphs down to CPU kernels, and comparing them with float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.relax import transform as T

from burnish.compiler import pipeline
from burnish.compiler.config import CompileConfig
from burnish.compiler.optimizer import LOWERING
from burnish.passes.params import get_params, with_main, with_params, without_params
from burnish.targets.cpu.lowering import PIPELINE
from burnish.targets.cpu.schedule import SCHEDULED, schedule
from burnish.targets.target import CpuTarget, host

Arrays = Mapping[str, np.ndarray]
Make = Callable[..., relax.Expr]


@dataclass(frozen=True)
class Case:
    """A graph, arrays to run it on, and what it should give.

    ``make(*inputs, *weights)`` makes one expression or a list of them; ``expected`` takes the
    same arrays as torch tensors, floats in float64. ``shapes`` overrides the shape of an input
    by one with symbols in it (their names). ``tolerance`` bounds max|y - ref| / max|ref|.
    """

    make: Make
    expected: Callable[..., Any]
    inputs: Arrays
    weights: Arrays = field(default_factory=dict)
    shapes: Mapping[str, Sequence[int | str]] = field(default_factory=dict)
    tolerance: float = 2e-5

    def __repr__(self) -> str:
        shapes = {k: (v.shape, str(v.dtype)) for k, v in {**self.inputs, **self.weights}.items()}
        return f"Case({shapes}, {dict(self.shapes)})"


def module(case: Case) -> tvm.IRModule:
    """The graph of a case under the IR convention."""
    symbols: dict[str, tirx.Var] = {}

    def dim(size: int | str) -> Any:
        return symbols.setdefault(size, tirx.Var(size, "int64")) if isinstance(size, str) else size

    variables = [
        relax.Var(
            name,
            relax.TensorType(
                [dim(n) for n in case.shapes.get(name, array.shape)], str(array.dtype)
            ),
        )
        for name, array in {**case.inputs, **case.weights}.items()
    ]
    builder = relax.BlockBuilder()
    with builder.function("main", variables):
        with builder.dataflow():
            made = case.make(*variables)
            made = made if isinstance(made, list | tuple) else [made]
            outputs = [builder.emit_output(builder.emit(expr)) for expr in made]
        builder.emit_func_output(outputs[0] if len(outputs) == 1 else relax.Tuple(outputs))
    mod = builder.get()
    mod = with_main(mod, mod["main"].with_attr("num_input", len(case.inputs)))
    return with_params(mod, case.weights)


def lowered(
    mod: tvm.IRModule, target: CpuTarget | None = None, config: CompileConfig | None = None
) -> tvm.IRModule:
    """Graph in, fused kernels out, by the pipeline's own phases."""
    cpu = target or host()
    for phase in pipeline.graph_phases(cpu, config or CompileConfig()):
        if phase.name in (*LOWERING, "precision"):
            with cpu.tvm():
                mod = tvm.transform.Sequential(list(phase.passes))(mod)
    return mod


class Built:
    """Fused kernels as a function of NumPy arrays; outputs are a flat list."""

    def __init__(self, fused: tvm.IRModule, target: CpuTarget | None = None) -> None:
        cpu = target or host()
        self.kernels: list[tirx.PrimFunc] = []

        def scheduled(func: tirx.PrimFunc) -> tirx.PrimFunc:
            new = schedule(func, cpu)
            self.kernels.append(new)
            return new

        self.executable = executable(fused, cpu, scheduled)
        machine = relax.VirtualMachine(self.executable, tvm.cpu())
        self._main = machine["main"]
        self._weights = tvm_ffi.convert(list(get_params(fused).values()))

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        out = self._main(*[tvm.runtime.tensor(x) for x in inputs], self._weights)
        return [out.numpy()] if isinstance(out, tvm.runtime.Tensor) else [x.numpy() for x in out]

    def unscheduled(self) -> list[tirx.PrimFunc]:
        """Kernels that kept their own loops."""
        return [func for func in self.kernels if SCHEDULED not in func.attrs]


def executable(
    fused: tvm.IRModule, target: CpuTarget, scheduled: Callable[[tirx.PrimFunc], tirx.PrimFunc]
) -> Any:
    """Fused kernels through code generation for ``target``."""
    with target.tvm():
        bundled = without_params(T.BundleModelParams()(fused))
        finish = tvm.transform.Sequential(list(pipeline.build_passes(scheduled)))
        # Virtual-machine code is not graph IR: no instruments.
        with tvm.transform.PassContext():
            return relax.build(
                bundled, target=target.tvm(), relax_pipeline=finish, tir_pipeline=PIPELINE
            )


def build(case: Case, target: CpuTarget | None = None, precision: str = "fp32") -> Built:
    """A case from graph to code."""
    config = CompileConfig(precision=precision)
    return Built(lowered(module(case), target, config), target)


def reference(case: Case, inputs: Arrays | None = None) -> list[np.ndarray]:
    """What float64 says."""
    arrays = [*(inputs or case.inputs).values(), *case.weights.values()]
    tensors = [torch.from_numpy(np.ascontiguousarray(a)) for a in arrays]
    wide = [t.double() if t.is_floating_point() else t for t in tensors]
    with torch.no_grad():
        out = case.expected(*wide)
    return [t.numpy() for t in (out if isinstance(out, list | tuple) else [out])]


def check(case: Case, target: CpuTarget | None = None) -> Built:
    """Build a case, run it, compare; the build, for a look at its kernels."""
    built = build(case, target)
    compare(built(*case.inputs.values()), reference(case), case.tolerance)
    return built


def compare(got: Sequence[np.ndarray], want: Sequence[np.ndarray], tolerance: float) -> None:
    """Same shapes; floats within ``tolerance`` of the largest reference, the rest equal."""
    assert len(got) == len(want)
    for y, ref in zip(got, want, strict=True):
        assert y.shape == ref.shape
        if ref.size == 0:
            continue
        if np.issubdtype(y.dtype, np.floating):
            assert np.array_equal(np.isnan(y), np.isnan(ref))
            infinite = np.isinf(ref)
            np.testing.assert_array_equal(y[infinite], ref[infinite])
            finite = np.isfinite(ref)
            if finite.any():
                error = np.abs(y[finite].astype("float64") - ref[finite]).max()
                assert error <= tolerance * max(np.abs(ref[finite]).max(), 1e-3)
        else:
            np.testing.assert_array_equal(y, ref)


def normal(seed: int, *shape: int, dtype: str = "float32") -> np.ndarray:
    """Normal values."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
