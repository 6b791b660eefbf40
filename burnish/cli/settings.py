"""From flags to a config: the recipe first, then what is beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnish.cli import console
from burnish.cli.placement import parse_memory, parse_placement
from burnish.cli.sources import Source, register_from
from burnish.compiler.config import CompileConfig


@dataclass(frozen=True)
class Settings:
    """What the flags of ``compile`` and ``compare`` said; ``None`` where nothing."""

    recipe: str | None = None
    prune: float | None = None
    quantize: str | None = None
    precision: str | None = None
    tune: int | None = None
    threads: int | None = None
    no_fold: bool = False
    keep_all: bool = False
    register: str | None = None
    exact_conv: bool = False
    libraries: list[str] | None = None
    place: list[str] | None = None
    memory: list[str] | None = None

    def config(self) -> CompileConfig:
        """The recipe with the flags over it, names looked up; raises ``ConfigError``."""
        register_from(self.register)
        config = CompileConfig.from_toml(self.recipe) if self.recipe else CompileConfig()
        said: dict[str, Any] = {
            "prune": self.prune,
            "quantize": self.quantize,
            "precision": self.precision,
            "tune": self.tune,
            "threads": self.threads,
            "libraries": self.libraries or None,
            "placement": parse_placement(self.place) if self.place else None,
            "memory": parse_memory(self.memory) if self.memory else None,
        }
        config = config.overridden(
            **{key: value for key, value in said.items() if value is not None}
        )
        if self.no_fold:
            config = config.overridden(fold_onnx=False)
        if self.keep_all:
            config = config.overridden(do_no_harm=False)
        if self.exact_conv:
            config = config.overridden(exact_conv=True)
        config.check_registered()
        return config

    def compiles(self) -> bool:
        """Whether any flag asks for something to be done to the model."""
        return self != Settings()


def compile_source(
    source: Source,
    target: str,
    config: CompileConfig,
    dynamic: dict[str, dict[int, str]] | None,
    *,
    cache: bool = True,
) -> Any:
    """``burnish.compile`` of what the command line named, saying which stage it is at."""
    from burnish.compiler.driver import compile_in_stages

    return compile_in_stages(
        source.model,
        source.example_inputs,
        target,
        config,
        dynamic,
        cache=cache,
        during=lambda stage: console.progress(f"{source.name}: {stage}"),
    )


def tuned_source(
    source: Source, target: str, config: CompileConfig, dynamic: dict[str, dict[int, str]] | None
) -> Any:
    """The same up to code generation: a :class:`~burnish.compiler.stages.Tuned`."""
    from burnish.compiler.driver import import_model, optimize, tune

    with console.progress(f"{source.name}: importing"):
        imported = import_model(
            source.model, source.example_inputs, dynamic=dynamic, fold=config.fold_onnx
        )
    with console.progress(f"{source.name}: optimizing"):
        optimized = optimize(imported, target, config=config)
    return tune(optimized)


def absolute(path: str) -> Path:
    """The path from the root: nothing that changes the working folder moves it."""
    return Path(path).expanduser().absolute()
