"""The ranks of a split model as plain data.

Saved as ``ranks.json`` beside their artifacts; read back without running code.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from burnish.compiler.errors import ArtifactError
from burnish.compiler.parallel.report import Collective, ParallelReport
from burnish.compiler.pipelines.core_sets import CoreSet
from burnish.runtime.jsons import has_keys, parsed
from burnish.runtime.signature import Signature

SCHEMA = 1
FILE = "ranks.json"
_LIMIT = 64 << 20


@dataclass(frozen=True)
class Ranks:
    """All of a split model but its artifacts: a device, and a number of threads, for each rank."""

    signature: Signature
    devices: tuple[CoreSet, ...]
    threads: tuple[int, ...]
    report: ParallelReport

    def __post_init__(self) -> None:
        lengths = {
            len(self.devices),
            len(self.threads),
            len(self.report.devices),
            len(self.report.parameter_bytes),
            len(self.report.stored_bytes),
        }
        if len(lengths) != 1 or not self.devices:
            raise ValueError(f"it tells of {sorted(lengths)} ranks")

    @staticmethod
    def artifact(rank: int) -> str:
        """The name of a rank's file."""
        return f"rank{rank}.burnish"

    def save(self, folder: Path) -> Path:
        """Write ``ranks.json`` into the folder of the artifacts."""
        path = folder / FILE
        data = {
            "schema": SCHEMA,
            "signature": self.signature.to_dict(),
            "devices": [asdict(device) for device in self.devices],
            "threads": self.threads,
            "report": asdict(self.report),
        }
        path.write_text(json.dumps(data, indent=1) + "\n")
        return path

    @classmethod
    def load(cls, folder: Path) -> Ranks:
        """The ranks of a folder; :class:`ArtifactError` where there are none, or it is damaged."""
        path = folder / FILE
        try:
            return _ranks(parsed(memoryview(path.read_bytes()), FILE, _LIMIT))
        except OSError as error:
            raise ArtifactError(f"no ranks in {folder}: {error.strerror}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(f"{path} is damaged: {error}") from error


def _ranks(data: Any) -> Ranks:
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError(f"it is no split model of schema {SCHEMA}")
    has_keys(data, "a split model", ("schema", "signature", "devices", "threads", "report"))
    report = data["report"]
    return Ranks(
        Signature.from_dict(data["signature"]),
        tuple(CoreSet(str(d["name"]), tuple(map(int, d["cores"]))) for d in data["devices"]),
        tuple(map(int, data["threads"])),
        ParallelReport(
            tuple(map(str, report["devices"])),
            int(report["whole_bytes"]),
            tuple(map(int, report["parameter_bytes"])),
            tuple(map(int, report["stored_bytes"])),
            tuple(Collective(str(c["kind"]), int(c["bytes"])) for c in report["collectives"]),
        ),
    )


__all__ = ["FILE", "Ranks"]
