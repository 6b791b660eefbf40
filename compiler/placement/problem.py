"""A placement problem: operators with their times on each device, what flows, links and limits.

Everything is measured or given before: nothing here looks at IR or runs a device. Times are in
seconds, sizes in bytes. The file of a problem is read by :mod:`.problem_file`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Device:
    """``memory_bytes`` is what a placement may use of the device; ``None`` is no limit."""

    name: str
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Link:
    """What moving bytes from ``source`` to ``target`` costs; the way back is a link of its own."""

    source: str
    target: str
    latency_seconds: float
    bytes_per_second: float

    def seconds(self, count: int) -> float:
        """The time that ``count`` bytes take."""
        return self.latency_seconds + count / self.bytes_per_second


@dataclass(frozen=True)
class Node:
    """One operator, or a group that is kept together.

    ``seconds`` has its time on each device that can run it, ``reasons`` why another cannot.
    ``weight_bytes`` are its own weights, ``weights`` those that it may share with others by name
    (held once a device); ``state_bytes`` stay between calls (a KV cache); ``work_bytes`` are
    needed while it runs; ``output_bytes`` from then until the last use of its result.
    """

    name: str
    operator: str
    seconds: Mapping[str, float]
    reasons: Mapping[str, str] = field(default_factory=dict)
    weight_bytes: int = 0
    weights: Mapping[str, int] = field(default_factory=dict)
    state_bytes: int = 0
    output_bytes: int = 0
    work_bytes: int = 0


@dataclass(frozen=True)
class Edge:
    """``target`` uses a result of ``source``.

    Edges of one source and one ``value`` carry the same bytes, and those are moved once to each
    device. A node with several results names them apart by ``value``.
    """

    source: str
    target: str
    bytes: int
    value: str = ""


@dataclass(frozen=True)
class Input:
    """An input of the model: it lies at the host, and is moved once to each device that uses it."""

    name: str
    bytes: int
    targets: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))


@dataclass(frozen=True)
class Output:
    """A result of ``source`` that the model returns: it is moved to the host."""

    source: str
    bytes: int
    value: str = ""


@dataclass(frozen=True)
class Value:
    """What is moved as one: an input (``source`` is ``None``) or one result of a node.

    ``targets`` are the positions of the nodes that use it, ascending; ``last`` is the position
    until which it is held.
    """

    name: str
    source: int | None
    bytes: int
    targets: tuple[int, ...]
    to_host: bool
    last: int

    @property
    def first(self) -> int:
        """The position from which it is there."""
        return 0 if self.source is None else self.source


@dataclass(frozen=True)
class Problem:
    """What is placed, in topological order, and where it may go.

    ``host`` is the device at which inputs lie and outputs are wanted (by default the first).
    The nodes of a group in ``together`` go to one device. ``pins`` are patterns of node names
    (``fnmatch``) with a device each; of several that fit a node, the last one holds.

    Raises :class:`~.errors.ProblemError` naming what contradicts itself.
    """

    nodes: tuple[Node, ...]
    devices: tuple[Device, ...]
    edges: tuple[Edge, ...] = ()
    links: tuple[Link, ...] = ()
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    host: str = ""
    together: tuple[tuple[str, ...], ...] = ()
    pins: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from burnish.compiler.placement.check import check_problem

        for name in ("nodes", "devices", "edges", "links", "inputs", "outputs"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "together", tuple(map(tuple, self.together)))
        if not self.host and self.devices:
            object.__setattr__(self, "host", self.devices[0].name)
        check_problem(self)

    @cached_property
    def index(self) -> dict[str, int]:
        """The position of each node."""
        return {node.name: position for position, node in enumerate(self.nodes)}

    @cached_property
    def limits(self) -> dict[str, int]:
        """The memory limits, of the devices that have one."""
        return {d.name: d.memory_bytes for d in self.devices if d.memory_bytes is not None}

    @cached_property
    def values(self) -> tuple[Value, ...]:
        """All that can be moved, inputs first, then by the position of the source."""
        end = len(self.nodes) - 1
        found = []
        for item in self.inputs:
            targets = tuple(sorted({self.index[name] for name in item.targets}))
            last = max(targets, default=0)
            found.append(Value(item.name, None, item.bytes, targets, False, last))
        uses: dict[tuple[int, str], tuple[int, set[int]]] = {}
        for edge in self.edges:
            key = self.index[edge.source], edge.value
            uses.setdefault(key, (edge.bytes, set()))[1].add(self.index[edge.target])
        wanted = set()
        for output in self.outputs:
            key = self.index[output.source], output.value
            uses.setdefault(key, (output.bytes, set()))
            wanted.add(key)
        for (source, name), (count, used) in sorted(uses.items(), key=lambda item: item[0][0]):
            label = self.nodes[source].name + (f".{name}" if name else "")
            to_host = (source, name) in wanted
            last = end if to_host else max(used)
            found.append(Value(label, source, count, tuple(sorted(used)), to_host, last))
        return tuple(found)

    @cached_property
    def channels(self) -> dict[tuple[str, str], Link]:
        """A link for each ordered pair of devices; where none is given, the way by the host."""
        given = {(link.source, link.target): link for link in self.links}
        found = dict(given)
        names = [device.name for device in self.devices]
        for pair in ((a, b) for a in names for b in names if a != b and (a, b) not in given):
            there, back = given.get((pair[0], self.host)), given.get((self.host, pair[1]))
            if there and back:
                rate = 1 / (1 / there.bytes_per_second + 1 / back.bytes_per_second)
                latency = there.latency_seconds + back.latency_seconds
                found[pair] = Link(*pair, latency, rate)
        return found

    def move_seconds(self, source: str, target: str, count: int) -> float:
        """The time that ``count`` bytes take from one device to another; 0 within one."""
        return 0.0 if source == target else self.channels[source, target].seconds(count)


def both_ways(
    one: str, other: str, latency_seconds: float, bytes_per_second: float
) -> Sequence[Link]:
    """Two links with the same cost."""
    return (
        Link(one, other, latency_seconds, bytes_per_second),
        Link(other, one, latency_seconds, bytes_per_second),
    )
