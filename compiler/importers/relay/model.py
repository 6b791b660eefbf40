"""A Relay module with its parameters, before conversion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from burnish.compiler.importers.relay.graph import Graph, Var


@dataclass(frozen=True)
class RelayModel:
    """A Relay module as read, with its parameters; what :func:`import_relay` takes.

    ``source_hash`` is the sha256 of the module's and the parameters' bytes.
    """

    graph: Graph = field(repr=False)
    params: Mapping[str, np.ndarray] = field(repr=False)
    source_hash: str
    name: str = "the Relay module"

    def inputs(self) -> list[Var]:
        """Parameters of ``main`` that the parameters have no value for."""
        return [var for var in self.parameters() if var.name not in self.params]

    def parameters(self) -> list[Var]:
        found = [self.graph.nodes[at] for at in self.graph.main().params]
        return [node for node in found if isinstance(node, Var)]
