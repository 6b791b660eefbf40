"""Errors a user can act on: what failed, where, and what to do instead.

The folders below the compiler raise built-in errors that carry the shape, the rule and the
remedy; only the compiler wraps them, adding the stage and the pass.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from burnish.runtime.errors import ArtifactError, BurnishError, InvalidInputError, TargetError


class ConfigError(BurnishError, ValueError):
    """A setting is outside what it may be, or names something unknown."""

    stage = "config"


class ImportModelError(BurnishError):
    """The model cannot be read."""

    stage = "import"


@dataclass(frozen=True)
class UnsupportedOperator:
    """One operator the importer has no converter for; ``nodes`` are node or module names.

    ``shapes`` and ``sources`` say, where they are known, what each of ``nodes`` works on and the
    line of the user's code that calls it; ``remedy`` is what to do, ``nearest`` the closest form
    that is supported. ``version`` is that of the operator set of ``domain``.
    """

    name: str
    count: int
    nodes: tuple[str, ...]
    reason: str = "no converter"
    shapes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    remedy: str = ""
    nearest: str = ""
    domain: str = ""
    version: int | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> UnsupportedOperator:
        """The operator whose ``asdict`` went through JSON."""
        lists = {name: tuple(data[name]) for name in ("nodes", "shapes", "sources")}
        return cls(**{**data, **lists})


class UnsupportedOperatorError(ImportModelError):
    """Every unsupported operator of a model at once, in ``operators``."""

    def __init__(self, message: str, operators: Sequence[UnsupportedOperator]) -> None:
        super().__init__(message)
        self.operators = tuple(operators)

    def to_json(self) -> str:
        """The operators as a JSON object: ``{"schema": 1, "operators": [...]}``."""
        return json.dumps({"schema": 1, "operators": [asdict(item) for item in self.operators]})


class PassError(BurnishError):
    """A pass refused the module, or failed on it."""

    stage = "optimize"


class BuildError(BurnishError):
    """Code generation failed."""

    stage = "build"


class TuneError(BurnishError):
    """Tuning could not run."""

    stage = "tune"


class MeasureError(BurnishError):
    """A measurement could not be taken (the worker died, timed out, or the load was too high)."""

    stage = "compare"


@contextmanager
def wrap_errors(
    kind: type[BurnishError], *, stage: str | None = None, pass_name: str | None = None
) -> Iterator[None]:
    """Re-raise anything that is not a :class:`BurnishError` as ``kind``, with its place added."""
    try:
        yield
    except BurnishError:
        raise
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        raise kind(text, stage=stage, pass_name=pass_name) from error


__all__ = [
    "ArtifactError",
    "BuildError",
    "BurnishError",
    "ConfigError",
    "ImportModelError",
    "InvalidInputError",
    "MeasureError",
    "PassError",
    "TargetError",
    "TuneError",
    "UnsupportedOperator",
    "UnsupportedOperatorError",
    "wrap_errors",
]
