"""``burnish inspect --check``: what of a model can be imported, with nothing compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from burnish.cli import console
from burnish.cli.sources import Source

if TYPE_CHECKING:
    from burnish.compiler.importers.survey import OperatorRow, Survey


def check(source: Source, dynamic: Any, *, fold: bool) -> Survey:
    """Survey the model, and print the report; with ``--json`` as one document."""
    from burnish.compiler.importers import survey_model

    with console.progress(f"checking {source.name}"):
        found = survey_model(source.model, source.example_inputs, dynamic=dynamic, fold=fold)
    if console.flags.json:
        console.print_json({"model": source.name, **found.to_dict()})
    else:
        show(found)
    return found


def show(found: Survey) -> None:
    """Operators with what is covered of each, then what is not, and what to do."""
    rows = [
        (
            row.name,
            row.domain,
            "" if row.version is None else row.version,
            row.count,
            _supported(found, row),
            row.flops,
        )
        for row in sorted(found.rows, key=lambda row: (row.supported == row.count, -row.flops))
    ]
    columns = ("operator", "domain", "version", "nodes", "supported", "FLOPs")
    console.table(f"{found.kind} operators", columns, rows)
    for item in found.unsupported:
        lines = [f"{item.name} x{item.count}: {item.reason}"]
        lines.append(f"  nodes: {', '.join(item.nodes)}")
        for label, text in (
            ("sources", ", ".join(dict.fromkeys(filter(None, item.sources)))),
            ("nearest", item.nearest),
            ("remedy", item.remedy),
        ):
            lines += [f"  {label}: {text}"] * bool(text)
        console.results().print("\n".join(lines), markup=False, soft_wrap=True)
    if found.problem:
        console.results().print(f"problem: {found.problem}", markup=False, soft_wrap=True)
    if found.operator_share is None:
        console.results().print("cannot be imported: no operator was tried, for the problem above")
        return
    said = "can be imported" if found.importable else "cannot be imported"
    unknown = f"; sizes of {found.unknown_flops} nodes unknown" if found.unknown_flops else ""
    flops = "" if found.flop_share is None else f" and {found.flop_share:.1%} of FLOPs"
    console.results().print(
        f"{said}: {found.operator_share:.1%} of operators{flops} are covered{unknown}"
    )


def _supported(found: Survey, row: OperatorRow) -> str:
    if not found.tried:
        return "not tried"
    return "yes" if row.supported == row.count else f"{row.supported} of {row.count}"
