"""``burnish zoo``: the models that come with real weights and real data."""

from __future__ import annotations

from typing import Annotated

import typer

from burnish.cli import console, options

zoo = typer.Typer(
    name="zoo",
    rich_markup_mode="markdown",
    invoke_without_command=True,
)
FIELDS = ("name", "task", "description", "baseline", "licence", "source")
Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", show_default=False)]


def add_to(app: typer.Typer) -> None:
    app.add_typer(zoo)


@zoo.callback()
def default(
    context: typer.Context, json: options.Json = False, verbose: options.Verbose = False
) -> None:
    """List the models that come with real weights, show one, or fetch their files.

    Examples:

    * `burnish zoo`

    * `burnish zoo show magika`

    * `burnish zoo fetch magika minilm`
    """
    if context.invoked_subcommand is not None:
        return
    from burnish import models

    if console.flags.json:
        console.print_json({"schema": 1, "models": models.names()})
        return
    for name in models.names():
        console.results().print(f"zoo:{name}")


@zoo.command()
def show(name: Name, json: options.Json = False, verbose: options.Verbose = False) -> None:
    """Show a model's task, inputs, metric, licence and source; its files are fetched first.

    Examples:

    * `burnish zoo show magika`
    """
    from burnish import models

    with console.progress(f"fetching {name}"):
        entry = models.load(name)
    data = {key: getattr(entry, key) for key in FIELDS}
    better = "higher" if entry.metric.higher_is_better else "lower"
    data["metric"] = f"{entry.metric.name} ({better} is better)"
    data["inputs"] = [f"{list(value.shape)} {value.dtype}" for value in entry.example_inputs]
    if console.flags.json:
        console.print_json({"schema": 1, **data})
        return
    rows = [(key, ", ".join(v) if isinstance(v, list) else v) for key, v in data.items()]
    console.table("", ("", ""), rows)


@zoo.command()
def fetch(
    names: Names = None, json: options.Json = False, verbose: options.Verbose = False
) -> None:
    """Fetch and check the weights and data of these models, or of all, into the cache.

    Examples:

    * `burnish zoo fetch magika`
    """
    from burnish import models

    wanted = names or models.names()
    for name in wanted:
        with console.progress(f"fetching {name}"):
            entry = models.load(name)
            entry.inputs(1)
            entry.calibration(1)
        if not console.flags.json:
            console.results().print(f"{name}: here")
    if console.flags.json:
        console.print_json({"schema": 1, "fetched": list(wanted)})
