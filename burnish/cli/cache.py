"""``burnish cache``: the finished compilations that the next compile would take."""

from __future__ import annotations

import time
from dataclasses import asdict

import typer

from burnish.cli import console, options

cache = typer.Typer(name="cache", rich_markup_mode="markdown", invoke_without_command=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(cache)


@cache.callback()
def default(
    context: typer.Context, json: options.Json = False, verbose: options.Verbose = False
) -> None:
    """List the compiled models in the cache, the one used last first.

    The cache lies in `$BURNISH_CACHE` (by default `~/.cache/burnish`) and holds up to
    `$BURNISH_CACHE_LIMIT` bytes (`10GB`; `0` is off).

    Examples:

    * `burnish cache`

    * `burnish cache size`

    * `burnish cache clear`
    """
    if context.invoked_subcommand is not None:
        return
    from burnish.compiler import compile_cache
    from burnish.compiler.report.figures import size

    found = compile_cache.entries()[::-1]
    if console.flags.json:
        console.print_json({"schema": 1, "entries": [asdict(entry) for entry in found]})
        return
    rows = [
        (e.path.stem[:16], size(e.bytes), time.strftime("%F %T", time.localtime(e.used)))
        for e in found
    ]
    if rows:
        console.table("", ("key", "size", "last used"), rows)
    else:
        console.results().print(f"nothing in {compile_cache.folder()}")


@cache.command("size")
def show_size(json: options.Json = False, verbose: options.Verbose = False) -> None:
    """Show what the cache holds and may hold, in bytes.

    Examples:

    * `burnish cache size --json`
    """
    from burnish.compiler import compile_cache
    from burnish.compiler.report.figures import size

    found, most = compile_cache.entries(), compile_cache.limit()
    held = sum(entry.bytes for entry in found)
    if console.flags.json:
        folder = str(compile_cache.folder())
        data = {"folder": folder, "entries": len(found), "bytes": held, "limit": most}
        console.print_json({"schema": 1, **data})
        return
    text = f"{len(found)} models, {size(held)} of {size(most)}, in {compile_cache.folder()}"
    console.results().print(text)


@cache.command()
def clear(json: options.Json = False, verbose: options.Verbose = False) -> None:
    """Remove every compiled model from the cache; weights and data of the zoo stay.

    Examples:

    * `burnish cache clear`
    """
    from burnish.compiler import compile_cache
    from burnish.compiler.report.figures import size

    gone = compile_cache.clear()
    freed = sum(entry.bytes for entry in gone)
    if console.flags.json:
        console.print_json({"schema": 1, "removed": len(gone), "bytes": freed})
        return
    console.results().print(f"removed {len(gone)} files, {size(freed)}")
