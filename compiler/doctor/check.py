"""One finding about this machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "run", "compile only", "unavailable", "broken"]
"""``ok``: a fact, as it should be. ``run``: it was used here, with the right answer. ``compile
only``: code is made for it here, and cannot run here. ``unavailable``: it is not here.
``broken``: it is here and fails."""
FINE: tuple[Status, ...] = ("ok", "run")


@dataclass(frozen=True)
class Check:
    """What was found, why, and what to do about it. ``needed``: without it nothing compiles."""

    name: str
    status: Status
    detail: str
    remedy: str = ""
    needed: bool = False

    @property
    def fine(self) -> bool:
        """Whether nothing is missing here."""
        return self.status in FINE

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def first_line(error: object) -> str:
    """Of an error's text; its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
