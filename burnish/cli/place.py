"""``burnish place``: where the operators of a problem file go, by every algorithm."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from burnish.cli import console, files, options

if TYPE_CHECKING:
    from burnish.compiler.placement.choose import Choice, Row


def add_to(app: typer.Typer) -> None:
    app.command("place")(place)


def place(
    problem: Annotated[Path, typer.Argument(metavar="PROBLEM", help="Problem file (JSON).")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the best placement, as JSON."),
    ] = None,
    overlap: Annotated[
        bool,
        typer.Option(
            "--overlap/--in-turns",
            help="Devices and links work at the same time, or take turns (one executable).",
        ),
    ] = False,
    algorithms: Annotated[
        list[str] | None,
        typer.Option(
            "--algorithm",
            "-a",
            metavar="NAME",
            help="Try this one (again for more): greedy, dp, cut, ilp, learned, exhaustive.",
        ),
    ] = None,
    time_limit: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="The time that `ilp` may take.")
    ] = 30.0,
    seed: Annotated[int, typer.Option(help="Seed of the learned search.", min=0)] = 0,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the expected timeline, PNG or SVG."),
    ] = None,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Decide on which device each operator runs, from measured times, links and memory limits.

    Prints what each algorithm finds and what it is expected to take; the best one is written.
    Exits with 2 where no placement meets the memory limits, and tells the smallest excess.

    Examples:

    * `burnish place problem.json`

    * `burnish place problem.json --overlap -o placement.json --picture timeline.svg`
    """
    from burnish.compiler.placement.choose import DEFAULT, choose
    from burnish.compiler.placement.problem_file import read_problem

    for path in (output, picture):
        if path is not None:
            files.check_writable(path)
    read = read_problem(problem)
    # The solver prints remarks of its own at times.
    quiet = nullcontext() if console.flags.json else console.redirected_stdout()
    with console.progress("placing"), quiet:
        choice = choose(
            read,
            overlap=overlap,
            algorithms=algorithms or DEFAULT,
            time_limit_s=time_limit,
            seed=seed,
        )
    data = described(choice)
    if output is not None:
        import json as writer

        with files.whole_file(output) as partial:
            partial.write_text(writer.dumps(data, indent=1, allow_nan=False) + "\n")
    if picture is not None:
        draw(choice, picture)
    if console.flags.json:
        console.print_json(data)
        return
    show(choice)
    for path in (output, picture):
        if path is not None:
            console.notes().print(f"wrote {path}", markup=False)


def described(choice: Choice) -> dict[str, Any]:
    """The best placement and what every algorithm found, for JSON."""
    best = choice.best
    return {
        "schema": 1,
        "algorithm": best.algorithm,
        "overlap": best.prediction.overlap,
        "seconds": best.seconds,
        "exact": best.exact,
        "placement": dict(best.assignment),
        "busy_seconds": dict(best.prediction.busy),
        "memory_bytes": dict(best.prediction.memory),
        "transfers": [
            {"value": step.label, "link": step.where, "bytes": step.bytes, "seconds": step.seconds}
            for step in best.prediction.transfers
        ],
        "tried": [
            {
                "algorithm": row.algorithm,
                "seconds": row.placement and row.placement.seconds,
                "exact": row.placement is not None and row.placement.exact,
                "took_seconds": row.took_s,
                "note": row.placement.note if row.placement else row.fault,
            }
            for row in choice.rows
        ],
    }


def draw(choice: Choice, path: Path) -> None:
    """Write the picture of the best placement's timeline."""
    from burnish.compiler.placement.picture import draw_steps
    from burnish.compiler.report import figures

    best = choice.best
    title = f"{best.algorithm}: {figures.seconds(best.seconds)} expected"
    with files.whole_file(path) as partial:
        draw_steps(best.prediction.steps, title, partial)


def show(choice: Choice) -> None:
    """Print the table, and the nodes and memory of each device."""
    from burnish.compiler.report import figures

    best = choice.best
    rows = [_cells(row, row.placement is best) for row in choice.rows]
    columns = ("algorithm", "expected", "", "moves", "search", "remarks")
    console.table("", columns, rows)
    nodes = dict.fromkeys(best.prediction.memory, 0)
    for device in best.assignment.values():
        nodes[device] += 1
    parts = ", ".join(
        f"{count} on {device} ({figures.size(best.prediction.memory[device])})"
        for device, count in nodes.items()
    )
    text = f"{best.algorithm}: {figures.seconds(best.seconds)}, nodes: {parts}"
    console.results().print(text, markup=False)


def _cells(row: Row, best: bool) -> tuple[str, ...]:
    from rich.markup import escape

    from burnish.compiler.report import figures

    took = figures.seconds(row.took_s)
    if row.placement is None:
        return row.algorithm, "", "", "", took, escape(row.fault)
    exact = "exact" if row.placement.exact else ""
    name = f"[bold]{row.algorithm}[/]" if best else row.algorithm
    moves = str(len(row.placement.prediction.transfers))
    seconds = figures.seconds(row.placement.seconds)
    return name, seconds, exact, moves, took, escape(row.placement.note)
