"""``burnish compare``: a compiled model beside its baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from burnish.cli import console, options
from burnish.cli.artifacts import load
from burnish.cli.files import check_writable
from burnish.cli.inputs import parse_dynamic
from burnish.cli.settings import Settings, absolute, compile_source
from burnish.cli.sources import Source, open_source
from burnish.compiler.errors import ConfigError

Artifact = Annotated[
    str | None,
    typer.Argument(
        metavar="[ARTIFACT]",
        help="What 'burnish compile' saved; without it the flags say what to compile.",
        show_default=False,
    ),
]
Count = Annotated[int, typer.Option("--inputs", min=1, metavar="N", help="Inputs to compare on.")]
Report = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE", help="Save the result as .json or .html. Can be repeated."),
]
Accuracy = Annotated[
    bool, typer.Option("--accuracy", help="Score both on the zoo model's own task; takes longer.")
]
Limit = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Score on this many samples only.")
]
MaxError = Annotated[
    float | None,
    typer.Option(metavar="REL", help="Exit with 1 where max|y - ref| / max|ref| is above this."),
]
MinSpeedup = Annotated[
    float | None, typer.Option(metavar="X", help="Exit with 1 where the speed-up is below this.")
]


def add_to(app: typer.Typer) -> None:
    app.command("compare")(compare)


def compare(
    model: options.Model,
    artifact: Artifact = None,
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
    place: options.Place = None,
    register: options.Register = None,
    no_cache: options.NoCache = False,
    count: Count = 4,
    accuracy: Accuracy = False,
    limit: Limit = None,
    max_error: MaxError = None,
    min_speedup: MinSpeedup = None,
    report: Report = None,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Measure a compiled model beside the runtime that it is from.

    That is eager PyTorch, ONNX Runtime, Keras or LiteRT. Relay has no runtime any more: a Relay
    module is set beside Burnish's own build of it, with no pass asked for. Both run in processes
    of their own, taking turns, with equal threads.

    Examples:

    * `burnish compare zoo:magika magika.burnish --accuracy`

    * `burnish compare net.onnx --quantize int8 --max-error 0.01 --report report.html`
    """
    import burnish

    settings = Settings(
        *(recipe, prune, quantize, precision, tune, threads, no_fold, keep_all, register),
        *(exact_conv, None, place),
    )
    if artifact is not None and (settings.compiles() or dynamic):
        raise ConfigError("give an artifact, or flags to compile with, not both")
    reports = [absolute(file) for file in report or ()]
    for path in reports:
        _check_report(path)
    with console.progress(f"reading {model}"):
        source = open_source(model, input, params=params)
        evaluate = _evaluate(source, accuracy, limit)
    if artifact is not None:
        compiled = load(artifact)
    else:
        axes = parse_dynamic(dynamic)
        compiled = compile_source(source, target, settings.config(), axes, cache=not no_cache)
    with console.progress("comparing with the baseline"):
        baseline = absolute(model) if model.lower().endswith(".keras") else None
        inputs = source.inputs(count)
        result = burnish.compare(
            source.model, compiled, inputs, evaluate=evaluate, baseline=baseline
        )
    for path in reports:
        result.save(path)
    data = result.to_dict()
    failures = list(_failures(data, max_error, min_speedup))
    if console.flags.json:
        console.print_json({**data, "failures": failures})
    else:
        result.table()
        for failure in failures:
            console.results().print(f"[red]failed[/]: {failure}")
    if failures:
        raise typer.Exit(1)


def _check_report(path: Path) -> None:
    if path.suffix not in (".json", ".html"):
        raise ConfigError(f"--report {path.name}: the name must end in .json or .html")
    check_writable(path)


def _evaluate(source: Source, accuracy: bool, limit: int | None) -> Any:
    if not accuracy:
        return None
    if source.entry is None:
        raise ConfigError("--accuracy is for zoo models, which bring a task; use Python for others")
    return lambda fn: source.entry.evaluate(fn, limit)


def _failures(
    data: dict[str, Any], max_error: float | None, min_speedup: float | None
) -> list[str]:
    found = []
    error, speedup = data["error"]["rel"], data["speedup"]
    if max_error is not None and not error <= max_error:
        found.append(f"relative error {error:.3g} is above {max_error:g}")
    if min_speedup is not None and not speedup >= min_speedup:
        found.append(f"speed-up {speedup:.3g} is below {min_speedup:g}")
    return found
