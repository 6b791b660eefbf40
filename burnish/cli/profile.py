"""``burnish profile``: where the time of a call goes, kernel by kernel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from burnish.cli import console, options
from burnish.cli.artifacts import SUFFIX, arguments, load, random_inputs
from burnish.cli.files import check_writable, whole_file
from burnish.cli.inputs import parse_dynamic
from burnish.cli.settings import Settings, absolute, compile_source
from burnish.cli.sources import ZOO, Source, open_source
from burnish.compiler.errors import ConfigError

if TYPE_CHECKING:
    from burnish.compiler.profile.result import Profile

FILES = ("profile.json", "profile.txt", "profile.png")

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="An artifact, a file (.onnx, .pt2), zoo:NAME, or a network of the benchmark.",
        show_default=False,
    ),
]
Calls = Annotated[bool, typer.Option("--calls", help="A line for each call, in order.")]
Least = Annotated[
    str, typer.Option(metavar="SHARE", help="Sum up what takes less of the time; 0 shows all.")
]
Rounds = Annotated[int, typer.Option(min=1, metavar="N", help="Turns of calls with and without.")]
Out = Annotated[
    str | None,
    typer.Option("--out", "-o", metavar="FOLDER", help=f"For {', '.join(FILES)}."),
]


def add_to(app: typer.Typer) -> None:
    app.command("profile")(profile)


def profile(
    model: Model,
    calls: Calls = False,
    least: Least = "2%",
    rounds: Rounds = 15,
    out: Out = None,
    target: options.Target = "cpu",
    recipe: options.Recipe = None,
    prune: options.Prune = None,
    quantize: options.Quantize = None,
    precision: options.Precision = None,
    threads: options.Threads = None,
    dynamic: options.Dynamic = None,
    input: options.Input = None,
    seed: options.Seed = 0,
    no_fold: options.NoFold = False,
    keep_all: options.KeepAll = False,
    exact_conv: options.ExactConv = False,
    place: options.Place = None,
    register: options.Register = None,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Show where the time of a call goes: time, rates and share of the machine's limit by kernel.

    Wants a quiet machine. Each kernel is timed inside whole calls, in a process of its own.

    Examples:

    * `burnish profile resnet50`

    * `burnish profile net.burnish --calls --least 0`

    * `burnish profile zoo:magika --quantize int8 --out magika-profile`

    * `burnish profile net.onnx --target hetero:opencl:0,cpu --place matmul=cpu`
    """
    share = _share(least)
    folder = None if out is None else absolute(out)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            check_writable(folder / name)
    settings = Settings(
        recipe, prune, quantize, precision, None, threads, no_fold, keep_all, register, exact_conv,
        place=place,
    )  # fmt: skip
    compiled, inputs = _opened(model, settings, target, dynamic, input, seed)
    from burnish.compiler.profile.run import profile as measure
    from burnish.compiler.profile.table import print_profile

    with console.progress(f"{model}: timing its kernels"):
        found = measure(compiled, inputs, name=model, threads=threads, rounds=rounds)
    if folder is not None:
        _write(folder, found, share, calls)
    if console.flags.json:
        console.print_json(found.to_dict())
        return
    print_profile(found, least=share, calls=calls)
    if out is not None:
        console.results().print(f"{Path(out) / FILES[0]}, {', '.join(FILES[1:])} hold the same")


def _share(text: str) -> float:
    """``2%`` or ``0.02``."""
    number = text.strip()
    scale = 1.0
    if number.endswith("%"):
        number, scale = number[:-1], 0.01
    try:
        share = float(number) * scale
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ConfigError(f"--least {text!r} is no share of the time, as 2% or 0.02")
    return share


def _opened(
    model: str,
    settings: Settings,
    target: str,
    dynamic: list[str] | None,
    input: list[str] | None,
    seed: int,
) -> tuple[Any, Any]:
    """The compiled model and the inputs of a call."""
    if model.endswith(SUFFIX):
        made = Settings(threads=settings.threads)
        if settings != made or dynamic:
            raise ConfigError(
                f"{model} is compiled already: of the settings only --threads can be given"
            )
        with console.progress(f"loading {model}"):
            compiled = load(model)
        return compiled, arguments(compiled, random_inputs(compiled, input, seed))
    config = settings.config()
    with console.progress(f"reading {model}"):
        source = _source(model, input, seed)
    compiled = compile_source(source, target, config, parse_dynamic(dynamic))
    return compiled, source.inputs(1, seed)[0]


def _source(model: str, input: list[str] | None, seed: int) -> Source:
    if model.startswith(ZOO) or Path(model).suffix:
        return open_source(model, input, seed)
    from burnish.models import bench_nets

    if input:
        raise ConfigError("--input is for files: a network of the benchmark brings its inputs")
    net, inputs = bench_nets.load(model)
    return Source(model, net, tuple(inputs))


def _write(folder: Path, found: Profile, least: float, calls: bool) -> None:
    from rich.console import Console

    from burnish.compiler.profile.table import WIDTH, print_profile
    from burnish.compiler.report import write_json

    with whole_file(folder / FILES[0]) as partial:
        write_json(partial, found.to_dict())
    with whole_file(folder / FILES[1]) as partial, partial.open("w", encoding="utf-8") as file:
        print_profile(
            found, Console(file=file, width=WIDTH, highlight=False), least=least, calls=calls
        )
    with whole_file(folder / FILES[2]) as partial:
        found.draw(partial)
