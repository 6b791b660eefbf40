"""A target from its name, whatever kind of device it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from burnish.targets.cuda.target import CudaTarget, parse_cuda
from burnish.targets.opencl.target import OpenclTarget, parse_opencl
from burnish.targets.target import CpuTarget, parse_target

Target: TypeAlias = CpuTarget | CudaTarget | OpenclTarget

_PARSERS: dict[str, Callable[[str], Target]] = {"cuda": parse_cuda, "opencl": parse_opencl}


def choose_target(text: str | Target) -> Target:
    """``cpu``, an ``llvm`` string, ``cuda[:sm_NN,...]`` or ``opencl[:DEVICE]``.

    A target is returned as it is. Raises ``ValueError`` listing the known targets.
    """
    if isinstance(text, CudaTarget | OpenclTarget):
        return text
    if isinstance(text, str):
        parse = _PARSERS.get(text.strip().partition(":")[0])
        if parse is not None:
            return parse(text)
    return parse_target(text)


_KINDS: dict[str, type[Target]] = {
    "cpu": CpuTarget,
    "cuda": CudaTarget,
    "opencl": OpenclTarget,
}


def described_target(described: Mapping[str, Any]) -> Target:
    """The target of these fields and this ``kind``; ``ValueError`` for other fields or types."""
    kind = _KINDS.get(str(described.get("kind")))
    if kind is None:
        raise ValueError(f"it is for the unknown kind of target {described.get('kind')!r:.80}")
    example = kind()
    given: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        default = getattr(example, field.name)
        value = described.get(field.name) if default is None else described[field.name]
        value = tuple(value) if isinstance(value, list) else value
        fits = isinstance(value, str | None) if default is None else type(value) is type(default)
        if isinstance(default, tuple) and isinstance(value, tuple):
            fits = all(isinstance(item, str) for item in value)
        if not fits:
            raise ValueError(f"{field.name} of its target cannot be {value!r:.80}")
        given[field.name] = value
    return kind(**given)


def resolved_target(asked: str | Target, described: Mapping[str, Any]) -> Target:
    """What a recipe was resolved for, where just ``cpu`` is asked; else what is asked."""
    if isinstance(asked, str) and asked.strip() == "cpu":
        return _of_recipe(described)
    return choose_target(asked)


def check_described(target: Target, described: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` unless ``target`` is the one a recipe was resolved for."""
    found = _of_recipe(described)
    if target.with_threads(found.threads) != found:
        raise ValueError(
            f"the recipe was resolved for the target {found.name!r} as it is there, not for "
            f"{target.name!r}: leave the target out, or remove the recipe's [resolved] part"
        )


def _of_recipe(described: Mapping[str, Any]) -> Target:
    try:
        return described_target(described)
    except KeyError as error:
        raise ValueError(f"the target of the recipe's [resolved] part lacks {error}") from error
