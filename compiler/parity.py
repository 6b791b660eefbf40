"""How far one set of outputs is from another.

Parity is max|y - ref| / max|ref| over each output, and the same argmax for classifiers save
ties within that bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from burnish.compiler.errors import BurnishError
from burnish.compiler.measure.values import plain

TIE = 1e-4
"""Reference values this close, over max|ref|, are ties: either may be the largest."""


class ParityError(BurnishError, ValueError):
    """Two output trees cannot be compared: their structure or shapes differ."""

    stage = "compare"


@dataclass(frozen=True)
class OutputError:
    """The distance of one output from its reference.

    ``max_abs`` = max|y - ref|; ``rel`` = max_abs / max|ref| (0 where both are 0); ``cosine`` of
    the flattened arrays (1 where both are 0); ``exact`` the share of equal elements;
    ``argmax`` the share of rows along the last axis with the same largest element, those that
    the reference holds within ``TIE`` of each other counted as the same (None for scalars and
    single columns). NaN matches NaN and
    an infinity the same infinity; where only one side has one, ``max_abs`` and ``rel`` are
    infinite and ``cosine`` is NaN; ``mismatched`` counts those. Integer and Boolean outputs are
    compared exactly: ``rel`` is over the values as numbers.
    """

    path: str
    max_abs: float
    rel: float
    cosine: float
    exact: float
    argmax: float | None
    mismatched: int = 0


@dataclass(frozen=True)
class Parity:
    """The worst over all outputs and inputs, and each output's worst in ``outputs``."""

    max_abs: float
    rel: float
    cosine: float
    argmax: float | None
    exact: float
    outputs: tuple[OutputError, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {**asdict(self), "outputs": [asdict(output) for output in self.outputs]}

    def within(self, rel: float) -> bool:
        """Whether every output is within this relative error, NaN never."""
        return self.rel <= rel


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """(path, array) of each leaf, in order; None is no leaf, a lone one is ``output``."""
    yield from _walk(plain(tree), path)


def _walk(tree: Any, path: str) -> Iterator[tuple[str, np.ndarray]]:
    if tree is None:
        return
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _walk(value, f"{path}.{key}" if path else key)
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from _walk(value, f"{path}[{index}]")
    else:
        yield path or "output", tree


def parity(outputs: Any, reference: Any) -> Parity:
    """The distance of ``outputs`` from ``reference``, trees of torch or NumPy arrays.

    Containers may differ in kind (a tuple of one for a lone array, a list for a tuple, a
    dataclass for a dict in the same order); the number of arrays and their shapes may not:
    ParityError tells both structures.
    """
    ours, theirs = list(leaves(outputs)), list(leaves(reference))
    if len(ours) != len(theirs):
        raise ParityError(
            f"{len(ours)} outputs ({_names(ours)}) against {len(theirs)} in the reference "
            f"({_names(theirs)})"
        )
    if not theirs:
        raise ParityError("the reference has no outputs")
    return _worst(
        [_compare(path, y, ref) for (_, y), (path, ref) in zip(ours, theirs, strict=True)]
    )


def worst(parities: Iterable[Parity]) -> Parity:
    """The worst of several inputs' parities, output by output."""
    parities = list(parities)
    if not parities:
        raise ParityError("no outputs were compared")
    return _worst([_merge(same) for same in zip(*(p.outputs for p in parities), strict=True)])


def _names(found: list[tuple[str, np.ndarray]]) -> str:
    return ", ".join(f"{path} {list(value.shape)}" for path, value in found) or "none"


def _highest(values: Iterable[float]) -> float:
    values = list(values)
    return math.nan if any(math.isnan(v) for v in values) else max(values)


def _lowest(values: Iterable[float]) -> float:
    values = list(values)
    return math.nan if any(math.isnan(v) for v in values) else min(values)


def _lowest_argmax(errors: Iterable[OutputError]) -> float | None:
    return min((e.argmax for e in errors if e.argmax is not None), default=None)


def _worst(errors: list[OutputError]) -> Parity:
    return Parity(
        max_abs=_highest(e.max_abs for e in errors),
        rel=_highest(e.rel for e in errors),
        cosine=_lowest(e.cosine for e in errors),
        argmax=_lowest_argmax(errors),
        exact=min(e.exact for e in errors),
        outputs=tuple(errors),
    )


def _merge(same: tuple[OutputError, ...]) -> OutputError:
    return OutputError(
        path=same[0].path,
        max_abs=_highest(e.max_abs for e in same),
        rel=_highest(e.rel for e in same),
        cosine=_lowest(e.cosine for e in same),
        exact=min(e.exact for e in same),
        argmax=_lowest_argmax(same),
        mismatched=sum(e.mismatched for e in same),
    )


def _compare(path: str, y: np.ndarray, ref: np.ndarray) -> OutputError:
    if y.shape != ref.shape:
        raise ParityError(
            f"output {path} has shape {list(y.shape)}, the reference {list(ref.shape)}"
        )
    if ref.size == 0:
        return OutputError(path, 0.0, 0.0, 1.0, 1.0, None)
    if y.dtype.kind == "c" or ref.dtype.kind == "c":
        y, ref = (np.stack([v.real, v.imag], -1) for v in (y, ref))
    a, b = y.astype(np.float64), ref.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    same = (y == ref) | (np.isnan(a) & np.isnan(b))
    mismatched = int(np.count_nonzero(~finite & ~same))
    exact = float(np.mean(same))
    argmax = _argmax_share(a, b)
    if mismatched:
        return OutputError(path, math.inf, math.inf, math.nan, exact, argmax, mismatched)
    a, b = a[finite], b[finite]
    if a.size == 0:
        return OutputError(path, 0.0, 0.0, 1.0, exact, argmax)
    max_abs = float(np.max(np.abs(a - b)))
    scale = float(np.max(np.abs(b)))
    rel = 0.0 if max_abs == 0 else max_abs / scale if scale > 0 else math.inf
    return OutputError(path, max_abs, rel, _cosine(a, b), exact, argmax)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    scale_a, scale_b = np.max(np.abs(a)), np.max(np.abs(b))
    if scale_a == 0 or scale_b == 0:
        return 1.0 if scale_a == scale_b else 0.0
    a, b = a / scale_a, b / scale_b  # squares of float64 extremes would overflow
    return float(np.clip(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)), -1.0, 1.0))


def _argmax_share(a: np.ndarray, b: np.ndarray) -> float | None:
    if a.ndim == 0 or a.shape[-1] < 2:
        return None
    rows_a, rows_b = (np.where(np.isnan(v), -np.inf, v).reshape(-1, v.shape[-1]) for v in (a, b))
    ours = rows_b[np.arange(len(rows_a)), rows_a.argmax(axis=-1)]
    tie = TIE * np.max(np.abs(b), where=np.isfinite(b), initial=0.0)
    return float(np.mean(ours >= rows_b.max(axis=-1) - tie))
