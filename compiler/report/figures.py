"""Numbers as text: short, with units, honest about what is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MISSING = "–"


def ms(value: float | None) -> str:
    """Milliseconds with three significant digits."""
    return MISSING if value is None else digits(value)


def digits(value: float) -> str:
    """Three significant digits without an exponent where that is short."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    places = 2 - math.floor(math.log10(abs(value)))
    return f"{value:,.{min(6, max(0, places))}f}"


def size(value: float | None) -> str:
    """Bytes in B, kB, MB or GB (powers of 1000)."""
    if value is None:
        return MISSING
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= scale:
            return f"{digits(value / scale)} {unit}"
    return f"{value:.0f} B"


def seconds(value: float | None) -> str:
    """Seconds, or milliseconds below a tenth of one."""
    if value is None:
        return MISSING
    return f"{digits(value * 1e3)} ms" if 0 < value < 0.1 else f"{digits(value)} s"


def error(value: float | None) -> str:
    """A relative or absolute error, in exponent form; 0 as 0."""
    if value is None:
        return MISSING
    return "0" if value == 0 else f"{value:.1e}"


def cosine(value: float | None) -> str:
    """Six digits: the interesting ones are nines."""
    return MISSING if value is None else f"{value:.6f}"


def accuracy(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"


def times(value: float | None) -> str:
    """A ratio, as 2.41x."""
    return MISSING if value is None else f"{digits(value)}x"


def ratio(before: float | None, after: float | None) -> str:
    """``before`` over ``after`` as a ratio, missing where either is missing or zero."""
    return times(before / after) if before and after else MISSING


def cost(entry: Mapping[str, Any]) -> str:
    """Seconds of compiling, and of tuning where there was any."""
    if entry["compile_s"] is None:
        return MISSING
    tuned = f" + {digits(entry['tune_s'])}" if entry["tune_s"] else ""
    return f"{digits(entry['compile_s'])}{tuned} s"


def count(value: int | None) -> str:
    return MISSING if value is None else f"{value:,}"


def noisy(entry: Mapping[str, Any]) -> bool:
    """Whether either side's timing is noisy."""
    return any(entry["latency_ms"][side].get("noisy") for side in ("baseline", "compiled"))


def speed(entry: Mapping[str, Any]) -> str:
    """The speed-up, with ``~`` where it cannot be told from 1 and ``?`` where timings are noisy."""
    unclear = "~" if entry["latency_ms"]["verdict"] == "within noise" else ""
    return unclear + times(entry["speedup"]) + ("?" if noisy(entry) else "")


UNCLEAR = "~ marks a speed-up that the samples cannot tell from 1x"
NOISY = (
    "? marks noisy timings, where the speed-up is the smaller of the ratios of medians and of "
    "best times"
)


def baseline_name(entry: Mapping[str, Any]) -> str:
    """The baseline as people call it."""
    names = {"eager": "eager PyTorch", "onnxruntime": "ONNX Runtime"}
    return names.get(entry["baseline"], entry["baseline"])


def side(pair: Mapping[str, Any] | None, name: str) -> Any:
    """The baseline's or the compiled model's part of a pair that may be missing."""
    return None if pair is None else pair.get(name)


def remarks(entry: Mapping[str, Any]) -> list[str]:
    """What a reader must know before trusting the figures."""
    found = []
    for name in ("baseline", "compiled"):
        timing = entry["latency_ms"][name]
        label = baseline_name(entry) if name == "baseline" else name
        if timing.get("noisy"):
            load = timing.get("other_load", 0)
            busy = f", other processes used {load:.2f} cores" if load >= 0.05 else ""
            found.append(
                f"{label}: noisy timing (quartile spread {timing.get('spread', 0):.0%}{busy})"
            )
        if timing.get("note"):
            found.append(f"{label}: {timing['note']}")
    return found


def by_model(entries: list[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Entries grouped by their ``model`` label, in order of first appearance."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        groups.setdefault(str(entry.get("model", "model")), []).append(entry)
    return groups


def variant(entry: Mapping[str, Any]) -> str:
    return str(entry.get("variant", "compiled"))


def machine_line(machine: Mapping[str, Any]) -> str:
    """The machine in a line."""
    versions = machine.get("versions", {})
    parts = [
        str(machine.get("cpu", "unknown CPU")),
        f"{machine.get('cores', '?')} cores, {machine.get('threads', '?')} threads each",
        size(machine.get("memory")),
        f"load {machine.get('load', '?')}",
        *(f"{name} {version}" for name, version in versions.items()),
    ]
    return " · ".join(parts)
