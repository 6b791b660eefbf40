"""Kernels as object files of their own, linked into one library."""

from __future__ import annotations

import torch
import tvm
from small_nets import Block, Classifier, made
from torch import nn
from tvm import tirx

import burnish
from burnish.compiler import kernel_objects
from burnish.compiler.build import build_library


class Repeated(nn.Sequential):
    """The same layer four times over, weights apart."""

    def __init__(self) -> None:
        super().__init__(*(nn.Sequential(nn.Linear(24, 24), nn.ReLU()) for _ in range(4)))


def test_layers_of_equal_structure_share_one_kernel():
    imported = burnish.import_model(made(Repeated), (torch.randn(3, 24),))
    optimized = burnish.optimize(imported)
    kernels = [f for f in optimized.mod.functions.values() if isinstance(f, tirx.PrimFunc)]
    assert len(kernels) == 1
    assert len(burnish.build(optimized).kernels) == 1


def test_each_kernel_is_compiled_once_and_only_the_library_is_left(tmp_path, monkeypatch):
    x = torch.randn(1, 3, 8, 8)
    optimized = burnish.optimize(burnish.import_model(made(Classifier), (x,)))
    built = []

    def watched(mod, **fields):
        built.append([var.name_hint for var in mod.functions])
        return original(mod, **fields)

    original = tirx.build
    monkeypatch.setattr(tirx, "build", watched)
    built_library = build_library(optimized.mod, optimized.target, tmp_path)
    path, kernels = built_library.path, built_library.kernels
    assert sorted(n for names in built for n in names) == sorted([*kernels, kernel_objects.STUB])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_function_that_calls_another_is_compiled_beside_it():
    func = tirx.PrimFunc([], tirx.Evaluate(tirx.const(0, "int32")))
    calling = tirx.PrimFunc(
        [], tirx.Evaluate(kernel_objects.Call(kernel_objects.tvm.ir.GlobalVar("f"), []))
    )
    assert not kernel_objects._work(func)[1]
    assert kernel_objects._work(calling)[1]


def test_small_kernels_share_files_up_to_a_limit_and_keep_their_order():
    work = [7, 60, 60, 115, 6, 6]
    kernels = [(units, tvm.ir.GlobalVar(str(i))) for i, units in enumerate(work)]
    parts = kernel_objects._shared(kernels)
    assert [[int(var.name_hint) for var in part] for part in parts] == [[0, 1], [2], [3], [4, 5]]


def test_shape_functions_of_open_sizes_are_linked_too():
    model, sizes = made(Block), {0: "batch", 1: "seq"}
    tokens, mask = torch.arange(14).reshape(2, 7), torch.ones(2, 7, dtype=torch.int64)
    compiled = burnish.compile(model, (tokens, mask), dynamic={"tokens": sizes, "mask": sizes})
    for n in (3, 7):
        got, want = compiled(tokens[:1, :n], mask[:1, :n]), model(tokens[:1, :n], mask[:1, :n])
        torch.testing.assert_close(got["last"], want["last"], rtol=1e-4, atol=1e-4)
