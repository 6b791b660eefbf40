"""Recurrent layers while torch traces: one operator each, whose results are known by their shapes.

torch's own rule for the shapes of ``aten.gru.input`` and its like runs every step, so that a
traced length is the only one. Layers say as much of their results without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._decomp import global_decomposition_table
from torch.nn.utils.rnn import PackedSequence

from burnish.compiler.errors import ImportModelError

_aten = torch.ops.aten
_KEY = torch._C.DispatchKey.CompositeImplicitAutograd


def _of_sequences(count: int) -> Callable[..., Any]:
    """Results of a layer of ``x [T, B, I]`` (batches in front: ``[B, T, I]``)."""

    def shapes(
        x: torch.Tensor, hx: Any, params: Any, has_biases: bool, num_layers: int, dropout: float,
        train: bool, bidirectional: bool, batch_first: bool,
    ) -> tuple[torch.Tensor, ...]:  # fmt: skip
        first = list(hx) if count > 1 else [hx]
        width = first[0].shape[2] * (1 + bidirectional)
        y = x.new_empty([*x.shape[:2], width])
        return (y, *(torch.empty_like(state) for state in first))

    return shapes


SEQUENCES: dict[Any, Callable[..., Any]] = {
    _aten.lstm.input: _of_sequences(2),
    _aten.gru.input: _of_sequences(1),
    _aten.rnn_tanh.input: _of_sequences(1),
    _aten.rnn_relu.input: _of_sequences(1),
}
"""What is kept whole -> its results' shapes."""


@contextmanager
def kept_by_shape() -> Iterator[None]:
    """Within, torch traces recurrent layers by :data:`SEQUENCES`, at open lengths too."""
    table = global_decomposition_table["post_autograd"]
    saved = [(op, table.get(op), op.py_kernels.get(_KEY)) for op in SEQUENCES]
    try:
        for op, shapes in SEQUENCES.items():
            _set(op, shapes, shapes)
        yield
    finally:
        for op, rule, kernel in saved:
            _set(op, rule, kernel)


def _set(op: Any, rule: Any, kernel: Any) -> None:
    places: tuple[tuple[Any, Any, Any], ...] = (
        (global_decomposition_table["post_autograd"], op, rule),
        (op.py_kernels, _KEY, kernel),
    )
    for table, key, value in places:
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
    op._dispatch_cache.clear()


@contextmanager
def no_packed_sequences(model: nn.Module) -> Iterator[None]:
    """Within, a recurrent layer of ``model`` that is given one raises :class:`ImportModelError`."""
    names = {module: name for name, module in model.named_modules()}

    def check(module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], PackedSequence):
            raise ImportModelError(
                f"{names.get(module, '') or 'the model'} ({type(module).__name__}) reads a packed "
                "sequence, whose size depends on the values of the lengths: give it the padded "
                "batch and gather each row's last step by its length, or export the model to "
                "ONNX, whose recurrent operators take lengths"
            )

    hooks = [
        module.register_forward_pre_hook(check)
        for module in names
        if isinstance(module, nn.RNNBase)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
