"""The command ``burnish``: one verb a file, each with the name of the Python verb it stands for.

Exit codes: 0 done, 1 a check failed, 2 bad usage or an error, 130 interrupted. An error is one
line on stderr; ``-v`` adds the traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from burnish.cli import (
    bench,
    cache,
    compare,
    compile,
    demo,
    devices,
    doctor,
    inspect,
    pipeline,
    place,
    profile,
    run,
    running,
    serve_device,
    verify,
    zoo,
)
from burnish.cli.options import Json, Verbose

app = typer.Typer(
    name="burnish",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (
    *(compile, run, compare, inspect, verify, zoo, doctor, demo, bench, profile, pipeline, place),
    *(devices, serve_device, cache),
):
    verb.add_to(app)


@app.callback()
def burnish(json: Json = False, verbose: Verbose = False) -> None:
    """Prune, quantize, tune and build trained networks, and prove each gain.

    Start with `burnish doctor`, then:

    * `burnish compile zoo:magika -o magika.burnish --quantize int8`

    * `burnish compare zoo:magika magika.burnish`
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave with its exit code."""
    sys.exit(running.run(app, "burnish", arguments))
