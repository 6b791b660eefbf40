"""The result of ``gpu.py`` as a table: ``python benchmarks/gpu_table.py result.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

CONTENDERS = ("burnish", "eager", "torch.compile")
_SHORT = ("burnish", "eager", "compile")


def table(report: dict[str, Any]) -> str:
    """Milliseconds as CUDA graphs and as plain calls, and the largest error of an output."""
    machine = report["machine"]
    lines = [
        f"{machine['gpu']}, {machine['multiprocessors']} multiprocessors; torch "
        f"{machine['torch']}, Python {machine['python']}",
        *machine["nvidia-smi"].splitlines(),
        "",
        f"{'':37}{'ms, as a CUDA graph':^27}{'ms, plain calls':^27}{'error of':^18}",
        f"{'':37}" + "".join(f"{name:>9}" for name in _SHORT * 2) + f"{'burnish':>9}"
        f"{'eager':>9}  TFLOP/s",
    ]
    for case in report["cases"]:
        if "failed" in case:
            lines.append(f"{case['case']:37}failed: {case['failed'].splitlines()[0]}")
            continue
        cells = [
            f"{case[kind][name]:9.4f}" if name in case[kind] else f"{'-':>9}"
            for kind in ("graph ms", "call ms")
            for name in CONTENDERS
        ]
        parity = case["parity"]
        cells += [f"{parity['ours']:9.1e}", f"{parity['eager']:9.1e}"]
        rate = case["flops"] / case["graph ms"]["burnish"] / 1e9
        note = "" if parity["passes"] else "  beyond the bound"
        lines.append(f"{case['case']:37}{''.join(cells)}{f'{rate:9.1f}' if rate else ''}{note}")
    return "\n".join(line.rstrip() for line in lines) + "\n"


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text())), end="")
