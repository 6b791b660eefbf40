"""What a call of a torch model must do at the least: multiply-adds, and bytes of memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

aten = torch.ops.aten
LOOKUPS = (aten.embedding.default, aten.index_select.default, aten.index.Tensor)
FUSED = aten._scaled_dot_product_flash_attention_for_cpu


@dataclass(frozen=True)
class Work:
    """Of one call: ``flops`` of matrix products and convolutions, a multiply-add as two; and
    ``bytes`` of the weights read, the inputs and the outputs."""

    flops: int
    bytes: int


def count_work(model: Any, inputs: Sequence[Any]) -> Work:
    """Run ``model`` once and count.

    Causal attention counts the lower triangle only. Of a table that is only looked up in, the
    rows looked up count. Elementwise operations and normalizations are left out: the limit that
    follows is one that no fusion passes.
    """
    tensors = [value for value in tree_leaves(list(inputs)) if torch.is_tensor(value)]
    owned = [*model.parameters(), *model.buffers()]
    counter = FlopCounterMode(display=False, custom_mapping={FUSED: _attention_flops})
    reads = _WeightReads(owned)
    attention = sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH])
    with torch.no_grad(), attention, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # oneDNN runs a whole LSTM as one operation, which nothing here could count.
        with torch.backends.mkldnn.flags(enabled=False), counter, reads:
            outputs = model(*inputs)
    results = [value for value in tree_leaves(outputs) if torch.is_tensor(value)]
    moved = reads.total() + sum(_size(value) for value in (*tensors, *results))
    return Work(counter.get_total_flops(), moved)


def _attention_flops(
    query: Any, key: Any, value: Any, dropout: float = 0.0, causal: bool = False, **_: Any
) -> int:
    whole = int(sdpa_flop_count(query, key, value))
    length = query[-2]
    return whole * (length + 1) // (2 * length) if causal else whole


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class _WeightReads(TorchDispatchMode):
    """Bytes of each weight that operations read; looking at a weight through a view reads none."""

    def __init__(self, owned: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.whole = {_storage(t): t.untyped_storage().nbytes() for t in owned}
        self.parts: dict[int, dict[tuple[int, int], int]] = {key: {} for key in self.whole}

    def total(self) -> int:
        return sum(min(self.whole[key], sum(part.values())) for key, part in self.parts.items())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        shared = {_storage(t) for t in _tensors(result)}
        for weight in _tensors((args, kwargs)):
            key = _storage(weight)
            if key in self.whole and key not in shared:
                count = _size(weight)
                if func in LOOKUPS and weight is args[0]:
                    count = sum(_size(t) for t in _tensors(result))
                place = (int(weight.storage_offset()), count)
                self.parts[key][place] = count
        return result


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    return (value for value in tree_leaves(tree) if torch.is_tensor(value))


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
