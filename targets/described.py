"""Targets written out field by field, as manifests and recipes keep them, and read back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def described(target: Any) -> dict[str, Any]:
    """Every field of a target, and its ``kind``."""
    return {**dataclasses.asdict(target), "kind": target.kind}


def of_fields(kind: type[T], fields: Mapping[str, Any]) -> T:
    """The target of these fields; others are not read.

    ``ValueError`` for values of another type, ``KeyError`` for a field that is missing.
    """
    example = kind()
    given: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        default = getattr(example, field.name)
        value = fields.get(field.name) if default is None else fields[field.name]
        value = tuple(value) if isinstance(value, list) else value
        fits = isinstance(value, str | None) if default is None else type(value) is type(default)
        if isinstance(default, tuple) and isinstance(value, tuple):
            fits = all(isinstance(item, str) for item in value)
        if not fits:
            raise ValueError(f"{field.name} of its target cannot be {value!r:.80}")
        given[field.name] = value
    return kind(**given)
