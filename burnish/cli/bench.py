"""``burnish bench``: models beside every peer, and each time beside the machine's limit."""

from __future__ import annotations

import json as json_text
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from burnish.cli import console, options
from burnish.cli.files import check_writable, whole_file
from burnish.cli.settings import Settings, absolute
from burnish.cli.sources import ZOO, open_source
from burnish.compiler.errors import ConfigError

if TYPE_CHECKING:
    from burnish.compiler.bench import BenchResult, Case

NAME = "bench.json"
INTERRUPTED = 130

Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL]...",
        help="Networks of the benchmark, zoo:NAME or .pt2 files; the whole benchmark by default.",
        show_default=False,
    ),
]
Peers = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...",
        help="Of eager, compile, autotune, onnxruntime and openvino; all by default.",
    ),
]
Rounds = Annotated[
    int, typer.Option(min=1, metavar="N", help="Turns of each runtime; a claim needs 15 or more.")
]
Out = Annotated[str, typer.Option("--out", "-o", metavar="FOLDER", help="For the results.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Keep the models that FOLDER/bench.json already has.")
]


def add_to(app: typer.Typer) -> None:
    app.command("bench")(bench)


def bench(
    models: Models = None,
    peers: Peers = None,
    rounds: Rounds = 15,
    threads: options.Threads = None,
    recipe: options.Recipe = None,
    out: Out = "bench-report",
    resume: Resume = False,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Time models in burnish and in every peer, each in its own process, taking turns.

    Writes bench.json, bench.txt and bench.png. Wants a quiet machine and, for the whole
    benchmark, an hour. Ctrl-C ends it early and keeps what has been measured.

    Examples:

    * `burnish bench`

    * `burnish bench resnet50 mobilenetv2 --peers eager,openvino`

    * `burnish bench net.pt2 --rounds 30 --out net-report`
    """
    from burnish.compiler.bench import Options
    from burnish.compiler.bench import bench as measure
    from burnish.compiler.bench.peers import find_peers
    from burnish.compiler.progress import shown

    chosen = [name.strip() for name in peers.split(",") if name.strip()] if peers else None
    find_peers(chosen)
    cases = _cases(models)
    config = Settings(recipe=recipe, threads=threads).config()
    folder = absolute(out)
    resumed = _read(folder / NAME) if resume and (folder / NAME).is_file() else None
    folder.mkdir(parents=True, exist_ok=True)
    for name in (NAME, "bench.txt", "bench.png"):
        check_writable(folder / name)
    with shown("benchmark") as progress:
        result = measure(
            cases,
            chosen,
            Options(rounds=rounds, config=config),
            progress=progress,
            resumed=resumed,
            on_row=partial(_write_json, folder),
        )
    _write(folder, result)
    if console.flags.json:
        console.print_json(result.to_dict())
    else:
        from burnish.compiler.bench.table import print_bench

        print_bench(result)
        console.results().print(f"{Path(out) / NAME}, bench.txt and bench.png hold the same")
    if not result.complete:
        console.notes().print("interrupted: --resume goes on where this ended")
        raise typer.Exit(INTERRUPTED)


def _cases(names: Sequence[str] | None) -> list[Case]:
    from burnish.compiler.bench import Case
    from burnish.models import bench_nets

    found = []
    for name in names or bench_nets.NETS:
        if name.startswith(ZOO) or Path(name).suffix:
            found.append(Case(name, name, name, "other", partial(_opened, name)))
            continue
        if name not in bench_nets.NETS:
            raise bench_nets.unknown(name)
        net = bench_nets.NETS[name]
        load = partial(bench_nets.load, name)
        found.append(Case(net.name, net.title, net.group, net.kind, load))
    return found


def _opened(name: str) -> tuple[Any, Sequence[Any]]:
    source = open_source(name)
    return source.model, source.example_inputs


def _read(path: Path) -> BenchResult:
    from burnish.compiler.bench import BenchResult

    try:
        return BenchResult.from_dict(json_text.loads(path.read_text()))
    except ValueError as error:
        raise ConfigError(f"--resume: {path} cannot be read: {error}") from error


def _write_json(folder: Path, result: BenchResult) -> None:
    from burnish.compiler.report import write_json

    with whole_file(folder / NAME) as partial_file:
        write_json(partial_file, result.to_dict())


def _write(folder: Path, result: BenchResult) -> None:
    from rich.console import Console

    from burnish.compiler.bench.picture import draw_bench
    from burnish.compiler.bench.table import WIDTH, print_bench

    _write_json(folder, result)
    with (folder / "bench.txt").open("w", encoding="utf-8") as file:
        print_bench(result, Console(file=file, width=WIDTH, highlight=False))
    draw_bench(result, folder / "bench.png")
