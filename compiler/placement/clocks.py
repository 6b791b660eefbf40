"""The latency of devices that work at the same time, as rows of a mixed-integer program.

For an assignment in whole numbers, the least values of the variables are the times of the list
schedule in :mod:`.predict`: nodes on a device, and values on a link, in the order of the problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from burnish.compiler.placement.linear import Program
from burnish.compiler.placement.tables import Tables


def add_clocks(
    program: Program,
    tables: Tables,
    x: Sequence[Mapping[int, int]],
    way: Mapping[tuple[int, int, int], int],
    unit: float,
    large: float,
) -> None:
    """Add the latency as the cost, in ``unit`` seconds; ``large`` is one that can be reached."""
    problem = tables.problem
    latency = program.variable(0, large, cost=1.0)
    done = [program.variable(0, large) for _ in problem.nodes]
    homes = [x[int(tables.unit_of[node])] for node in range(len(problem.nodes))]
    outgoing: dict[int | None, list[int]] = {}
    used: list[list[int]] = [[] for _ in problem.nodes]
    for at, value in enumerate(problem.values):
        outgoing.setdefault(value.source, []).append(at)
        for target in value.targets:
            used[target].append(at)
    clocks: dict[int, int] = {}
    links: dict[tuple[int, int], int] = {}
    arrived: dict[tuple[int, int], int] = {}

    def send(source: int | None) -> None:
        for at in outgoing.get(source, ()):
            for (value, here, there), chosen in way.items():
                if value != at or here == there:
                    continue
                seconds = float(tables.moves[at, here, there]) / unit
                clock = program.variable(0, large)
                before = links.get((here, there))
                if before is not None:
                    program.at_least({clock: 1.0, before: -1.0, chosen: -seconds}, 0.0)
                if source is None:
                    program.at_least({clock: 1.0, chosen: -seconds}, 0.0)
                else:
                    # Where the value does not go this way, the row says nothing.
                    row = {clock: 1.0, done[source]: -1.0, chosen: -(seconds + large)}
                    program.at_least(row, -large)
                links[here, there] = clock
                arrival = arrived.setdefault((at, there), program.variable(0, large))
                program.at_least({arrival: 1.0, clock: -1.0, chosen: -large}, -large)
                program.at_least({latency: 1.0, arrival: -1.0}, 0.0)

    send(None)
    for node, home in enumerate(homes):
        own = {home[device]: float(tables.seconds[node, device]) / unit for device in home}
        alone = {variable: -seconds for variable, seconds in own.items()}
        program.at_least({done[node]: 1.0, **alone}, 0.0)
        for at in used[node]:
            source = problem.values[at].source
            if source is not None:
                program.at_least({done[node]: 1.0, done[source]: -1.0, **alone}, 0.0)
            for device, variable in home.items():
                if (at, device) in arrived:
                    row = {done[node]: 1.0, arrived[at, device]: -1.0}
                    row[variable] = -(own[variable] + large)
                    program.at_least(row, -large)
        for device, variable in home.items():
            clock = program.variable(0, large)
            before = clocks.get(device)
            if before is not None:
                program.at_least({clock: 1.0, before: -1.0, variable: -own[variable]}, 0.0)
                row = {done[node]: 1.0, before: -1.0, variable: -(own[variable] + large)}
                program.at_least(row, -large)
            else:
                program.at_least({clock: 1.0, variable: -own[variable]}, 0.0)
            program.at_least({clock: 1.0, done[node]: -1.0, variable: -large}, -large)
            clocks[device] = clock
        program.at_least({latency: 1.0, done[node]: -1.0}, 0.0)
        send(node)
    for last in (*clocks.values(), *links.values()):
        program.at_least({latency: 1.0, last: -1.0}, 0.0)
