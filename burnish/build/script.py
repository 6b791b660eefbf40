"""What the build scripts share: the options of ``burnish compile``, and how they end."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from burnish.cli import console, options
from burnish.cli.emitted import Emission
from burnish.cli.files import check_writable
from burnish.cli.inputs import parse_dynamic
from burnish.cli.running import run
from burnish.cli.settings import Settings, absolute, compile_source, tuned_source
from burnish.cli.sources import open_source
from burnish.compiler.errors import ConfigError

Out = Annotated[
    str | None,
    typer.Option("--out", "-o", metavar="FILE", help="The artifact; may be left out with --emit."),
]
Main = Callable[..., None]


def script(kind: str, target: Callable[..., str]) -> Main:
    """The ``main`` of ``python -m burnish.build.KIND``.

    ``target`` has the script's own options and gives the target's name; its docstring is the help.
    """
    name = f"python -m burnish.build.{kind}"

    def command(**given: Any) -> None:
        own = {key: given.pop(key) for key in inspect.signature(target).parameters}
        build(target(**own), **given)

    shared = _parameters(build)
    del shared["target"]
    parameters = (
        {"model": shared["model"], "out": shared["out"]} | _parameters(target) | shared
    ).values()
    command.__signature__ = inspect.Signature(list(parameters))  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    command.__doc__ = target.__doc__

    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command(no_args_is_help=True)(command)

    def main(arguments: Sequence[str] | None = None) -> None:
        """Run the script and leave with its exit code."""
        sys.exit(run(app, name, arguments))

    return main


def build(
    target: str,
    model: options.Model,
    out: Out = None,
    recipe: options.Recipe = None,
    emit: options.Emit = None,
    kernel: options.Kernel = "*",
    emit_to: options.EmitTo = None,
    prune: options.Prune = None,
    quantize: options.Quantize = None,
    precision: options.Precision = None,
    tune: options.Tune = None,
    threads: options.Threads = None,
    dynamic: options.Dynamic = None,
    input: options.Input = None,
    params: options.Params = None,
    no_fold: options.NoFold = False,
    keep_all: options.KeepAll = False,
    exact_conv: options.ExactConv = False,
    libraries: options.Libraries = None,
    register: options.Register = None,
    no_cache: options.NoCache = False,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Build ``model`` for ``target``: the artifact, the code of its kernels, or both."""
    from burnish.compiler.driver import build as build_tuned
    from burnish.compiler.driver import target_for
    from burnish.compiler.linking import linker

    if out is None and not emit:
        raise ConfigError("nothing to do: say -o FILE, --emit KIND, or both")
    settings = Settings(
        recipe,
        prune,
        quantize,
        precision,
        tune,
        threads,
        no_fold,
        keep_all,
        register,
        exact_conv,
        libraries,
    )
    path = absolute(out) if out is not None else None
    if path is not None:
        check_writable(path)
    emission = Emission.of(emit, kernel, emit_to)
    config, axes = settings.config(), parse_dynamic(dynamic)
    chosen = target_for(target, config)
    emission.check(chosen)
    if path is not None:
        linker(chosen.host)
    with console.progress(f"reading {model}"):
        source = open_source(model, input, params=params)
    codes: list[dict[str, str]] = []
    if emission:
        tuned = tuned_source(source, target, config, axes)
        codes = emission.emit(tuned)
        compiled = build_tuned(tuned) if path is not None else None
    else:
        compiled = compile_source(source, target, config, axes, cache=not no_cache)
    written = Written.of(compiled, path) if path is not None else None
    if console.flags.json:
        said = {"schema": 1, "model": model, "target": chosen.name}
        console.print_json(
            said | (written.to_dict() if written else {}) | {"code": codes}, line=True
        )
    elif written is not None:
        written.show()


@dataclass(frozen=True)
class Written:
    """The artifact, once it is on disk."""

    path: Path
    bytes: int
    params_bytes: int
    kernels: int
    seconds: float

    @classmethod
    def of(cls, compiled: Any, path: Path) -> Written:
        compiled.save(path)
        seconds = sum(compiled.report.seconds.values())
        sizes = path.stat().st_size, compiled.params_bytes
        return cls(path, *sizes, len(compiled.kernels), seconds)

    def to_dict(self) -> dict[str, Any]:
        return {
            "artifact": str(self.path),
            "bytes": {"params": self.params_bytes, "artifact": self.bytes},
            "kernels": self.kernels,
            "seconds": round(self.seconds, 3),
        }

    def show(self) -> None:
        from burnish.compiler.report.figures import size

        sizes = f"{size(self.bytes)}, of which parameters {size(self.params_bytes)}"
        console.notes().print(f"{self.path}: {sizes}; {self.kernels} kernels, {self.seconds:.1f} s")


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Of a function, by name, as keywords and annotations resolved: to be put with others."""
    hints = get_type_hints(function, include_extras=True)
    return {
        name: one.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, one in inspect.signature(function).parameters.items()
    }
