"""A target from its name, whatever kind of device it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from burnish.targets import hetero
from burnish.targets.cuda.target import CudaTarget, parse_cuda
from burnish.targets.described import of_fields
from burnish.targets.hetero import HeteroTarget, parse_hetero
from burnish.targets.opencl.target import OpenclTarget, parse_opencl
from burnish.targets.remote.address import PREFIX as RPC
from burnish.targets.target import CpuTarget, parse_target

Target: TypeAlias = CpuTarget | CudaTarget | OpenclTarget | HeteroTarget

_PARSERS: dict[str, Callable[[str], Target]] = {
    "cuda": parse_cuda,
    "opencl": parse_opencl,
    "hetero": parse_hetero,
}


def choose_target(text: str | Target) -> Target:
    """``cpu``, an ``llvm`` string, ``cuda[:sm_NN,...]``, ``opencl[:DEVICE]`` or
    ``hetero:DEVICE,DEVICE...``.

    A target is returned as it is. Raises ``ValueError`` listing the known targets.
    """
    if isinstance(text, CudaTarget | OpenclTarget | HeteroTarget):
        return text
    if isinstance(text, str):
        if text.strip().startswith(RPC):
            raise ValueError(
                f"{text.strip()!r} is a device of another machine, for a model that runs here: "
                f'say target="{hetero.PREFIX}{text.strip()},cpu"'
            )
        parse = _PARSERS.get(text.strip().partition(":")[0])
        if parse is not None:
            return parse(text)
    return parse_target(text)


_KINDS: dict[str, type[Target]] = {
    **hetero.KINDS,
    "hetero": HeteroTarget,
}


def described_target(described: Mapping[str, Any]) -> Target:
    """The target of these fields and this ``kind``; ``ValueError`` for other fields or types."""
    kind = _KINDS.get(str(described.get("kind")))
    if kind is None:
        raise ValueError(f"it is for the unknown kind of target {described.get('kind')!r:.80}")
    found = of_fields(kind, described)
    if isinstance(found, HeteroTarget):
        found.check()
    return found


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
