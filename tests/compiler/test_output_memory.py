"""Memory of outputs is used again only when nothing refers to it."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

import burnish
from burnish.compiler.output_memory import ALIGNMENT, KEPT, REUSED_BYTES, OutputMemory

ROWS = REUSED_BYTES // 4 // 256


def large(dtype: torch.dtype = torch.float32) -> OutputMemory:
    return OutputMemory((ROWS * 2, 256), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_are_contiguous_aligned_and_of_their_shape(dtype):
    value = OutputMemory((ROWS * 4, 3, 89), dtype).tensor()
    assert value.shape == (ROWS * 4, 3, 89)
    assert value.dtype == dtype
    assert value.is_contiguous()
    assert value.data_ptr() % ALIGNMENT == 0


def test_memory_let_go_is_used_again():
    memory = large()
    first = memory.tensor()
    place = first.data_ptr()
    del first
    assert memory.tensor().data_ptr() == place


@pytest.mark.parametrize(
    "keep",
    [
        lambda tensor: tensor,
        lambda tensor: tensor[5:, 3],
        lambda tensor: tensor.numpy(),
        lambda tensor: tensor.numpy()[7],
        lambda tensor: np.from_dlpack(tensor),
        lambda tensor: tensor.detach().view(torch.int32),
        lambda tensor: tensor.untyped_storage(),
        lambda tensor: memoryview(tensor.numpy()),
    ],
    ids=["tensor", "view", "array", "row", "dlpack", "other dtype", "storage", "buffer"],
)
def test_memory_that_anything_refers_to_is_left_alone(keep):
    memory = large()
    kept = keep(memory.tensor())
    place = memory.tensor().data_ptr()
    held = large()  # what else may be allocated meanwhile
    for _ in range(3):
        assert memory.tensor().data_ptr() == place
        held.tensor()
    del kept
    gc.collect()
    places = {memory.tensor().data_ptr() for _ in range(3)}
    first, second = memory.tensor(), memory.tensor()
    assert first.data_ptr() != second.data_ptr()
    assert places <= {first.data_ptr(), second.data_ptr()}


def test_no_two_results_share_memory_however_many_are_held():
    memory = large()
    held = [memory.tensor().fill_(number) for number in range(KEPT + 3)]
    for number, value in enumerate(held):
        assert bool((value == number).all())


def test_small_outputs_come_from_the_allocator():
    memory = OutputMemory((3, 0, 5), torch.float32)
    assert memory.tensor().shape == (3, 0, 5)
    assert OutputMemory((), torch.int64).tensor().shape == ()
    assert not memory._blocks


class Wide(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, None] * torch.arange(1000.0)


def test_results_of_a_model_stay_as_they_are_and_their_memory_comes_back():
    x = torch.randn(600)
    compiled = burnish.compile(Wide().eval(), (x,))
    compiled(x)
    draws = [torch.randn(600) for _ in range(5)]
    got = [compiled(draw) for draw in draws]
    for draw, found in zip(draws, got, strict=True):
        torch.testing.assert_close(found, Wide()(draw), rtol=1e-6, atol=0)
    del got, found
    places = set()
    for draw in draws:
        result = compiled(draw)
        places.add(result.data_ptr())
        rows = compiled(draw.numpy())[3:5]
        torch.testing.assert_close(result, Wide()(draw), rtol=1e-6, atol=0)
        np.testing.assert_allclose(rows, Wide()(draw)[3:5].numpy(), rtol=1e-6)
        del result, rows
    assert len(places) <= KEPT
