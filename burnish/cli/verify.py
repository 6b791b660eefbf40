"""``burnish verify``: whether an artifact is whole, and whether it runs here."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from burnish.cli import console, options
from burnish.compiler.errors import ArtifactError

File = Annotated[str, typer.Argument(metavar="ARTIFACT", show_default=False)]


def add_to(app: typer.Typer) -> None:
    app.command("verify")(verify)


def verify(
    artifact: File,
    sha256: options.Sha256 = None,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Check every byte of an artifact, without running anything of it.

    Says whether it is whole (exit code 1 where it is not), its sha256, and whether it runs on
    this machine. Whole does not mean harmless: whoever made the file chose what its code does.

    Examples:

    * `burnish verify net.burnish`

    * `burnish verify net.burnish --sha256 4f5c...`
    """
    from burnish.runtime.reading import check_machine, read_artifact

    path = Path(artifact)
    if not path.is_file():
        raise ArtifactError(f"no artifact {artifact}")
    try:
        found = read_artifact(path, sha256=sha256)
    except ArtifactError as error:
        _failed(artifact, error.message)
        raise typer.Exit(1) from error
    elsewhere = ""
    try:
        check_machine(found)
    except ArtifactError as error:
        elsewhere = error.message
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    members = found.manifest.members
    if console.flags.json:
        console.print_json(
            {
                "schema": 1,
                "artifact": artifact,
                "whole": True,
                "sha256": digest,
                "runs_here": not elsewhere,
                "why_not": elsewhere,
                "members": found.manifest.to_dict()["members"],
            }
        )
        return
    rows = [(name, member.bytes, member.sha256) for name, member in members.items()]
    console.table("", ("member", "bytes", "sha256"), rows)
    console.results().print(f"{artifact} is whole; sha256 {digest}")
    console.results().print(f"not for this machine: {elsewhere}" if elsewhere else "it runs here")


def _failed(artifact: str, message: str) -> None:
    if console.flags.json:
        console.print_json({"schema": 1, "artifact": artifact, "whole": False, "why": message})
    else:
        console.results().print(message)
