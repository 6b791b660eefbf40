"""Magnitude pruning as numbers: masks and what they remove. NumPy only.

Rules:

1. A mask keeps ``|w| > theta``; the pruned weight is ``w`` there and 0 elsewhere.
2. A target sparsity ``s`` over ``n`` weights removes exactly ``floor(s * n + 0.5)`` of them:
   those of least magnitude, zeros of the original included.
3. Among equal magnitudes at the border, those first in order (of the tensor, and of the
   tensors for a target over the whole model) are removed, so rule 2 holds exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MaskRow:
    """What pruning did to one tensor; ``theta`` is the largest magnitude removed (0 if none)."""

    name: str
    shape: tuple[int, ...]
    sparsity_before: float
    sparsity_after: float
    theta: float
    zeros: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class MaskReport:
    """One row a tensor, in the order of the weights."""

    rows: tuple[MaskRow, ...]
    label: str = "size only"

    @property
    def sparsity(self) -> float:
        """Share of zeros over all rows."""
        return sum(row.zeros for row in self.rows) / max(1, sum(row.size for row in self.rows))

    def to_dict(self) -> dict[str, object]:
        """The report as plain data."""
        rows = [{**vars(row), "shape": list(row.shape)} for row in self.rows]
        return {"label": self.label, "sparsity": self.sparsity, "rows": rows}


def removed_count(sparsity: float, size: int) -> int:
    """How many of ``size`` weights a target sparsity removes (rule 2)."""
    return min(size, math.floor(sparsity * size + 0.5))


def keep_by_threshold(weight: np.ndarray, theta: float) -> np.ndarray:
    """Boolean mask, shape of ``weight``: true where ``|w| > theta`` (rule 1)."""
    return np.abs(weight) > theta


def keep_by_sparsity(weights: Mapping[str, np.ndarray], sparsity: float) -> dict[str, np.ndarray]:
    """Boolean masks over all the tensors together (rules 2 and 3); pass one for that one alone."""
    if not weights:
        return {}
    wide = np.result_type(*[_magnitude(weight).dtype for weight in weights.values()])
    flat = np.concatenate([_magnitude(w).reshape(-1).astype(wide) for w in weights.values()])
    keep = np.ones(flat.shape, bool)
    count = removed_count(sparsity, flat.size)
    if count:
        border = np.partition(flat, count - 1)[count - 1]
        keep = flat > border
        ties = np.flatnonzero(flat == border)
        surplus = flat.size - int(np.count_nonzero(keep)) - count
        keep[ties[ties.size - surplus :]] = True
    sizes = np.cumsum([weight.size for weight in weights.values()])[:-1]
    pieces = np.split(keep, sizes)
    return {
        name: piece.reshape(weight.shape)
        for (name, weight), piece in zip(weights.items(), pieces, strict=True)
    }


def apply_mask(weight: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """``W * 1(keep)``, with plain zeros where nothing is kept (also for infinities)."""
    return np.where(keep, weight, np.zeros((), weight.dtype))


def magnitude_prune(
    weights: Mapping[str, np.ndarray],
    *,
    sparsity: float | None = None,
    threshold: float | None = None,
    scope: str = "tensor",
) -> dict[str, np.ndarray]:
    """Pruned copies, by ``threshold``, or by ``sparsity`` per tensor or over the whole ``model``.

    Raises ``ValueError`` naming a weight that holds NaN: it has no magnitude.
    """
    for name, weight in weights.items():
        if np.isnan(weight).any():
            raise ValueError(f"weight {name!r} {list(weight.shape)} holds NaN: cannot prune it")
    if threshold is not None:
        masks = {name: keep_by_threshold(w, threshold) for name, w in weights.items()}
    elif sparsity is None:
        raise ValueError("give either sparsity or threshold to prune")
    elif scope == "model":
        masks = keep_by_sparsity(weights, sparsity)
    else:
        masks = {n: keep_by_sparsity({n: w}, sparsity)[n] for n, w in weights.items()}
    return {name: apply_mask(weight, masks[name]) for name, weight in weights.items()}


def mask_row(name: str, before: np.ndarray, after: np.ndarray) -> MaskRow:
    """The report row for one tensor."""
    removed = (after == 0) & (before != 0)
    zeros = int(np.count_nonzero(after == 0))
    size = max(1, before.size)
    return MaskRow(
        name=name,
        shape=tuple(before.shape),
        sparsity_before=int(np.count_nonzero(before == 0)) / size,
        sparsity_after=zeros / size,
        theta=float(np.abs(before[removed]).max()) if removed.any() else 0.0,
        zeros=zeros,
    )


def _magnitude(weight: np.ndarray) -> np.ndarray:
    # float16 and bfloat16 widen exactly to float32.
    return np.abs(weight.astype(np.float32) if weight.dtype.itemsize < 4 else weight)
