"""Small lowered modules, a plain default schedule, and a measuring service that makes up times."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import transform as T
from tvm.s_tir import Schedule
from tvm.script import relax as R

from burnish.compiler.errors import MeasureError
from burnish.compiler.measure import MeasureService
from burnish.compiler.measure.timing import Timing, summarize
from burnish.compiler.tune.kernels import KernelBatch


def _module(
    arguments: Mapping[str, tuple[int, ...]], body: Callable[..., list[relax.Expr]]
) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    params = [relax.Var(name, R.Tensor(shape, "float32")) for name, shape in arguments.items()]
    with builder.function("main", params):
        with builder.dataflow():
            for expr in (values := body(builder, *params)):
                last = builder.emit_output(expr) if expr is values[-1] else builder.emit(expr)
        builder.emit_func_output(last)
    passes = [T.LegalizeOps(), T.AnnotateTIROpPattern(), T.FuseOps(), T.FuseTIR()]
    return tvm.transform.Sequential([*passes, T.DeadCodeElimination()])(builder.get())


@pytest.fixture(scope="session")
def matmul() -> tvm.IRModule:
    """relu(x @ w), 64 x 128 x 128."""
    return _module(
        {"x": (64, 128), "w": (128, 128)},
        lambda bb, x, w: [relax.op.nn.relu(bb.emit(relax.op.matmul(x, w)))],
    )


@pytest.fixture(scope="session")
def three() -> tvm.IRModule:
    """Two equal matmuls with relu, a softmax, and an addition of one number."""

    def body(bb: relax.BlockBuilder, x: relax.Var, w: relax.Var, s: relax.Var) -> list[relax.Expr]:
        y = bb.emit(relax.op.nn.relu(bb.emit(relax.op.matmul(x, w))))
        z = bb.emit(relax.op.nn.relu(bb.emit(relax.op.matmul(y, w))))
        soft = bb.emit(relax.op.nn.softmax(z))
        tiny = bb.emit(relax.op.add(s, s))
        return [relax.Tuple([soft, tiny])]

    return _module({"x": (128, 128), "w": (128, 128), "s": (1,)}, body)


@pytest.fixture(scope="session")
def conv() -> tvm.IRModule:
    """relu of a 3 x 3 convolution, 14 x 14, 32 -> 32 channels."""

    def body(bb: relax.BlockBuilder, x: relax.Var, w: relax.Var) -> list[relax.Expr]:
        y = relax.op.nn.conv2d(x, w, padding=1, data_layout="NHWC", kernel_layout="OHWI")
        return [relax.op.nn.relu(bb.emit(y))]

    return _module({"x": (1, 14, 14, 32), "w": (32, 3, 3, 32)}, body)


@pytest.fixture(scope="session")
def target() -> tvm.target.Target:
    return tvm.target.Target({"kind": "llvm", "num-cores": 2})


@pytest.fixture(scope="session")
def serial() -> Callable[[tirx.PrimFunc], tirx.PrimFunc]:
    """A default schedule that changes nothing: serial, scalar loops."""
    return lambda func: func


@pytest.fixture(scope="session")
def parallel() -> Callable[[tirx.PrimFunc], tirx.PrimFunc]:
    """A schedule that runs the outermost loop of each block in parallel."""

    def schedule(func: tirx.PrimFunc) -> tirx.PrimFunc:
        sch = Schedule(tvm.IRModule({"main": tvm.ir.load_json(tvm.ir.save_json(func))}))
        for block in sch.get_child_blocks(sch.get_sblock("root")):
            sch.parallel(sch.get_loops(block)[0])
        return sch.mod["main"]

    return schedule


@pytest.fixture(scope="module")
def service() -> Iterator[MeasureService]:
    with MeasureService(threads=2) as measure:
        yield measure


class MadeUpService:
    """Answers as the measuring service does, at once.

    A kernel timed without a limit, a default, takes 4 ms, any other 1 to 2 by a hash of it.
    ``override`` maps a kernel's JSON to other seconds, or to an error to raise.
    """

    threads = 2
    timeout = 300.0

    def __init__(
        self, override: Callable[[str], float | MeasureError | None] = lambda text: None
    ) -> None:
        self.override = override
        self.named: dict[str, KernelBatch] = {}
        self.defaults: set[str] = set()
        self.screened: list[tuple[str, ...]] = []

    def open(self, runners: Mapping[str, KernelBatch], inputs: Any, **_: Any) -> None:
        self.named.update(runners)

    def outputs(self, name: str, inputs: Any) -> Any:
        batch = self.named[name]
        if inputs[0] == "outputs":
            return [[np.zeros(specs[-1][0])] for specs in batch.arguments]
        if inputs[1] == float("inf"):
            self.defaults.update(batch.modules)
        self.screened.append(batch.modules)
        return [
            {"secs": np.array([self._seconds(text)]), "error": np.zeros(0, np.uint8)}
            for text in batch.modules
        ]

    def take_turns(
        self, runners: Mapping[str, KernelBatch], *_: Any, **__: Any
    ) -> dict[str, Timing]:
        found = {}
        for name, runner in runners.items():
            try:
                ms = self._seconds(runner.modules[0]) * 1e3
            except MeasureError as error:
                raise MeasureError(f"{error.message} while timing {name!r}") from None
            found[name] = summarize([[ms] * 3] * 3)
        return found

    def _seconds(self, text: str) -> float:
        value = self.override(text)
        if isinstance(value, MeasureError):
            raise value
        if value is not None:
            return value
        if text in self.defaults:
            return 4e-3
        return 1e-3 + hashlib.sha256(text.encode()).digest()[0] * 4e-6


@pytest.fixture
def made_up() -> type[MadeUpService]:
    return MadeUpService
