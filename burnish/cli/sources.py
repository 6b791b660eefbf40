"""MODEL on the command line: a file, or ``zoo:NAME``."""

from __future__ import annotations

import runpy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burnish.cli.console import notes
from burnish.cli.inputs import InputSpec, make, overridden, parse_specs
from burnish.compiler.errors import ConfigError, ImportModelError

if TYPE_CHECKING:
    from burnish.compiler.importers.formats import Input

ZOO = "zoo:"


@dataclass(frozen=True)
class Source:
    """A model to compile: what ``burnish.compile`` takes, and inputs to run it on.

    ``entry`` is the zoo's, where the model is from there; ``specs`` are the inputs of a file.
    """

    name: str
    model: Any
    example_inputs: tuple[Any, ...]
    entry: Any = None
    specs: tuple[InputSpec, ...] = ()

    def inputs(self, count: int, seed: int = 0) -> list[tuple[Any, ...]]:
        """Real data for a zoo model, random data for a file's."""
        if self.entry is not None:
            return list(self.entry.inputs(count, seed))
        if not self.specs:
            return [self.example_inputs]
        return [make(self.specs, seed + index) for index in range(count)]


def open_source(
    model: str,
    inputs: Iterable[str] | None = None,
    seed: int = 0,
    params: str | None = None,
) -> Source:
    """Find the model that the command line names; errors say what is known."""
    overrides = parse_specs(inputs)
    if model.startswith(ZOO):
        if overrides:
            raise ConfigError("--input is for files: a zoo model brings its inputs")
        if params:
            raise ConfigError("--params is for Relay files: a zoo model brings its weights")
        from burnish import models

        entry = models.load(model.removeprefix(ZOO))
        return Source(model, entry.model, tuple(entry.example_inputs), entry)
    from burnish.compiler.importers.files import load_file

    loaded: Any = load_file(model, params)
    if hasattr(loaded, "graph_signature"):
        return _exported(model, loaded, overrides)
    specs = overridden([_spec(item) for item in loaded.inputs], overrides)
    return Source(model, loaded, make(specs, seed), specs=specs)


def register_from(file: str | None) -> None:
    """Run the user's Python file, which registers what a recipe names."""
    if file is None:
        return
    if not Path(file).is_file():
        raise ConfigError(f"--register: no file {file}")
    runpy.run_path(file, run_name="burnish_register")


def _exported(name: str, program: Any, overrides: dict[str, InputSpec]) -> Source:
    if overrides:
        raise ConfigError("--input is for other files: a .pt2 file brings its example inputs")
    if program.example_inputs is None:
        raise ImportModelError(f"{name} holds no example inputs; export it again with them")
    arguments, keywords = program.example_inputs
    return Source(name, program, (*arguments, *keywords.values()))


def _spec(item: Input) -> InputSpec:
    """An input that a file declares; an open size is taken as 1, and said so."""
    shape = []
    for axis, size in enumerate(item.shape):
        if not isinstance(size, int):
            notes().print(
                f"input {item.name!r}: axis {axis} ({size or 'free'}) is taken as 1; --input says "
                "otherwise"
            )
        shape.append(size if isinstance(size, int) else 1)
    return InputSpec(item.name, tuple(shape), item.dtype)
