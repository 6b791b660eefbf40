"""Attributes of Relay's operators: kinds and defaults, as TVM 0.19 had them.

``attributes.json`` is written by ``tests/compiler/relay/make_attributes.py``. The JSON reader
needs the kinds (whether ``"44"`` is a number or the place of a node), the text reader the
defaults (the printer leaves out attributes at their default).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from burnish.compiler.importers.relay.graph import Opaque, RelayError

LITERAL_KINDS = ("int", "uint64_t", "bool", "double", "str", "DataType")
IGNORED_KINDS = ("RelayExpr", "VirtualDevice", "EnvFunc", "Map", "tir.IndexMap")

Fields = Mapping[str, tuple[str, Any]]


@functools.cache
def _tables() -> tuple[dict[str, dict[str, list[Any]]], dict[str, str | None]]:
    text = resources.files(__package__).joinpath("attributes.json").read_text()
    data = json.loads(text)
    return data["attributes"], data["operators"]


def is_operator(name: str) -> bool:
    """Whether Relay had an operator of this name."""
    return name in _tables()[1]


def fields_of_class(name: str) -> dict[str, list[Any]] | None:
    """Attribute -> ``[kind]`` or ``[kind, default]`` of one class; None for an unknown class."""
    return _tables()[0].get(name)


def fields_of(operator: str) -> dict[str, list[Any]]:
    """The same by operator."""
    name = _tables()[1].get(operator)
    return {} if name is None else _tables()[0][name]


def complete(operator: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every attribute of a call: those given, brought to their kind, the others by default."""
    fields = fields_of(operator)
    unknown = [name for name in given if name not in fields]
    if unknown:
        raise RelayError(
            f"{operator} has no attribute {unknown[0]!r}; it has {', '.join(fields) or 'none'}"
        )
    result = {}
    for name, entry in fields.items():
        kind, default = entry[0], entry[1] if len(entry) > 1 else None
        value = given.get(name, default)
        if isinstance(value, list):
            value = tuple(value)
        if kind not in IGNORED_KINDS:
            result[name] = _checked(operator, name, kind, value)
    return result


def _checked(operator: str, name: str, kind: str, value: Any) -> Any:
    """The value as the kind says; wrong kinds are refused here, for every converter."""
    if value is None:
        return None
    number = isinstance(value, (int, float))
    if kind in ("double", "FloatImm") and number:
        return float(value)
    if kind == "bool" and (isinstance(value, bool) or value in (0, 1)):
        return bool(value)
    if kind in ("int", "uint64_t", "IntImm") and isinstance(value, int):
        return int(value)
    if kind in ("str", "runtime.String", "DataType") and isinstance(value, str):
        return "" if kind == "DataType" and value == "void" else value
    if kind == "PrimExpr" and (number or isinstance(value, Opaque)):
        return value
    if kind == "Array" and isinstance(value, (tuple, int)):
        return value
    if kind == "runtime.Object":
        return value
    raise RelayError(f"{operator}: the attribute {name} must be {kind}, got {value!r:.60}")
