"""Kernels for another machine: many cases built into one program, run there or emulated.

The graph of a case is followed in Python, call by call; a small C driver of ours
(``cross_driver.c``) makes the calls, so that no TVM runtime for that machine is needed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from kernel_support import Arrays, Case, lowered, module
from tvm import relax, tirx
from tvm.ir import Call
from tvm.ir.expr import GenericConst

from burnish.passes.params import get_params
from burnish.targets.cpu.loops import substitute
from burnish.targets.cpu.lowering import PIPELINE
from burnish.targets.cpu.schedule import schedule
from burnish.targets.cpu.stages import simplified, walk
from burnish.targets.target import CpuTarget

DRIVER = Path(__file__).with_name("cross_driver.c")
_ALIGN = 64
_GUARD = 256
_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}


def drawn(strategy: st.SearchStrategy[Case], count: int, *, anew: bool = False) -> list[Case]:
    """``count`` cases of a strategy: the same ones each time, or new ones."""
    found: list[Case] = []

    @settings(max_examples=count, derandomize=not anew, database=None, phases=[Phase.generate])
    @given(strategy)
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found


@dataclass
class Arena:
    """One block of memory; what lies between two tensors must stay as it is."""

    data: bytearray = field(default_factory=bytearray)
    written: list[tuple[int, int]] = field(default_factory=list)

    def place(self, size: int, content: bytes | None) -> int:
        """The offset of ``size`` bytes: ``content``, or NaNs that a kernel will overwrite."""
        self.data += b"\xff" * (-len(self.data) % _ALIGN + _GUARD)
        offset = len(self.data)
        if content is None:
            self.written.append((offset, size))
        self.data += content if content is not None else b"\xff" * size
        return offset


@dataclass(frozen=True)
class Placed:
    """A tensor of the program: its number in the plan, and where it lies."""

    number: int
    shape: tuple[int, ...]
    dtype: str
    offset: int

    @property
    def size(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


class Program:
    """Cases as kernels for ``target``, built together and run together."""

    def __init__(self, target: CpuTarget) -> None:
        self.target = target
        self.kernels: dict[str, tirx.PrimFunc] = {}
        self._arena = Arena()
        self._plan: list[str] = []
        self._tensors = 0
        self._outputs: list[list[Placed]] = []
        self._after: bytes | None = None

    def add(self, fused: tvm.IRModule, inputs: Arrays) -> int:
        """Plan fused kernels on ``inputs``; the number of the result.

        Raises ``NotImplementedError`` where a kernel calls functions of the TVM runtime.
        """
        prefix = f"c{len(self._outputs)}_"
        kernels = {v: f for v, f in fused.functions.items() if isinstance(f, tirx.PrimFunc)}
        for func in kernels.values():
            if any("call_packed" in getattr(c.op, "name", "") for c in walk(func.body, Call)):
                raise NotImplementedError(f"{func.attrs} calls the TVM runtime")
        for var, func in kernels.items():
            name = prefix + str(var.name_hint)
            self.kernels[name] = schedule(func, self.target).with_attr("global_symbol", name)
        weights = {name: value.numpy() for name, value in get_params(fused).items()}
        self._outputs.append(self._follow(fused["main"], {**inputs, **weights}, prefix))
        return len(self._outputs) - 1

    def add_case(self, case: Case, inputs: Arrays | None = None) -> int:
        """Plan a case."""
        return self.add(lowered(module(case), self.target), inputs or case.inputs)

    def outputs(self, number: int) -> list[np.ndarray]:
        """What the kernels planned under ``number`` gave."""
        assert self._after is not None, "run first"
        return [
            np.frombuffer(self._after, t.dtype, int(np.prod(t.shape)), t.offset).reshape(t.shape)
            for t in self._outputs[number]
        ]

    def build(self, folder: Path, compiler: str, flags: Sequence[str] = ()) -> Path:
        """A program in ``folder``, linked by the C compiler for the target."""
        built = tvm.compile(
            tvm.IRModule(self.kernels), target=self.target.tvm(), tir_pipeline=PIPELINE
        )
        built.mod.write_to_file(str(folder / "kernels.o"), "o")
        (folder / "kernels.inc").write_text("".join(f"KERNEL({name})\n" for name in self.kernels))
        program = folder / "kernels"
        include = Path(tvm_ffi.__file__).parent / "include"
        command = [compiler, "-O2", "-static", "-I", str(folder), "-I", str(include), *flags]
        command += ["-o", str(program), str(DRIVER), str(folder / "kernels.o"), "-lm"]
        _run(command)
        return program

    def run(self, folder: Path, command: Sequence[str]) -> None:
        """Run ``command`` (the program, after an emulator maybe); nothing but results changed."""
        arena, plan = folder / "arena", folder / "plan"
        self._arena.data += b"\xff" * _GUARD
        arena.write_bytes(self._arena.data)
        plan.write_text("\n".join(self._plan) + "\n")
        _run([*command, str(arena), str(plan)])
        self._after = arena.read_bytes()
        self.check_untouched()

    def check_untouched(self) -> None:
        """Fail where a kernel changed anything but the tensors it was to write."""
        assert self._after is not None, "run first"
        before, after = (np.frombuffer(d, np.uint8) for d in (self._arena.data, self._after))
        changed = before != after
        for offset, size in self._arena.written:
            changed[offset : offset + size] = False
        assert not changed.any(), f"a kernel wrote outside its outputs, at {np.argmax(changed)}"

    def _tensor(self, shape: Sequence[int], dtype: str, content: np.ndarray | None) -> Placed:
        data = None if content is None else np.ascontiguousarray(content).tobytes()
        kind = np.dtype(dtype)
        offset = self._arena.place(int(np.prod(shape)) * kind.itemsize, data)
        extents = " ".join(map(str, (len(shape), *shape)))
        self._plan.append(f"tensor {_CODES[kind.kind]} {kind.itemsize * 8} {extents} {offset}")
        self._tensors += 1
        return Placed(self._tensors - 1, tuple(shape), dtype, offset)

    def _follow(self, main: relax.Function, arrays: Arrays, prefix: str) -> list[Placed]:
        """Plan the calls of ``main`` on arrays by name; its outputs, flat."""
        known: dict[Any, Any] = {}
        sizes: dict[Any, Any] = {}
        for var in main.params:
            array = arrays[str(var.name)]
            known[var] = self._tensor(array.shape, str(array.dtype), array)
            for extent, size in zip(var.ty.shape, array.shape, strict=True):
                if isinstance(extent, tvm.ir.Var):
                    sizes[extent] = tirx.const(size, "int64")

        def value(expr: Any) -> Any:
            if isinstance(expr, relax.Tuple):
                return [value(item) for item in expr.fields]
            if isinstance(expr, relax.TupleGetItem):
                return value(expr.tuple_value)[expr.index]
            if isinstance(expr, GenericConst):
                array = expr.value.numpy()
                return self._tensor(array.shape, str(array.dtype), array)
            return known[expr]

        def whole(extent: Any) -> int:
            return int(simplified(substitute(extent, sizes)).value)

        def call(expr: relax.Call) -> Any:
            op = getattr(expr.op, "name", str(expr.op))
            if op != "relax.call_tir":
                raise NotImplementedError(f"{op} needs the TVM runtime")
            kernel, arguments, *rest = expr.args
            kinds = expr.ty_args[0]
            kinds = list(kinds.fields) if isinstance(kinds, relax.TupleType) else [kinds]
            made = [self._tensor([whole(n) for n in t.shape], str(t.dtype), None) for t in kinds]
            words = [f"t {t.number}" for t in (*value(arguments), *made)]
            words += [f"i {whole(n)}" for shape in rest for n in shape.values]
            name = prefix + str(kernel.name_hint)
            self._plan.append(f"call {name} {len(words)} {' '.join(words)}")
            return made if len(made) > 1 else made[0]

        for block in main.body.blocks:
            for binding in block.bindings:
                expr = binding.value
                known[binding.var] = call(expr) if isinstance(expr, relax.Call) else value(expr)

        def flat(result: Any) -> list[Placed]:
            return [t for r in result for t in flat(r)] if isinstance(result, list) else [result]

        return flat(value(main.body.body))


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stderr[-4000:]}"
