"""``burnish pipeline``: a model over several devices, micro-batches going through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from burnish.cli import console, options
from burnish.cli.files import check_writable, whole_file
from burnish.cli.settings import Settings, absolute
from burnish.cli.sources import open_source
from burnish.compiler.errors import ConfigError

FILES = ("run.json", "run.txt", "timeline.png")
PARITY = 1e-4

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A file (.onnx, .pt2, ...), zoo:NAME, or a folder that --save wrote.",
        show_default=False,
    ),
]
Devices = Annotated[
    str,
    typer.Option(metavar="NAMES", help="One a stage, in order: cpu@0,cpu@1 or cpu@0-3,cpu@4+6."),
]
MicroBatches = Annotated[
    str, typer.Option(metavar="N", help="Parts of a batch; auto chooses by the operators' costs.")
]
Costs = Annotated[
    str, typer.Option(metavar="KIND", help="measured, each operator alone; or counted (quick).")
]
Engine = Annotated[str, typer.Option(metavar="NAME", help="processes, threads or ray.")]
Address = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Ray's cluster, or auto; else a node is started here."),
]
Batch = Annotated[int, typer.Option(min=1, metavar="N", help="Inputs put together to a batch.")]
Batches = Annotated[int, typer.Option(min=1, metavar="N", help="Batches to send through.")]
Whole = Annotated[
    list[str] | None,
    typer.Option(metavar="INPUT", help="An input without a batch axis. Can be repeated."),
]
Check = Annotated[
    bool, typer.Option("--check", help="Compare with the model compiled whole; 1 if it differs.")
]
Save = Annotated[
    str | None, typer.Option(metavar="FOLDER", help="Keep the stages' artifacts, to run again.")
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="S", help="The longest a stage may take.")
]
Restarts = Annotated[
    int, typer.Option(min=0, metavar="N", help="How often in a row a stage may fail.")
]
Out = Annotated[
    str | None, typer.Option("--out", "-o", metavar="FOLDER", help=f"For {', '.join(FILES)}.")
]


def add_to(app: typer.Typer) -> None:
    app.command("pipeline")(pipeline)


def pipeline(
    model: Model,
    devices: Devices = "cpu@0,cpu@1",
    micro_batches: MicroBatches = "auto",
    costs: Costs = "measured",
    engine: Engine = "processes",
    address: Address = None,
    batch: Batch = 1,
    batches: Batches = 16,
    whole: Whole = None,
    check: Check = False,
    save: Save = None,
    timeout: Timeout = 120.0,
    restarts: Restarts = 3,
    out: Out = None,
    target: options.Target = "cpu",
    recipe: options.Recipe = None,
    prune: options.Prune = None,
    quantize: options.Quantize = None,
    precision: options.Precision = None,
    tune: options.Tune = None,
    input: options.Input = None,
    params: options.Params = None,
    seed: options.Seed = 0,
    no_fold: options.NoFold = False,
    keep_all: options.KeepAll = False,
    exact_conv: options.ExactConv = False,
    register: options.Register = None,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Cut a model into stages, one a device, and send batches through as micro-batches.

    Examples:

    * `burnish pipeline zoo:magika --batch 8 --batches 50 --out run`

    * `burnish pipeline net.onnx --devices cpu@0,cpu@1 --save net-pipeline`

    * `burnish pipeline net.onnx --engine ray --address auto`
    """
    folder = None if out is None else absolute(out)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            check_writable(folder / name)
    settings = Settings(
        recipe, prune, quantize, precision, tune, None, no_fold, keep_all, register, exact_conv
    )
    running: dict[str, Any] = {
        "timeout_s": timeout,
        "restarts": restarts,
        "address": address,
        "engine": engine,
    }
    with ExitStack() as stack:
        if (Path(model) / "pipeline.json").is_file():
            if settings.compiles() or check or save:
                raise ConfigError(f"{model} is compiled already: it can only be run")
            run, given, source = _loaded(model, running, batches, seed)
            stack.enter_context(run)
        else:
            from burnish.compiler.pipelines.make import pipeline as make

            with console.progress(f"reading {model}"):
                source = open_source(model, input, seed, params)
                given = _batches(source, batch, batches, seed)
            with _telling(model) as said:
                run = make(
                    source.model,
                    given[0],
                    _devices(devices),
                    _number(micro_batches),
                    target=target,
                    whole=tuple(whole or ()),
                    costs=costs,
                    config=settings.config(),
                    params=None,
                    folder=None if save is None else absolute(save),
                    name=model,
                    said=said,
                    **running,
                )
            stack.enter_context(run)
        found = _sent(model, run, given)
        different = _difference(source, target, settings, given, found) if check else None
        _show(run, folder, out, different)
    if different is not None and different > PARITY:
        raise typer.Exit(1)


def _sent(model: str, run: Any, given: list[Any]) -> list[Any]:
    """The results; one batch goes first, so that what is measured is not the start."""
    run(*given[0])
    with _telling(model) as said:
        found = []
        for number, result in enumerate(run.stream(given)):
            found.append(result)
            said(f"{number + 1} of {len(given)} batches")
        return found


def _show(run: Any, folder: Path | None, out: str | None, different: float | None) -> None:
    from burnish.compiler.pipelines.table import print_pipeline

    report, timeline = run.report, run.timeline
    data = {"schema": 1, **report.to_dict(), "timeline": timeline.to_dict(), "parity": different}
    if folder is not None:
        from rich.console import Console

        from burnish.compiler.report import write_json

        with whole_file(folder / FILES[0]) as partial:
            write_json(partial, data)
        with whole_file(folder / FILES[1]) as partial, partial.open("w", encoding="utf-8") as file:
            print_pipeline(report, Console(file=file, width=120, highlight=False))
        with whole_file(folder / FILES[2]) as partial:
            timeline.draw(partial)
    if console.flags.json:
        console.print_json(data)
        return
    print_pipeline(report, console.results())
    if different is not None:
        word = "within" if different <= PARITY else "[red]above[/]"
        console.results().print(
            f"largest difference from the model compiled whole: {different:.2g}, {word} {PARITY:g}"
        )
    if out is not None:
        console.results().print(f"{Path(out) / FILES[0]}, {', '.join(FILES[1:])} hold the same")


def _devices(text: str) -> list[str]:
    """By commas, or by semicolons where sets have commas in them."""
    return [item.strip() for item in text.split(";" if ";" in text else ",") if item.strip()]


def _number(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdecimal():
        raise ConfigError(f"--micro-batches {text!r} is no number, and not auto")
    return int(text)


def _batches(source: Any, size: int, count: int, seed: int) -> list[tuple[Any, ...]]:
    """Batches of ``size`` inputs each; few different ones, taken in turns."""
    import numpy as np
    import torch

    singles = source.inputs(size * min(count, 4), seed)
    made = []
    for start in range(0, len(singles) - size + 1, size):
        group = singles[start : start + size]
        made.append(
            group[0]
            if size == 1
            else tuple(
                torch.cat(column) if isinstance(column[0], torch.Tensor) else np.concatenate(column)
                for column in zip(*group, strict=True)
            )
        )
    if not made:
        raise ConfigError(f"{source.name} brings {len(singles)} inputs: a batch of {size} is more")
    return [made[number % len(made)] for number in range(count)]


def _loaded(model: str, running: dict[str, Any], count: int, seed: int) -> tuple[Any, Any, None]:
    from burnish.cli.inputs import InputSpec, make
    from burnish.compiler.pipelines.pipeline import load_pipeline

    with console.progress(f"starting {model}"):
        run = load_pipeline(model, **running)
    specs = [
        InputSpec(s.name, tuple(map(int, s.shape)), s.dtype) for s in run.plan.signature.inputs
    ]
    return run, [make(specs, seed + number) for number in range(count)], None


def _difference(
    source: Any, target: str, settings: Settings, given: list[Any], found: list[Any]
) -> float:
    """The largest relative difference of any output from that of the model compiled whole."""
    import burnish
    from burnish.compiler.parity import parity

    with console.progress(f"{source.name}: compiling it whole"):
        whole = burnish.compile(source.model, given[0], target, config=settings.config())
    worst = [parity(one, whole(*batch)) for one, batch in zip(found, given[:4], strict=False)]
    return max(item.rel for item in worst)


@contextmanager
def _telling(model: str) -> Iterator[Any]:
    """A line on a terminal's stderr that says what is being done."""
    shown = console.notes()
    if not shown.is_terminal:
        yield lambda text: None
        return
    with shown.status(model) as status:
        yield lambda text: status.update(f"{model}: {text}")
