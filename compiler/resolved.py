"""What was measured and chosen for a compilation, so that the next one measures nothing.

It is the table ``[resolved]`` of the recipe that is saved in an artifact. The same model compiled
with that recipe, and with the tuning records it names, gives the same bytes on any machine.

1. ``model`` and ``settings`` are the hashes of the model and of the rest of the recipe; choices of
   another model, or for other settings, are refused. A line left out is not checked.
2. ``target`` is every field of the target that was built for; ``cpu`` then means that one.
3. ``judged`` has each pass that was measured: whether it was undone, and the figures that say why.
4. ``kernels`` maps the hash of a kernel to that of the schedule taken for it, found again among
   the rules' own alternatives and in the tuning database.
5. ``left_out`` names what was given in code and cannot be in a file; all of it but an evaluation
   must be given again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from burnish.compiler.errors import ConfigError
from burnish.compiler.waterfall import Reading, Row

if TYPE_CHECKING:
    from burnish.compiler.config import CompileConfig
    from burnish.targets.choose import Target

TUNE = "TuneKernels"


@dataclass(frozen=True)
class Judged:
    """A row of the report that was measured: its place in it and its name; ``before`` and
    ``after`` are the measured fields of its readings."""

    row: int
    name: str
    status: str
    note: str = ""
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, place: int, row: Row) -> Judged:
        tasks = tuple(_without_none(task) for task in row.details.get("tasks", ()))
        before, after = _measured(row.before), _measured(row.after)
        return cls(place, row.name, row.status, row.note, before, after, tasks)

    def applied_to(self, row: Row) -> Row:
        """The row as it was when it was measured."""
        details = row.details
        if self.tasks:
            blank: dict[str, Any] = {"default_ms": None, "tuned_ms": None}
            details = {"tasks": [blank | dict(task) for task in self.tasks]}
        return replace(
            row,
            status=self.status,  # type: ignore[arg-type]
            note=self.note,
            before=replace(row.before, **self.before),
            after=replace(row.after, **self.after),
            details=details,
        )


@dataclass(frozen=True)
class Resolved:
    """The choices of one compilation; see the module."""

    model: str | None = None
    settings: str | None = None
    target: Mapping[str, Any] = field(default_factory=dict)
    judged: tuple[Judged, ...] = ()
    kernels: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def judgement(self, place: int, name: str) -> Judged | None:
        """What was found of the row at ``place``; ConfigError where another pass is there."""
        found = next((one for one in self.judged if one.row == place), None)
        if found is not None and found.name != name:
            raise ConfigError(
                f"the recipe's [resolved] part tells of {found.name} where this compilation runs "
                f"{name}: it was made by another burnish or with other passes; remove that part"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain data for TOML, which has no null."""
        data = _without_none(dataclasses.asdict(self))
        data["judged"] = [
            {key: value for key, value in dataclasses.asdict(one).items() if value not in ((), {})}
            for one in self.judged
        ]
        return {key: value for key, value in data.items() if value not in ((), {}, [])}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Resolved:
        """The choices that :meth:`to_dict` wrote; ConfigError for other keys or types."""
        try:
            judged = [
                Judged(**{**one, "tasks": tuple(one.get("tasks", ()))})
                for one in data.get("judged", ())
            ]
            left_out = tuple(map(str, data.get("left_out", ())))
            found = cls(**{**data, "judged": tuple(judged), "left_out": left_out})
        except (TypeError, AttributeError) as error:
            raise ConfigError(f"its [resolved] part cannot be read: {error}") from error
        sound = (
            all(isinstance(value, str | None) for value in (found.model, found.settings))
            and all(isinstance(value, Mapping) for value in (found.target, found.kernels))
            and all(isinstance(value, str) and _whole(value) for value in found.kernels.values())
            and all(map(_whole, found.kernels))
            and all(isinstance(one.row, int) and isinstance(one.name, str) for one in judged)
            and all(one.status in ("applied", "undone", "no change", "size only") for one in judged)
        )
        if not sound:
            raise ConfigError("its [resolved] part has a value of another type")
        return found


def resolve(
    config: CompileConfig,
    target: Target,
    model: str,
    rows: Sequence[Row],
    kernels: Mapping[int, int],
) -> CompileConfig:
    """``config`` with what its compilation measured and chose."""
    from burnish.compiler import recipe

    judged = tuple(Judged.of(place, row) for place, row in enumerate(rows) if _was_judged(row))
    left_out = list(recipe.left_out(config))
    if config.resolved is not None:
        left_out += [what for what in config.resolved.left_out if what not in left_out]
    described = {**dataclasses.asdict(target), "kind": target.kind}
    resolved = Resolved(
        model,
        settings_hash(config),
        {name: list(v) if isinstance(v, tuple) else v for name, v in described.items()},
        judged,
        {str(task): str(kernel) for task, kernel in sorted(kernels.items())},
        tuple(left_out),
    )
    return replace(config, resolved=resolved)


def check_resolved(config: CompileConfig, model: str) -> None:
    """Raise :class:`ConfigError` where ``config`` holds choices of another compilation."""
    from burnish.compiler import recipe

    found = config.resolved
    if found is None:
        return
    remedy = "remove its [resolved] part to measure anew"
    if found.model not in (None, model):
        raise ConfigError(f"the recipe was resolved for another model ({found.model}): {remedy}")
    if found.settings not in (None, settings_hash(config)):
        raise ConfigError(
            f"the recipe was resolved with other settings than these: {remedy}, or leave the other "
            "settings as they were"
        )
    given = recipe.left_out(config)
    missing = [what for what in found.left_out if what not in given and what != "evaluate"]
    if missing:
        raise ConfigError(
            f"the recipe was resolved with {', '.join(missing)} given in code: give the same again"
        )


def settings_hash(config: CompileConfig) -> str:
    """sha256 of what was asked for; an evaluation changes nothing once all is resolved."""
    from burnish.compiler import recipe

    plain = replace(config, resolved=None, evaluate=None)
    text = recipe.text(recipe.portable(plain), drop_unnamed=True, notes=False)
    return hashlib.sha256(text.encode()).hexdigest()


def records_hash(records: Sequence[Mapping[str, Any]]) -> str | None:
    """sha256 of the records of the tuning database that were taken; None where none was."""
    if not records:
        return None
    ordered = sorted(json.dumps(record, sort_keys=True) for record in records)
    return hashlib.sha256("\n".join(ordered).encode()).hexdigest()


def _was_judged(row: Row) -> bool:
    return row.before.ms is not None or row.name == TUNE


def _measured(reading: Reading) -> dict[str, Any]:
    found = {"ms": reading.ms, "error": reading.error, "accuracy": reading.accuracy}
    return {
        key: dict(value) if isinstance(value, Mapping) else value
        for key, value in found.items()
        if value is not None
    }


def _without_none(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in data.items()
        if value is not None
    }


def _whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()
