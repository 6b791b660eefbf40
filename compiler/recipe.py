"""Recipe files: a :class:`CompileConfig` as TOML.

```toml
schema = 1
threads = 2
passes = [{ name = "my-pass", phase = "clean" }]

[quantize]
bits = 4
granularity = "group"
group_size = 32
```

A setting that is left out has its default. Passes, evaluations and calibration sets are said
by registered name; reading a recipe imports and runs nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import tomli_w

from burnish.compiler import registry
from burnish.compiler.config import CompileConfig, ExtraPass, check_keys
from burnish.compiler.errors import ConfigError

SCHEMA = 1
SECTIONS = ("prune", "quantize", "tune")


def read(path: Path) -> CompileConfig:
    """Raises :class:`ConfigError` for a file that is missing, no TOML, or says what is unknown."""
    try:
        text_ = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"no recipe file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} cannot be read: {error}") from error
    try:
        return parse(text_)
    except ConfigError as error:
        raise ConfigError(f"recipe {path}: {error.message}") from error


def parse(text_: str) -> CompileConfig:
    """The config that the text of a recipe says."""
    try:
        data = tomllib.loads(text_)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}") from error
    schema = data.pop("schema", None)
    if schema != SCHEMA:
        said = "says no schema" if schema is None else f"says schema {schema!r}"
        raise ConfigError(f"it {said}; this version reads schema = {SCHEMA}")
    check_keys("setting", data, CompileConfig)
    for key in ("evaluate", "calibration"):
        if key in data and not isinstance(data[key], str):
            raise ConfigError(f"{key} must be a registered name, got {data[key]!r}")
    if "passes" in data:
        data["passes"] = _passes(data["passes"])
    return CompileConfig(**data)


def text(config: CompileConfig, *, drop_unnamed: bool, notes: bool = True) -> str:
    """The recipe that :func:`parse` reads back as an equal config.

    ``notes`` says in comments what is left out.
    """
    data: dict[str, Any] = {"schema": SCHEMA}
    dropped: list[str] = []
    for item in fields(config):
        value = getattr(config, item.name)
        if item.name == "passes":
            value = _pass_tables(value, dropped)
        elif item.name in ("placement", "memory"):
            value = dict(value) or None
        elif item.name == "devices":
            value = list(value) or None
        elif item.name == "resolved":
            value = None if value is None else value.to_dict()
        elif item.name in SECTIONS:
            value = None if value is None else _section(value)
        elif item.name in ("evaluate", "calibration") and not isinstance(value, str | None):
            dropped.append(item.name)
            value = None
        if value is not None:
            data[item.name] = value
    if dropped and not drop_unnamed:
        raise ConfigError(
            f"a recipe cannot say {', '.join(dropped)} given in code; register it "
            "(burnish.register_pass, register_evaluator, register_calibration) and give its name"
        )
    if config.resolved is not None:
        dropped += [what for what in config.resolved.left_out if what not in dropped]
    said = "".join(f"# left out, given in code without a name: {what}\n" for what in dropped)
    return (said if notes else "") + tomli_w.dumps(data)


def left_out(config: CompileConfig) -> tuple[str, ...]:
    """What of a config was given in code, and has no name that a recipe could say."""
    found: list[str] = []
    _pass_tables(config.passes, found)
    for name in ("calibration", "evaluate"):
        if not isinstance(getattr(config, name), str | None):
            found.append(name)
    return tuple(found)


def portable(config: CompileConfig) -> CompileConfig:
    """The config without places of this machine."""
    if config.tune is None or config.tune.work_dir is None:
        return config
    return replace(config, tune=replace(config.tune, work_dir=None))


def _passes(items: Any) -> list[ExtraPass]:
    if not isinstance(items, list):
        raise ConfigError(f"passes must be a list of tables, got {items!r}")
    found = []
    for item in items:
        table = {"name": item} if isinstance(item, str) else item
        if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
            raise ConfigError(f"a pass is {{ name = ..., phase = ... }}, got {item!r}")
        for key in table:
            if key not in ("name", "phase"):
                near = registry.near(key, ("name", "phase"))
                raise ConfigError(f"unknown setting of a pass {key!r}{near}")
        found.append(ExtraPass(table["name"], table.get("phase")))
    return found


def _pass_tables(passes: tuple[ExtraPass, ...], dropped: list[str]) -> list[dict[str, str]]:
    tables = []
    for extra in passes:
        if not isinstance(extra.source, str):
            dropped.append(f"a pass at phase {extra.phase}")
            continue
        tables.append({"name": extra.source} | ({"phase": extra.phase} if extra.phase else {}))
    return tables


def _section(value: Any) -> dict[str, Any]:
    found = {item.name: getattr(value, item.name) for item in fields(value)}
    return {
        key: str(item)
        if isinstance(item, Path)
        else list(item)
        if isinstance(item, tuple)
        else item
        for key, item in found.items()
        if item is not None
    }
