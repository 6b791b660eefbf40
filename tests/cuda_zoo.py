"""The zoo built for GPUs, and what its kernels compile to: products, their spills, tensor cores.

``python tests/cuda_zoo.py [NAME ...]`` builds the models and writes what it finds to the list that
the tests compare with.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import burnish
from burnish import models
from burnish.targets.cuda import fatbin, sass

LIST = Path(__file__).parent / "zoo" / "cuda_products.json"
TARGETS = ("cuda:sm_75", "cuda:sm_80,sm_90")
"""sm_75 is scheduled by itself: it has no asynchronous copies, and products of its own."""
PRODUCTS = frozenset(
    ("matmul", "conv1d", "conv2d", "conv3d", "conv2d_transpose", "scores", "mix", "attention")
)
NARROW = ("float16", "bfloat16")


@dataclass(frozen=True)
class Case:
    """A model of the zoo in one type of float, for all architectures that compute with it."""

    model: str
    dtype: str

    @property
    def id(self) -> str:
        return f"{self.model}-{self.dtype}"

    @property
    def targets(self) -> tuple[str, ...]:
        return TARGETS[1:] if self.dtype == "bfloat16" else TARGETS


def cases() -> list[Case]:
    """Every model; those of PyTorch also in two bytes."""
    torch_models = [name for name in models.names() if name not in _OF_ONNX]
    narrow = [Case(name, dtype) for name in torch_models for dtype in NARROW]
    return [Case(name, "float32") for name in models.names()] + narrow


_OF_ONNX = ("efficientnet-lite0", "magika", "silero-vad", "pp-ocr-rec", "layout")


def build(case: Case) -> list[burnish.Compiled]:
    """The model, once a target."""
    zoo = models.load(case.model)
    model, inputs = zoo.model, zoo.example_inputs
    if case.dtype != "float32":
        dtype = getattr(torch, case.dtype)
        model = model.to(dtype)
        inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)
    imported = burnish.import_model(model, inputs)
    return [burnish.build(burnish.optimize(imported, target)) for target in case.targets]


def found(compiled: burnish.Compiled, case: Case) -> dict[str, Any]:
    """Architecture -> of the model's products: how many; ``spills``, the bytes of local memory a
    thread, and loads and stores of it in the kernel and in its main loop; ``plain``, those of
    two-byte floats without tensor cores, with the rule that laid them out."""
    entries = {}
    for arch, cubin in fatbin.machine_codes(compiled.library.read_bytes()).items():
        kernels = sass.kernels(cubin)
        takes = {one["name"]: one for one in compiled.report.resources[arch]}
        assert set(kernels) == set(takes), arch
        spills, plain, count = {}, {}, 0
        for record in compiled.kernels.values():
            kernel = kernels.get(f"{record.name}_kernel")
            if PRODUCTS.isdisjoint(record.operators) or kernel is None:
                continue
            count += 1
            loops = kernel.main_loops(*sass.MATRIX, "FFMA", "HFMA2", "IDP", "IMAD")
            local = takes[kernel.name]["local"]
            if local or kernel.count(*sass.SPILLS):
                inside = [one for loop in loops for one in loop if one.opcode in sass.SPILLS]
                spills[record.name] = [local, kernel.count(*sass.SPILLS), len(inside)]
            if case.dtype in NARROW and not kernel.count(*sass.MATRIX):
                plain[record.name] = record.rule
        entries[arch] = {"products": count, "spills": spills, "plain": plain}
    return entries


def listed() -> dict[str, Any]:
    return json.loads(LIST.read_text())


def write(chosen: list[Case]) -> None:
    """Put what is found now into the list."""
    for case in chosen:
        entry = {
            arch: what for compiled in build(case) for arch, what in found(compiled, case).items()
        }
        entries = {**(listed() if LIST.exists() else {}), case.id: entry}
        LIST.write_text(json.dumps(dict(sorted(entries.items())), indent=1) + "\n")


if __name__ == "__main__":
    named = sys.argv[1:]
    write([case for case in cases() if not named or case.id in named or case.model in named])
