"""How a command ends: exit codes, and an error as one line on stderr.

0 done, 1 a check failed, 2 bad usage or an error, 130 interrupted; ``-v`` adds the traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from burnish.cli.console import flags, redirected_stdout


def run(app: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> int:
    """The exit code of ``app`` called with ``arguments``, those of the process by default."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    flags.json = "--json" in given
    flags.verbose = False
    try:
        if flags.json:
            with redirected_stdout():
                return _invoke(app, name, given)
        return _invoke(app, name, given)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 2
    except Exception as error:  # noqa: BLE001  (the last line of defence: one line, exit code 2)
        return _fail(name, error)


def _invoke(app: typer.Typer, name: str, given: list[str]) -> int:
    code = app(given, prog_name=name, standalone_mode=False)
    if code == 130:
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _fail(name: str, error: Exception) -> int:
    if flags.verbose:
        import traceback

        traceback.print_exception(error)
    print(f"{name}: {_one_line(error)}", file=sys.stderr)
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
