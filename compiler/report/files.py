"""Reports on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from burnish.compiler.errors import ConfigError
from burnish.compiler.report.page import render_page


def write_html(
    path: str | Path, entries: Sequence[Mapping[str, Any]], title: str = "Burnish report"
) -> None:
    """One self-contained page for all the comparisons."""
    Path(path).write_text(render_page(entries, title), encoding="utf-8")


def write_json(path: str | Path, data: Any) -> None:
    """Strict JSON: a NaN or infinity is written as the text ``nan``, ``inf`` or ``-inf``."""
    text = json.dumps(finite(data), indent=2, allow_nan=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


def write_report(path: str | Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """JSON or HTML by the suffix; JSON of one comparison is its dictionary, of more a list.

    ConfigError for any other suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        write_json(path, entries[0] if len(entries) == 1 else list(entries))
    elif suffix in {".html", ".htm"}:
        write_html(path, entries)
    else:
        raise ConfigError(f"cannot write a report as {Path(path).name!r}: use .json or .html")


def finite(data: Any) -> Any:
    """The data with every float that JSON cannot hold replaced by its name."""
    if isinstance(data, float) and not math.isfinite(data):
        return str(data)
    if isinstance(data, Mapping):
        return {str(key): finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data
