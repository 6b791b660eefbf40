"""Options of the weight passes: frozen, checked when made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PruneConfig:
    """Options of :class:`~burnish.passes.prune.PruneWeights`.

    Either ``sparsity`` (the share of weights to set to zero, 0 to 1, per tensor or over the
    whole model as ``scope`` says) or ``threshold`` (weights with ``|w| <= threshold`` become
    zero). ``include`` / ``exclude`` are shell globs on weight names.
    """

    method: Literal["magnitude"] = "magnitude"
    sparsity: float | None = None
    threshold: float | None = None
    pattern: Literal["unstructured"] = "unstructured"
    scope: Literal["tensor", "model"] = "tensor"
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "include", _globs(self.include))
        object.__setattr__(self, "exclude", _globs(self.exclude))
        _one_of("prune method", self.method, ("magnitude",))
        _one_of("prune pattern", self.pattern, ("unstructured",))
        _one_of("prune scope", self.scope, ("tensor", "model"))
        if (self.sparsity is None) == (self.threshold is None):
            raise ValueError("give either sparsity or threshold to prune, and not both")
        if self.sparsity is not None and not 0 <= self.sparsity <= 1:
            raise ValueError(f"sparsity must be from 0 to 1, got {self.sparsity}")
        if self.threshold is not None and not self.threshold >= 0:
            raise ValueError(f"threshold must be 0 or more, got {self.threshold}")


@dataclass(frozen=True)
class QuantizeConfig:
    """Options of :class:`~burnish.passes.quantize.QuantizeWeights`.

    Weights are stored as ``bits``-bit integers (2 to 8) with one scale per ``granularity``;
    ``group_size`` counts elements along the reduced axis. ``max_drop`` is the largest loss of
    accuracy (absolute, in the units of the evaluation) that do-no-harm lets pass.
    """

    bits: int = 8
    mode: Literal["weight"] = "weight"
    granularity: Literal["tensor", "channel", "group"] = "channel"
    group_size: int | None = None
    symmetric: bool = True
    method: Literal["rtn"] = "rtn"
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    max_drop: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "include", _globs(self.include))
        object.__setattr__(self, "exclude", _globs(self.exclude))
        _one_of("quantize mode", self.mode, ("weight",))
        _one_of("quantize granularity", self.granularity, ("tensor", "channel", "group"))
        _one_of("quantize method", self.method, ("rtn",))
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not 2 <= self.bits <= 8:
            raise ValueError(f"bits must be a whole number from 2 to 8, got {self.bits!r}")
        if self.granularity == "group" and self.group_size is None:
            raise ValueError("granularity 'group' needs a group_size (32, 64 and 128 are common)")
        if self.granularity != "group" and self.group_size is not None:
            raise ValueError(
                f"group_size={self.group_size} needs granularity='group', got {self.granularity!r}"
            )
        if self.group_size is not None and self.group_size < 1:
            raise ValueError(f"group_size must be 1 or more, got {self.group_size}")
        if self.max_drop is not None and not self.max_drop >= 0:
            raise ValueError(f"max_drop must be 0 or more, got {self.max_drop}")


def _globs(patterns: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def _one_of(what: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{what} {value!r} is unknown; known: {', '.join(known)}")
