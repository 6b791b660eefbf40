"""``burnish devices``: what models can run on here, and how fast each of it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from burnish.cli import console
from burnish.cli.options import Json, Verbose

if TYPE_CHECKING:
    from burnish.compiler.placement.devices import DeviceRates


def add_to(app: typer.Typer) -> None:
    app.command("devices")(devices)


def devices(
    again: Annotated[
        bool, typer.Option("--again", help="Measure anew, not as kept from an earlier time.")
    ] = False,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET", help="The devices of a target, those of other machines too."
        ),
    ] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """List the devices of this machine, with what each does in a second.

    Rates are measured the first time (some seconds a device) and kept. `GFLOP/s` is float32
    arithmetic and `GB/s` memory: the highest of a CPU, and what our own kernels reach on a GPU.
    `link` is a copy from the host: what it takes to begin, and its rate. What cannot be used is
    listed with the reason and what to do.

    The names are those of targets: `--target opencl:0`, or several devices for one model,
    `--target hetero:opencl:0,cpu`. Cores, and sets of them, work at the same time:
    `--target hetero:cpu@0,cpu@1` or `hetero:cpu@0-3,cpu@4-7` runs branches of a model side by
    side, and `burnish pipeline` makes them stages.

    Examples:

    * `burnish devices`

    * `burnish devices --again --json`

    * `burnish devices --target hetero:cpu,rpc://10.0.0.2:9090/cpu`
    """
    from burnish.compiler.placement import devices as found_here

    with console.progress("measuring devices"):
        found = found_here.devices(target, again=again)
    if console.flags.json:
        console.print_json({"schema": 1, "devices": [one.to_dict() for one in found]})
        return
    show(found)


def show(found: Sequence[DeviceRates]) -> None:
    """Print the table, then the reasons of what cannot be used."""
    from rich.markup import escape

    columns = ("device", "what", "GFLOP/s", "GB/s", "memory", "link")
    rows = [
        (one.name, escape(one.what), *_rates(one))
        if one.usable
        else (f"[dim]{one.name}[/]", f"[dim]{escape(one.what)}[/]", "", "", "", "")
        for one in found
    ]
    console.table("", columns, rows)
    for one in found:
        if not one.usable:
            text = f"{one.name} cannot be used: {one.reason}. To do: {one.remedy}"
            console.results().print(text, markup=False)


def _rates(one: DeviceRates) -> tuple[str, ...]:
    from burnish.compiler.report import figures

    link = "the host's own"
    if one.latency_s is not None and one.link_gbytes is not None:
        link = f"{figures.seconds(one.latency_s)}, {one.link_gbytes:.3g} GB/s"
    memory = figures.size(one.memory_bytes) if one.memory_bytes is not None else ""
    return _figure(one.gflops), _figure(one.gbytes), memory, link


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
