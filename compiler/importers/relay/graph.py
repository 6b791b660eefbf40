"""The one form that both readers of Relay give: nodes in a list, children before parents.

Plain data without TVM objects. A node names others by their place in :attr:`Graph.nodes`, and
only earlier ones, so that no graph has cycles and every walk is a loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from burnish.compiler.errors import ImportModelError

Id = int
MAX_LEAVES = 10_000


class RelayError(ImportModelError):
    """A Relay file that is damaged, or says what cannot be imported."""


@dataclass(frozen=True)
class TensorType:
    """``Tensor[(1, ?, 4), float32]``; an open size is None."""

    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join('?' if n is None else str(n) for n in self.shape)}]"


@dataclass(frozen=True)
class TupleType:
    """A tuple; ``leaves`` counts the tensors in it, however deep."""

    fields: tuple[Type, ...]
    leaves: int = 0

    @staticmethod
    def of(fields: tuple[Type, ...]) -> TupleType:
        leaves = sum(t.leaves if isinstance(t, TupleType) else 1 for t in fields)
        if leaves > MAX_LEAVES:
            raise RelayError(f"a tuple type has more than {MAX_LEAVES} tensors")
        return TupleType(fields, leaves)


@dataclass(frozen=True)
class FunctionType:
    """The type of a function; its parts are not needed."""


Type = TensorType | TupleType | FunctionType | None


@dataclass(frozen=True)
class Opaque:
    """An attribute's value that no converter reads, such as a device; ``kind`` names it."""

    kind: str


@dataclass(frozen=True)
class Var:
    """A parameter of a function, or the name of a ``let``."""

    name: str
    type: Type = None


@dataclass(frozen=True)
class Constant:
    """A tensor written in the module."""

    array: np.ndarray


@dataclass(frozen=True)
class Operator:
    """An operator by name, as what a call calls."""

    name: str


@dataclass(frozen=True)
class Global:
    """A function of the module, by name."""

    name: str


@dataclass(frozen=True)
class Call:
    """``op`` is an :class:`Operator`, or anything that gives a function.

    ``attrs`` holds every attribute of the operator, those at their default too.
    """

    op: Id
    args: tuple[Id, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tuple:
    fields: tuple[Id, ...]


@dataclass(frozen=True)
class Item:
    """One field of a tuple."""

    value: Id
    index: int


@dataclass(frozen=True)
class Let:
    var: Id
    value: Id
    body: Id


@dataclass(frozen=True)
class If:
    cond: Id
    then: Id
    other: Id


@dataclass(frozen=True)
class Function:
    """``attrs`` are marks such as ``Primitive`` and ``Composite``."""

    params: tuple[Id, ...]
    body: Id
    attrs: Mapping[str, Any] = field(default_factory=dict)


Node = Var | Constant | Operator | Global | Call | Tuple | Item | Let | If | Function


@dataclass(frozen=True)
class Graph:
    """A module as read: those functions that ``entry`` reaches.

    ``places`` says for each node where it was written (``line 12``, ``node 40``), with the
    source span where there is one; ``types`` holds what the file tells of the results of calls
    (not needed to convert them); ``warnings`` is what the user should know.
    """

    nodes: tuple[Node, ...]
    places: tuple[str, ...]
    functions: Mapping[str, Id]
    entry: str
    types: Mapping[Id, TensorType] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def main(self) -> Function:
        """The function that is the model."""
        node = self.nodes[self.functions[self.entry]]
        assert isinstance(node, Function)
        return node


class GraphBuilder:
    """Nodes as they are read; each may name only nodes added before it."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.places: list[str] = []
        self.types: dict[Id, TensorType] = {}

    def add(self, node: Node, place: str, kind: Type = None) -> Id:
        self.nodes.append(node)
        self.places.append(place)
        if isinstance(kind, TensorType):
            self.types[len(self.nodes) - 1] = kind
        return len(self.nodes) - 1

    def graph(
        self, functions: Mapping[str, Id], entry: str, warnings: tuple[str, ...] = ()
    ) -> Graph:
        """Everything added, as it stays."""
        nodes, places = tuple(self.nodes), tuple(self.places)
        return Graph(nodes, places, functions, entry, self.types, warnings)


def entry_of(names: list[str]) -> str:
    """The function that is the model: ``main``, or the only one."""
    if "main" in names:
        return "main"
    if len(names) == 1:
        return names[0]
    if not names:
        raise RelayError("the file has no function")
    raise RelayError(
        f"none of the functions is @main: {', '.join(sorted(names)[:8])}; name the model's main"
    )
