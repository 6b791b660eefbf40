"""The file of a placement problem: JSON, read strictly.

```json
{"schema": 1, "host": "cpu",
 "devices": [{"name": "cpu"}, {"name": "cuda:0", "memory_bytes": 8000000000}],
 "links": [
  {"source": "cpu", "target": "cuda:0", "latency_seconds": 1e-5, "bytes_per_second": 1e10},
  {"source": "cuda:0", "target": "cpu", "latency_seconds": 1e-5, "bytes_per_second": 1e10}],
 "nodes": [{"name": "lv", "operator": "conv2d", "seconds": {"cpu": 2e-3, "cuda:0": 1e-4},
            "output_bytes": 4096, "weight_bytes": 1024}],
 "edges": [], "inputs": [{"name": "x", "bytes": 4096, "targets": ["lv"]}],
 "outputs": [{"source": "lv", "bytes": 4096}], "together": [], "pins": {"lv*": "cuda:0"}}
```

Keys are the fields of the classes in :mod:`.problem`. One that has a default may be left out;
`bytes` of an edge or output may be, too, and is the `output_bytes` of its source then. An
unknown key, a key twice, a wrong type and what :mod:`.check` forbids are refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from burnish.compiler.placement.errors import ProblemError
from burnish.compiler.placement.problem import Device, Edge, Input, Link, Node, Output, Problem
from burnish.compiler.registry import near
from burnish.runtime import jsons

SCHEMA = 1
LIMIT_BYTES = 1 << 28
LISTS = {
    "devices": Device,
    "links": Link,
    "nodes": Node,
    "edges": Edge,
    "inputs": Input,
    "outputs": Output,
}
TEXTS, NUMBERS, TEXT_MAPS = (str,), (int, float), "texts"
TYPES: dict[str, Any] = {
    **dict.fromkeys(("name", "operator", "source", "target", "value"), TEXTS),
    **dict.fromkeys(("latency_seconds", "bytes_per_second"), NUMBERS),
    **dict.fromkeys(("weight_bytes", "state_bytes", "output_bytes", "work_bytes"), (int,)),
    "bytes": (int,),
    "memory_bytes": (int, type(None)),
    "seconds": {str: NUMBERS},
    "reasons": {str: TEXTS},
    "weights": {str: (int,)},
    "targets": [str],
}
WORDS = {str: "a text", int: "a whole number", float: "a number", type(None): "null"}
T = TypeVar("T")


def read_problem(path: Path) -> Problem:
    """Raises :class:`ProblemError` for a file that is missing, damaged, or contradicts itself."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ProblemError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return parse_problem(data)
    except ProblemError as error:
        raise ProblemError(f"problem {path}: {error.message}") from error


def parse_problem(text: str | bytes) -> Problem:
    """The problem that the text of a file says."""
    raw = text.encode() if isinstance(text, str) else text
    try:
        data = jsons.parsed(raw, "the problem", LIMIT_BYTES)
    except ValueError as error:
        raise ProblemError(str(error)) from error
    schema = data.pop("schema", None)
    if isinstance(schema, bool) or schema != SCHEMA:
        said = "says no schema" if schema is None else f"says schema {schema!r:.80}"
        raise ProblemError(f"it {said}; this version reads schema {SCHEMA}")
    _keys("problem", data, Problem)
    sizes = {
        item["name"]: item.get("output_bytes", 0)
        for item in _list("nodes", data.get("nodes", []))
        if isinstance(item, Mapping) and isinstance(item.get("name"), str)
    }
    for key, kind in LISTS.items():
        if key in data:
            items = _list(key, data[key])
            if key in ("edges", "outputs"):
                items = [_sized(item, sizes) for item in items]
            data[key] = tuple(_made(kind, item, f"{key}[{at}]") for at, item in enumerate(items))
    if "host" in data:
        _typed("host", data["host"], TEXTS)
    if "pins" in data:
        _typed("pins", data["pins"], {str: TEXTS})
    for at, group in enumerate(_list("together", data.get("together", []))):
        _typed(f"together[{at}]", group, [str])
    return Problem(**data)


def problem_text(problem: Problem) -> str:
    """The text that :func:`parse_problem` reads back as an equal problem."""
    data: dict[str, Any] = {"schema": SCHEMA, "host": problem.host}
    for key, kind in LISTS.items():
        data[key] = [_short(kind, asdict(item)) for item in getattr(problem, key)]
    data["together"] = [list(group) for group in problem.together]
    data["pins"] = dict(problem.pins)
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def write_problem(problem: Problem, path: Path) -> None:
    """Write the file of a problem."""
    path.write_text(problem_text(problem), encoding="utf-8")


def _short(kind: type, data: dict[str, Any]) -> dict[str, Any]:
    """Without the fields that have their default."""
    kept = {}
    for item in fields(kind):
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        if default is MISSING or data[item.name] != default:
            kept[item.name] = data[item.name]
    return kept


def _sized(item: Any, sizes: Mapping[str, Any]) -> Any:
    if isinstance(item, Mapping) and "bytes" not in item and isinstance(item.get("source"), str):
        return {**item, "bytes": sizes.get(item["source"], 0)}
    return item


def _made(kind: type[T], item: Any, where: str) -> T:
    if not isinstance(item, Mapping):
        raise ProblemError(f"{where} must be an object, got {item!r:.80}")
    _keys(where, item, kind)
    for key, value in item.items():
        _typed(f"{key} of {where}", value, TYPES[key])
    return kind(**item)


def _keys(where: str, given: Mapping[str, Any], kind: Any) -> None:
    known = [item.name for item in fields(kind)]
    for key in given:
        if key not in known:
            raise ProblemError(f"{where} has the unknown key {key!r}{near(key, known)}")
    for item in fields(kind):
        needed = item.default is MISSING and item.default_factory is MISSING
        if needed and item.name not in given:
            raise ProblemError(f"{where} lacks {item.name!r}")


def _list(where: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ProblemError(f"{where} must be a list, got {value!r:.80}")
    return value


def _typed(where: str, value: Any, kind: Any) -> None:
    if isinstance(kind, dict):
        if not isinstance(value, Mapping):
            raise ProblemError(f"{where} must be an object, got {value!r:.80}")
        for key, item in value.items():
            _typed(f"{where} at {key!r}", item, kind[str])
    elif isinstance(kind, list):
        for at, item in enumerate(_list(where, value)):
            _typed(f"{where}[{at}]", item, tuple(kind))
    elif isinstance(value, bool) or not isinstance(value, kind):
        words = WORDS[float] if kind == NUMBERS else " or ".join(WORDS[one] for one in kind)
        raise ProblemError(f"{where} must be {words}, got {value!r:.80}")
