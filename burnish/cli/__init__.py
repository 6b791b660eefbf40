"""The command ``burnish``: one verb a file, each with the name of the Python verb it stands for.

Exit codes: 0 done, 1 a check failed, 2 bad usage or an error, 130 interrupted. An error is one
line on stderr; ``-v`` adds the traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from burnish.cli import bench, cache, compare, compile, demo, doctor, inspect, profile, run, zoo
from burnish.cli.console import flags, redirected_stdout
from burnish.cli.options import Json, Verbose

app = typer.Typer(
    name="burnish",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (compile, run, compare, inspect, zoo, doctor, demo, bench, profile, cache):
    verb.add_to(app)

UsageError = typer.BadParameter.__base__
"""What typer raises for bad usage; its module differs between typer's versions."""


@app.callback()
def burnish(json: Json = False, verbose: Verbose = False) -> None:
    """Prune, quantize, tune and build trained networks, and prove each gain.

    Start with `burnish doctor`, then:

    * `burnish compile zoo:magika -o magika.burnish --quantize int8`

    * `burnish compare zoo:magika magika.burnish`
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    flags.json = "--json" in given
    flags.verbose = False
    sys.exit(_run(given))


def _run(given: list[str]) -> int:
    try:
        if flags.json:
            with redirected_stdout():
                return _invoke(given)
        return _invoke(given)
    except KeyboardInterrupt:
        print("burnish: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 2
    except Exception as error:  # noqa: BLE001  (the last line of defence: one line, exit code 2)
        return _fail(error)


def _invoke(given: list[str]) -> int:
    code = app(given, prog_name="burnish", standalone_mode=False)
    if code == 130:
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _fail(error: Exception) -> int:
    if flags.verbose:
        import traceback

        traceback.print_exception(error)
    print(f"burnish: {_one_line(error)}", file=sys.stderr)
    return 2


def _one_line(error: Exception) -> str:
    formatted = getattr(error, "format_message", None)
    text = formatted() if formatted else str(error)
    if isinstance(error, KeyError) and error.args:
        text = str(error.args[0])
    text = " ".join(text.split())
    known = formatted or type(error).__module__.startswith("burnish.")
    expected = isinstance(error, KeyError | OSError | ValueError)
    if not text:
        return type(error).__name__
    return text if known or expected else f"{type(error).__name__}: {text}"
