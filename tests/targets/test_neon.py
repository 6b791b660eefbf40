"""Kernels for ARM, run by an emulator against float64: built and run once for all tests here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cross_support import Program, drawn
from kernel_cases import FAMILIES, attention_reference
from kernel_support import Case, compare, lowered, module, normal, reference
from small_nets import Block, Classifier, made
from tvm import relax

import burnish
from burnish.passes.configs import QuantizeConfig
from burnish.passes.quantize import QuantizeWeights, dequantized_weights
from burnish.targets.target import parse_target
from support import require_program

op = relax.op
NEON = "llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a76"
EACH = 3
MORE = 40

Reference = Callable[[], list[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Planned:
    """A result to come, what it should be, and how near."""

    number: int
    want: Reference
    tolerance: float
    label: str


class Runs:
    """Results by the name of their test."""

    def __init__(self) -> None:
        self.compiler = require_program("aarch64-linux-gnu-gcc", "g++-aarch64-linux-gnu")
        self.emulator = require_program("qemu-aarch64", "qemu-user")
        self.program = Program(parse_target(NEON))
        self.planned: dict[str, list[Planned]] = {}

    def case(self, name: str, case: Case, inputs: Any = None) -> None:
        number = self.program.add_case(case, inputs)
        self._keep(name, number, lambda: reference(case, inputs), case.tolerance, repr(case))

    def quantized(self, name: str, case: Case, config: QuantizeConfig) -> None:
        """The kernels compute with exactly the dequantized weights."""
        mod = QuantizeWeights(config)(module(case))
        plain = dataclasses.replace(case, weights={**case.weights, **dequantized_weights(mod)})
        number = self.program.add(lowered(mod, self.program.target), case.inputs)
        self._keep(name, number, lambda: reference(plain), case.tolerance, repr(config))

    def network(self, name: str, kind: type[torch.nn.Module], *inputs: torch.Tensor) -> None:
        """A whole network through every pass."""
        model = made(kind)
        imported = burnish.import_model(model, inputs)
        config = burnish.CompileConfig(do_no_harm=False)
        fused = burnish.optimize(imported, target=NEON, config=config).mod
        names = [str(v.name) for v in fused["main"].params][: len(inputs)]
        arrays = dict(zip(names, [x.numpy() for x in inputs], strict=True))
        number = self.program.add(fused, arrays)

        def want() -> list[np.ndarray]:
            with torch.no_grad():
                out = model.double()(*[x.double() if x.is_floating_point() else x for x in inputs])
            leaves: list[torch.Tensor] = []
            torch.utils._pytree.tree_map_only(torch.Tensor, leaves.append, out)
            return [leaf.numpy() for leaf in leaves]

        self._keep(name, number, want, 1e-5, name)

    def _keep(self, name: str, number: int, want: Reference, tolerance: float, label: str) -> None:
        self.planned.setdefault(name, []).append(Planned(number, want, tolerance, label))

    def run(self, folder: Path) -> None:
        program = self.program.build(folder, self.compiler)
        self.program.run(folder, [self.emulator, str(program)])

    def check(self, name: str) -> None:
        """Every result of a test against its reference."""
        assert self.planned[name]
        for planned in self.planned[name]:
            try:
                compare(self.program.outputs(planned.number), planned.want(), planned.tolerance)
            except AssertionError as error:
                raise AssertionError(f"{planned.label}: {error}") from error


def linear(rows: int, k: int, n: int) -> Case:
    return Case(
        lambda x, w, b: op.nn.gelu(op.add(op.matmul(x, op.permute_dims(w)), b)),
        lambda x, w, b: F.gelu(x @ w.T + b),
        {"x": normal(0, rows, k)},
        {"w": normal(1, n, k), "b": normal(2, n)},
    )


def open_linear(rows: int) -> Case:
    return dataclasses.replace(linear(rows, 29, 37), shapes={"x": ["n", 29]})


def open_attention(m: int, n: int) -> Case:
    shape = (2, 12)
    return Case(
        lambda q, k, v: op.nn.attention(q, k, v),
        attention_reference,
        {"q": normal(0, 1, m, *shape), "k": normal(1, 1, n, *shape), "v": normal(2, 1, n, *shape)},
        shapes={"q": [1, "m", *shape], "k": [1, "n", *shape], "v": [1, "n", *shape]},
    )


def folds(axis: int) -> Case:
    """What keeps its own loops."""
    return Case(
        lambda x: [op.argmax(x, axis), op.cumsum(x, axis)],
        lambda x: [x.argmax(axis), x.cumsum(axis)],
        {"x": normal(axis, 9, 17)},
    )


INFINITE, ZEROS, TINY = [np.inf, -np.inf, np.nan], [0.0, -0.0], [2.0**-149, -(2.0**-149), 2.0**-126]
BORDERS = [88.72283, 88.72284, -87.33654, -103.97207, -103.97208, 0.625, -0.625, 1, -1]
LARGE = [3.4028235e38, -3.4028235e38]
SPECIAL = np.array([*INFINITE, *ZEROS, *TINY, *BORDERS, *LARGE], np.float32)
FUNCTIONS = {"exp": torch.exp, "log": torch.log, "tanh": torch.tanh, "erf": torch.erf}


def wide_range() -> np.ndarray:
    grid = [np.linspace(-110, 100, 10_007), np.linspace(-5, 5, 10_007)]
    bits = np.arange(0, 2**32, 2**18 + 1, dtype=np.uint32).view(np.float32)
    return np.concatenate([SPECIAL, *[g.astype(np.float32) for g in grid], bits])


QUANTIZED = {
    "int8": QuantizeConfig(bits=8),
    "int4": QuantizeConfig(bits=4, symmetric=False, granularity="group", group_size=8),
}
DRAWN = [name for name in FAMILIES if name != "ordering"]
"""Sorting calls functions of the TVM runtime."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    runs = Runs()
    for name in DRAWN:
        for case in drawn(FAMILIES[name], EACH):
            runs.case(name, case)
    for shape in [(64, 96, 200), (13, 300, 31), (1, 700, 64), (7, 64, 16)]:
        runs.case("large", linear(*shape))
    for rows in (1, 6, 31):
        runs.case("open", open_linear(rows))
        runs.case("open", open_attention(rows, 40 - rows))
    for axis in (0, 1):
        runs.case("own loops", folds(axis))
    for name, config in QUANTIZED.items():
        for shape in [(1, 40, 33), (31, 40, 33)]:
            runs.quantized(name, linear(*shape), config)
    for name, function in FUNCTIONS.items():
        runs.case(name, Case(getattr(op, name), function, {"x": wide_range()}))
    runs.network("convolutions", Classifier, torch.randn(2, 3, 13, 11))
    tokens = torch.arange(14).reshape(2, 7)
    runs.network("transformer", Block, tokens, torch.ones(2, 7, dtype=torch.int64))
    runs.run(tmp_path_factory.mktemp("neon"))
    return runs


OTHERS = ["large", "open", "own loops", "int8", "int4", "convolutions", "transformer"]


@pytest.mark.parametrize("name", [*DRAWN, *OTHERS])
def test_neon_kernels_compute_what_float64_does(runs, name):
    runs.check(name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_on_neon_keep_their_bound_and_special_values(runs, name):
    (planned,) = runs.planned[name]
    (got,), x = runs.program.outputs(planned.number), wide_range()
    with np.errstate(over="ignore", invalid="ignore"):
        want = FUNCTIONS[name](torch.from_numpy(x.astype(np.float64))).numpy().astype(np.float32)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6 if name in ("log", "erf") else 1e-44)


def test_a_kernel_that_writes_beside_its_output_is_caught(runs):
    """The check that every run above passed."""
    arena = runs.program._arena
    offset, size = arena.written[0]
    arena.written[0] = (offset, size - 4)
    with pytest.raises(AssertionError, match="outside its outputs"):
        runs.program.check_untouched()
    arena.written[0] = (offset, size)
    runs.program.check_untouched()


@pytest.mark.heavy
def test_neon_kernels_on_many_shapes(tmp_path):
    runs = Runs()
    for name in DRAWN:
        for case in drawn(FAMILIES[name], MORE, anew=True):
            runs.case(name, case)
    runs.run(tmp_path)
    for name in DRAWN:
        runs.check(name)
