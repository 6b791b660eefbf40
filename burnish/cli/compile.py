"""``burnish compile``: a model in, one artifact out."""

from __future__ import annotations

from typing import Annotated

import typer

from burnish.cli import console, options
from burnish.cli.files import check_writable
from burnish.cli.inputs import parse_dynamic
from burnish.cli.placement import show_candidates
from burnish.cli.settings import Settings, absolute, compile_source
from burnish.cli.sources import open_source

Out = Annotated[
    str, typer.Option("--out", "-o", metavar="FILE", help="The artifact.", show_default=False)
]


def add_to(app: typer.Typer) -> None:
    app.command("compile")(compile)


def compile(
    model: options.Model,
    out: Out,
    target: options.Target = "cpu",
    recipe: options.Recipe = None,
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
    place: options.Place = None,
    memory: options.Memory = None,
    register: options.Register = None,
    no_cache: options.NoCache = False,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Optimize and build a model, and save it as one file.

    Prints what each pass bought: milliseconds, bytes and error before and after it.

    Examples:

    * `burnish compile zoo:magika -o magika.burnish`

    * `burnish compile net.onnx -o net.burnish --quantize w4g32 --input x=1x3x224x224:float32`

    * `burnish compile net.pt2 -o net.burnish --recipe recipe.toml --tune 64`
    """
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
        place,
        memory,
    )
    path = absolute(out)
    check_writable(path)
    config = settings.config()
    axes = parse_dynamic(dynamic)
    with console.progress(f"reading {model}"):
        source = open_source(model, input, params=params)
    compiled = compile_source(source, target, config, axes, cache=not no_cache)
    compiled.save(path)
    saved = path.stat().st_size
    if console.flags.json:
        console.print_json(
            {
                "schema": 1,
                "model": model,
                "target": compiled.target.name,
                "artifact": str(path),
                "bytes": {"params": compiled.params_bytes, "artifact": saved},
                "report": compiled.report.to_dict(),
            }
        )
        return
    from burnish.compiler.report.figures import size

    console.waterfall(compiled.report)
    show_candidates(compiled.report)
    sizes = f"{size(saved)}, of which parameters {size(compiled.params_bytes)}"
    console.results().print(f"{out}: {sizes}")
