"""Trees of arrays as they travel between processes: plain containers with NumPy leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from burnish.runtime.trees import opened


def array(leaf: Any) -> np.ndarray:
    """A leaf (torch or TVM tensor, NumPy array, number) as a NumPy array.

    bfloat16 and float8 become float32, which holds every value of theirs. TypeError for
    anything that is not an array or a number.
    """
    if isinstance(leaf, np.ndarray):
        value = leaf
    elif hasattr(leaf, "detach"):
        leaf = leaf.detach().cpu()
        try:
            value = leaf.numpy()
        except TypeError:
            value = leaf.float().numpy()
    elif hasattr(leaf, "numpy"):
        value = leaf.numpy()
    elif isinstance(leaf, bool | int | float | np.generic):
        value = np.asarray(leaf)
    else:
        raise TypeError(f"an output is a {type(leaf).__name__}; expected arrays or numbers")
    return value.astype(np.float32) if value.dtype.kind == "V" else value


def plain(tree: Any) -> Any:
    """The tree with dicts, lists and tuples as containers and NumPy arrays as leaves.

    A mapping becomes a dict, a dataclass a dict of its fields that are not None, a named tuple
    a tuple, a cache of ``transformers`` what it holds; None stays.
    """
    tree = opened(tree)
    if tree is None:
        return None
    if isinstance(tree, Mapping):
        return {str(key): plain(value) for key, value in tree.items()}
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree)}
        return {key: plain(value) for key, value in fields.items() if value is not None}
    if isinstance(tree, list):
        return [plain(value) for value in tree]
    if isinstance(tree, tuple):
        return tuple(plain(value) for value in tree)
    return array(tree)
