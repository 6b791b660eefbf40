"""JSON from a file that may be hostile: bounded in size and depth, and no key twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

DEPTH = 128


def parsed(data: bytes | memoryview, what: str, limit: int, *, nan: bool = False) -> dict[str, Any]:
    """The object in ``data``; ``ValueError`` naming ``what`` where it is none, or over a bound.

    ``nan`` allows NaN and infinities.
    """
    if len(data) > limit:
        raise ValueError(f"{what} is too large: {len(data)} bytes, the limit is {limit}")
    try:
        found = json.loads(
            str(data, "utf-8"),
            object_pairs_hook=_object,
            parse_constant=float if nan else _no_constant,
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{what} cannot be read: it is no object")
    _check_depth(found, what)
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for at, key in enumerate(keys) if key in keys[:at])
        raise ValueError(f"a key is there twice: {twice!r:.80}")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _check_depth(value: Any, what: str) -> None:
    level = [value]
    for _ in range(DEPTH):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"{what} is nested more than {DEPTH} deep")


def has_keys(data: Any, what: str, keys: tuple[str, ...]) -> Mapping[str, Any]:
    """``data`` as an object of exactly these keys."""
    if not isinstance(data, dict):
        raise ValueError(f"{what} must be an object")
    for key in keys:
        if key not in data:
            raise ValueError(f"{what} lacks {key!r}")
    unknown = sorted(set(data) - set(keys))
    if unknown:
        raise ValueError(f"{what} has the unknown key {unknown[0]!r}")
    return data


def text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} must be a text, got {value!r:.80}")
    return value


def whole(value: Any, what: str, least: int = 0, most: int | None = None) -> int:
    over = most is not None and isinstance(value, int) and value > most
    if not isinstance(value, int) or isinstance(value, bool) or value < least or over:
        limits = f"of {least} or more" if most is None else f"from {least} to {most}"
        raise ValueError(f"{what} must be a whole number {limits}, got {value!r:.80}")
    return value


def listed(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{what} must be a list, got {value!r:.80}")
    return value
