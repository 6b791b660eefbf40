"""``burnish run``: one call of a saved artifact."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from burnish.cli import console, options
from burnish.cli.artifacts import arguments, load, random_inputs, signature_names
from burnish.cli.files import check_writable, whole_file
from burnish.cli.inputs import flat, read_npz
from burnish.cli.settings import absolute
from burnish.compiler.errors import ConfigError

Artifact = Annotated[str, typer.Argument(metavar="ARTIFACT", show_default=False)]
Inputs = Annotated[
    str | None,
    typer.Option(metavar="FILE.npz", help="The inputs, saved by name (or in order, unnamed)."),
]
Random = Annotated[bool, typer.Option("--random", help="Take random inputs of the right shapes.")]
Zoo = Annotated[str | None, typer.Option(metavar="NAME", help="Take real data of this zoo model.")]
Out = Annotated[
    str | None, typer.Option("--out", "-o", metavar="FILE.npz", help="Save the outputs here.")
]


def add_to(app: typer.Typer) -> None:
    app.command("run")(run)


def run(
    artifact: Artifact,
    inputs: Inputs = None,
    random: Random = False,
    zoo: Zoo = None,
    sha256: options.Sha256 = None,
    out: Out = None,
    input: options.Input = None,
    seed: options.Seed = 0,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Call a saved artifact once, and show or save its outputs.

    Examples:

    * `burnish run net.burnish --inputs in.npz -o out.npz`

    * `burnish run magika.burnish --zoo magika`

    * `burnish run net.burnish --random --input x=4x784:float32`
    """
    if sum((inputs is not None, random, zoo is not None)) != 1:
        raise ConfigError("say where the inputs come from: one of --inputs, --random, --zoo")
    path = None if out is None else absolute(out)
    if path is not None:
        check_writable(path)
    with console.progress(f"loading {artifact}"):
        compiled = load(artifact, sha256=sha256)
        given: tuple[Any, ...]
        if inputs is not None:
            given = arguments(compiled, read_npz(Path(inputs), signature_names(compiled)))
        elif zoo is not None:
            from burnish import models

            given = tuple(models.load(zoo).inputs(1, seed)[0])
        else:
            given = arguments(compiled, random_inputs(compiled, input, seed))
    start = time.perf_counter()
    outputs = flat(compiled(*given))
    seconds = time.perf_counter() - start
    if path is not None:
        import numpy as np

        with whole_file(path) as partial, partial.open("wb") as file:
            np.savez(file, **outputs)  # type: ignore[arg-type]
    rows = [
        (name, "x".join(map(str, value.shape)) or "scalar", str(value.dtype), _range(value))
        for name, value in outputs.items()
    ]
    if console.flags.json:
        keys = ("name", "shape", "dtype", "range")
        console.print_json(
            {
                "schema": 1,
                "first_call_ms": 1e3 * seconds,
                "outputs": [dict(zip(keys, row, strict=True)) for row in rows],
                "saved": None if path is None else str(path),
            }
        )
        return
    console.table("", ("output", "shape", "dtype", "range"), rows)
    console.results().print(f"one call, the first: {1e3 * seconds:.3g} ms")


def _range(value: Any) -> str:
    return f"{value.min():.4g} to {value.max():.4g}" if value.size else "empty"
