"""Which module of the model a kernel's call belongs to, by the weights that it reads."""

from __future__ import annotations

import re
from collections.abc import Sequence

Path = tuple[str, ...]
_STORED = (".scale", ".zero_point", ".bits", ".codes")


def module_paths(weights: Sequence[Sequence[str]]) -> list[Path]:
    """Weights of each call, in order -> the module of each.

    ``layers.0.up.weight`` belongs to ``layers, 0, up``. A call with several weights belongs to
    what their modules have in common. So does a call without any: to what the calls with
    weights before and after it have in common.
    """
    own = [_common([_module(name) for name in names]) if names else None for names in weights]
    found: list[Path] = []
    for index, path in enumerate(own):
        if path is None:
            before = next((p for p in reversed(own[:index]) if p is not None), ())
            after = next((p for p in own[index + 1 :] if p is not None), ())
            path = _common([before, after])
        found.append(path)
    return found


def _module(weight: str) -> Path:
    for suffix in _STORED:
        weight = weight.removesuffix(suffix)
    parts = [part for part in re.split(r"[./]", weight) if part]
    return tuple(parts[:-1])


def _common(paths: Sequence[Path]) -> Path:
    shared: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return tuple(shared)
