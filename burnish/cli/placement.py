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
    return _pairs(given, "--place takes PATTERN=DEVICE, as 'nn.conv2d=opencl:0'")


def parse_memory(given: Sequence[str]) -> dict[str, str]:
    """``["cpu=2GB"]`` -> ``{"cpu": "2GB"}``."""
    return _pairs(given, "--memory takes DEVICE=SIZE, as 'cpu=2GB'")


def _pairs(given: Sequence[str], form: str) -> dict[str, str]:
    """Names and values, parted at the last ``=``; ConfigError says the ``form``."""
    found = {}
    for one in given:
        name, equals, value = one.rpartition("=")
        if not equals or not name or not value:
            raise ConfigError(f"{form}, got {one!r}")
        found[name] = value
    return found


def show_candidates(report: Report) -> None:
    """Print what each placement was predicted to take, where costs chose."""
    row = next((one for one in report.rows if "placement" in one.details), None)
    if row is None:
        return
    said = row.details["placement"]
    rows = [
        (
            one["algorithm"],
            "" if one["predicted_ms"] is None else f"{one['predicted_ms']:.3f}",
            "taken" if one["algorithm"] == said["algorithm"] else one["why_not"],
        )
        for one in said["candidates"]
    ]
    console.table("placements", ("by", "predicted ms", ""), rows)
    for device in said.get("no_cost", ()):
        console.results().print(
            f"{device}: no cost is known: never chosen by auto, put operators there by name",
            markup=False,
        )
    if said["measured_ms"]:
        told = ", ".join(f"{name} {ms:.3f} ms" for name, ms in said["measured_ms"].items())
        console.results().print(f"measured: {told}")


def show_placement(report: Report) -> None:
    """Print the regions by device, and what is moved; nothing for a model on one device."""
    row = next((one for one in report.rows if one.name == "PartitionGraph"), None)
    if row is None:
        return
    show_candidates(report)
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
