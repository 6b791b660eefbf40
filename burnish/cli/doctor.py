"""``burnish doctor``: what this machine can run, with reasons."""

from __future__ import annotations

import typer

from burnish.cli import console
from burnish.cli.options import Json, Verbose

COLOURS = {
    "ok": "green",
    "run": "green",
    "compile only": "yellow",
    "unavailable": "yellow",
    "broken": "red",
}


def add_to(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(json: Json = False, verbose: Verbose = False) -> None:
    """Say what this machine can run, and why not, by trying it.

    Exits with 1 where something is missing that every compilation needs.

    Examples:

    * `burnish doctor`

    * `burnish doctor --json`
    """
    from burnish.compiler.doctor import examine

    with console.progress("trying what is here"):
        checks = examine()
    failed = [check for check in checks if check.needed and not check.fine]
    if console.flags.json:
        console.print_json({"ok": not failed, "checks": [check.to_dict() for check in checks]})
    else:
        rows = [
            (check.name, f"[{COLOURS[check.status]}]{check.status}[/]", check.detail, check.remedy)
            for check in checks
        ]
        console.table("", ("what", "state", "found", "to do"), rows)
        words = ", ".join(check.name for check in failed)
        end = f"Burnish cannot compile here: {words}" if failed else "Burnish can compile here."
        console.results().print(end)
    if failed:
        raise typer.Exit(1)
