"""What is wrong with a placement problem, or why it has no answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from burnish.compiler.errors import BurnishError, ConfigError


class ProblemError(ConfigError):
    """A placement problem contradicts itself, or its file cannot be read."""

    stage = "place"


class PlacementError(BurnishError, ValueError):
    """No placement was found, or the one that was given does not fit the problem."""

    stage = "place"


class NotApplicableError(PlacementError):
    """The algorithm is not made for this problem; the message says which one is."""


@dataclass(frozen=True)
class Unplaced:
    """A node that no device can run, and why each cannot."""

    node: str
    operator: str
    reasons: Mapping[str, str]


class NoDeviceError(PlacementError):
    """Every node that no device can run at once, in ``nodes``."""

    def __init__(self, nodes: Sequence[Unplaced]) -> None:
        self.nodes = tuple(nodes)
        listed = "; ".join(
            f"{item.node} ({item.operator}): "
            + ", ".join(f"{device}: {why}" for device, why in item.reasons.items())
            for item in self.nodes
        )
        count = f"{len(self.nodes)} operator{'s' if len(self.nodes) > 1 else ''}"
        super().__init__(
            f"no device can run {count}: {listed}. Add a device that can, change the pin or the "
            "group that keeps the operator away from one, or take the operator out of the model"
        )

    def to_json(self) -> str:
        """The nodes as a JSON object: ``{"schema": 1, "nodes": [...]}``."""
        return json.dumps({"schema": 1, "nodes": [asdict(item) for item in self.nodes]})


class MemoryLimitError(PlacementError):
    """No placement meets the memory limits.

    ``excess`` is the bytes over the limit of each device in the placement that is least over in
    sum, and ``proven`` whether none is less over (else the solver ran out of time).
    """

    def __init__(self, message: str, excess: Mapping[str, int], *, proven: bool) -> None:
        super().__init__(message)
        self.excess = dict(excess)
        self.proven = proven
