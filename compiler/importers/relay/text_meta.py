"""The metadata section of Relay's text: what ``meta[relay.Constant][3]`` stands for."""

from __future__ import annotations

from typing import Any

import numpy as np

from burnish.compiler.importers.relay.arrays import decode_array
from burnish.compiler.importers.relay.graph import RelayError
from burnish.compiler.importers.relay.json_nodes import Nodes
from burnish.compiler.importers.relay.text_scan import Sections


class Metadata:
    """The section, read on first use; it is a node list as in :mod:`json_nodes`."""

    def __init__(self, sections: Sections, what: str) -> None:
        self._text, self._omitted, self.what = sections.metadata, sections.omitted, what
        self._lists: dict[str, list[int]] | None = None
        self._nodes: Nodes | None = None
        self._arrays: dict[int, np.ndarray] = {}

    def constant(self, kind: str, index: int) -> np.ndarray:
        """An array; decoded once."""
        nodes, at = self._find(kind, index)
        nodes.expect(at, "relay.Constant")
        number = nodes.number(at, "data")
        if not 0 <= number < len(nodes.arrays):
            raise RelayError(f"{nodes.what}: array {number} is not in b64ndarrays")
        if number not in self._arrays:
            self._arrays[number] = decode_array(
                nodes.arrays[number], f"{nodes.what}: array {number}"
            )
        return self._arrays[number]

    def value(self, kind: str, index: int) -> Any:
        """An attribute's value."""
        nodes, at = self._find(kind, index)
        return nodes.value(at)

    def attributes(self, kind: str, index: int) -> dict[str, Any]:
        """The attributes of an operator that does not print them."""
        nodes, at = self._find(kind, index)
        return nodes.attributes(at)

    def _find(self, kind: str, index: int) -> tuple[Nodes, int]:
        if self._text is None:
            why = "was omitted when it was printed" if self._omitted else "is missing"
            raise RelayError(
                f"{self.what} names meta[{kind}][{index}], but its metadata section {why}, and the "
                "constants with it: print the module with mod.astext(show_meta_data=True), or save "
                "it with tvm.ir.save_json"
            )
        if self._nodes is None or self._lists is None:
            self._nodes = Nodes(self._text.encode(), f"{self.what}: the metadata section")
            pairs = self._nodes.pairs(self._nodes.root)
            self._lists = {str(key): self._nodes.items(value) for key, value in pairs}
        found = self._lists.get(kind, [])
        if index >= len(found):
            raise RelayError(
                f"{self.what}: meta[{kind}][{index}] is not in the metadata section, which has "
                f"{len(found)} of {kind}"
            )
        return self._nodes, found[index]
