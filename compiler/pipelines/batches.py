"""A batch as micro-batches, and their results as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from burnish.compiler.errors import ConfigError
from burnish.runtime.errors import InvalidInputError
from burnish.runtime.signature import Signature, dtype_name


def as_array(leaf: Any) -> np.ndarray:
    """A tensor's elements, shared where NumPy has the dtype."""
    if isinstance(leaf, torch.Tensor):
        leaf = leaf.detach().cpu().resolve_conj().resolve_neg().contiguous()
        if leaf.dtype == torch.bfloat16:
            import ml_dtypes

            return leaf.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return leaf.numpy()
    return np.asarray(leaf)


def batch_size(signature: Signature, leaves: Sequence[Any], whole: Sequence[str]) -> int:
    """The size of axis 0 of every input but the ``whole`` ones.

    Raises :class:`ConfigError` where there is none, or they differ.
    """
    sizes = {
        spec.name: int(leaf.shape[0]) if len(leaf.shape) else None
        for spec, leaf in zip(signature.inputs, leaves, strict=True)
        if spec.name not in whole
    }
    if len(set(sizes.values())) != 1 or None in sizes.values():
        raise ConfigError(
            f"axis 0 of every input must be the batch, of one size; got {sizes}: name the inputs "
            "that every micro-batch gets as they are in whole=[...]"
        )
    return int(next(iter(sizes.values())) or 0)


def check_whole(signature: Signature, whole: Sequence[str]) -> tuple[str, ...]:
    """The names of inputs that are not split; :class:`ConfigError` for an unknown one."""
    known = [spec.name for spec in signature.inputs]
    unknown = [name for name in whole if name not in known]
    if unknown:
        raise ConfigError(f"whole={unknown}: no such inputs; the model takes {known}")
    return tuple(whole)


def split(
    signature: Signature, rows: int, whole: Sequence[str], leaves: Sequence[Any]
) -> tuple[list[list[np.ndarray]], int]:
    """A batch's inputs, one list a micro-batch of ``rows`` rows, and the rows of the batch.

    The last one is filled up with copies of the batch's last row: a model's rows do not know of
    each other, and those results are dropped. Raises :class:`InvalidInputError` for inputs that
    the model does not take.
    """
    if len(leaves) != len(signature.inputs):
        raise InvalidInputError(f"got {len(leaves)} inputs, the model has {len(signature.inputs)}")
    arrays = [as_array(leaf) for leaf in leaves]
    split_up = [spec.name not in whole for spec in signature.inputs]
    counts = set()
    for spec, array, parted in zip(signature.inputs, arrays, split_up, strict=True):
        want = spec.shape[1:] if parted else spec.shape
        have = array.shape[1:] if parted else array.shape
        if have != want or array.ndim != len(spec.shape) or dtype_name(array.dtype) != spec.dtype:
            sizes = ", ".join(["batch", *map(str, want)] if parted else map(str, want))
            raise InvalidInputError(
                f"input {spec.name!r} is {array.dtype}{list(array.shape)}, the pipeline takes "
                f"{spec.dtype}[{sizes}]",
                shape=array.shape,
            )
        if parted:
            counts.add(array.shape[0])
    if len(counts) > 1 or 0 in counts:
        raise InvalidInputError(f"axis 0 of the inputs is the batch, and has the sizes {counts}")
    batch = counts.pop() if counts else rows
    parts = []
    for start in range(0, batch, rows):
        part = []
        for array, parted in zip(arrays, split_up, strict=True):
            if parted:
                array = array[start : start + rows]
                if len(array) < rows:
                    array = np.concatenate([array, np.repeat(array[-1:], rows - len(array), 0)])
            part.append(array)
        parts.append(part)
    return parts, batch


def join(
    signature: Signature,
    parts: Sequence[Sequence[np.ndarray]],
    batch: int,
    *,
    exact: bool,
    as_torch: bool,
) -> Any:
    """Results of micro-batches as the model gives them for the whole ``batch``.

    ``exact`` says that the last one was not filled up.
    """
    leaves: list[Any] = []
    for number, _ in enumerate(signature.outputs):
        found = [part[number] for part in parts]
        whole = found[0] if exact and len(found) == 1 else np.concatenate(found)[:batch]
        leaves.append(_as_torch(whole) if as_torch else whole)
    return signature.unflatten(leaves)


def check_joinable(signature: Signature, rows: int) -> None:
    """:class:`ConfigError` for outputs that cannot be put together along axis 0."""
    bad = [str(spec) for spec in signature.outputs if not spec.shape or spec.shape[0] != rows]
    if bad:
        raise ConfigError(
            f"with {rows} rows a micro-batch the model gives {bad}: only results whose axis 0 is "
            "the batch can be put together; use micro_batches=1 and give one batch at a time"
        )


def _as_torch(array: np.ndarray) -> torch.Tensor:
    if str(array.dtype) == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
