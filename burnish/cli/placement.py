"""Placements on the command line: said by ``--place``, and shown as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from burnish.cli import console
from burnish.compiler.errors import ConfigError

if TYPE_CHECKING:
    from burnish.compiler.waterfall import Report


def parse_placement(given: Sequence[str]) -> dict[str, str]:
    """``["conv2d=opencl:0"]`` -> ``{"conv2d": "opencl:0"}``."""
    found = {}
    for one in given:
        pattern, equals, device = one.rpartition("=")
        if not equals or not pattern or not device:
            raise ConfigError(f"--place takes PATTERN=DEVICE, as 'nn.conv2d=opencl:0', got {one!r}")
        found[pattern] = device
    return found


def show_placement(report: Report) -> None:
    """Print the regions by device, and what is moved; nothing for a model on one device."""
    row = next((one for one in report.rows if one.name == "PartitionGraph"), None)
    if row is None:
        return
    said = row.details
    regions = [
        (
            one["name"],
            one["device"],
            ", ".join(name if n == 1 else f"{n} {name}" for name, n in one["operators"].items()),
        )
        for one in said["regions"]
    ]
    console.table("regions", ("region", "device", "operators"), regions)
    moves = [
        (one["value"], one["from"], one["to"], "open" if one["bytes"] is None else one["bytes"])
        for one in said["transfers"]
    ]
    console.table("transfers", ("value", "from", "to", "bytes"), moves)
    console.table("weights", ("memory", "bytes"), list(said["weights"].items()))
