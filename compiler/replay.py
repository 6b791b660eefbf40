"""Recorded calls whose outputs are torch tensors (:mod:`burnish.runtime.replay`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import tvm
import tvm_ffi

from burnish.compiler.output_memory import OutputMemory
from burnish.runtime import replay
from burnish.runtime.replay import Span, separate


class Replay:
    """A recorded call, ready to be run on other inputs; not by two threads at once.

    Outputs come from memory that is used again where it is large.
    """

    def __init__(self, recorded: replay.Replay) -> None:
        self._recorded = recorded
        self._function, self._address = recorded.function, recorded.address
        self._outputs = [
            OutputMemory(shape, getattr(torch, dtype)) for shape, dtype in recorded.outputs
        ]

    def __call__(self, inputs: Sequence[Any]) -> list[torch.Tensor]:
        """Outputs for inputs of the recorded shapes and dtypes, contiguous and aligned."""
        outputs = [memory.tensor() for memory in self._outputs]
        self._function(self._address, *inputs, *outputs)
        return outputs


def record(
    library: tvm.runtime.Module,
    inputs: Sequence[tvm.runtime.Tensor],
    weights: Any,
    machine: tvm.runtime.Module | None = None,
) -> tuple[Replay | None, list[Any]]:
    """Run ``main`` of a library once: the call as recorded, if it can be, and the outputs.

    ``machine`` is a virtual machine for this alone, where it is for other devices than the CPU.
    """
    recorded, outputs = replay.record(library, inputs, weights, machine)
    return None if recorded is None else Replay(recorded), outputs


def private(value: Any) -> tvm.runtime.Tensor:
    """A copy of an input in memory of its own."""
    tensor = tvm_ffi.from_dlpack(value) if isinstance(value, torch.Tensor) else value
    copy = tvm.runtime.empty(tuple(map(int, tensor.shape)), str(tensor.dtype))
    copy.copyfrom(tensor)
    return copy


__all__ = ["Replay", "Span", "private", "record", "separate"]
