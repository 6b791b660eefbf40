"""Errors as plain data: how they come back from the process that reads a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from burnish.compiler import errors
from burnish.compiler.errors import (
    BurnishError,
    ImportModelError,
    UnsupportedOperator,
    UnsupportedOperatorError,
)

_FIELDS = ("stage", "pass_name", "op", "shape")


def error_to_dict(error: BurnishError) -> dict[str, Any]:
    """What :func:`error_from_dict` makes the error of again."""
    data: dict[str, Any] = {"class": type(error).__name__, "message": error.message}
    for name in _FIELDS:
        value = getattr(error, name)
        data[name] = [str(n) for n in value] if name == "shape" and value is not None else value
    if isinstance(error, UnsupportedOperatorError):
        data["operators"] = [asdict(item) for item in error.operators]
    return data


def error_from_dict(data: Mapping[str, Any]) -> BurnishError:
    """The error again; a class that is none of :mod:`burnish.compiler.errors` becomes
    :class:`ImportModelError`."""
    if "operators" in data:
        return UnsupportedOperatorError(
            data["message"], [UnsupportedOperator.from_dict(item) for item in data["operators"]]
        )
    kind = getattr(errors, str(data["class"]), None)
    if not (isinstance(kind, type) and issubclass(kind, BurnishError)):
        kind = ImportModelError
    shape = data["shape"]
    if shape is not None:
        shape = [int(n) if n.lstrip("-").isdigit() else n for n in shape]
    return kind(
        data["message"],
        stage=data["stage"],
        pass_name=data["pass_name"],
        op=data["op"],
        shape=shape,
    )
