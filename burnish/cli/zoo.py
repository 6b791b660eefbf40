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
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", show_default=False)]


def add_to(app: typer.Typer) -> None:
    app.add_typer(zoo)


@zoo.callback()
def default(
    context: typer.Context, json: options.Json = False, verbose: options.Verbose = False
) -> None:
    """List the models that come with real weights, or fetch their files.

    Examples:

    * `burnish zoo`

    * `burnish zoo fetch magika minilm`
    """
    if context.invoked_subcommand is None:
        show()


@zoo.command("list")
def list_(json: options.Json = False, verbose: options.Verbose = False) -> None:
    """List the models: their task, licence and source."""
    show()


@zoo.command()
def fetch(
    names: Names = None, json: options.Json = False, verbose: options.Verbose = False
) -> None:
    """Fetch and check the files of these models, or of all; they are kept in the cache.

    Examples:

    * `burnish zoo fetch magika`
    """
    from burnish import models

    wanted = names or models.names()
    for name in wanted:
        with console.progress(f"fetching {name}"):
            models.load(name)
        if not console.flags.json:
            console.results().print(f"{name}: here")
    if console.flags.json:
        console.print_json({"schema": 1, "fetched": list(wanted)})


def show() -> None:
    """Print the list."""
    from burnish import models

    if console.flags.json:
        console.print_json({"schema": 1, "models": models.names()})
        return
    for name in models.names():
        console.results().print(f"zoo:{name}")
