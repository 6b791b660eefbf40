"""Learned placement: a policy that draws placements, improved by policy gradient.

After Mirhoseini et al., "Device Placement Optimization with Reinforcement Learning" (2017): units
are placed one after the other, each draw seeing those before; the reward is minus the square root
of the time, and REINFORCE with a baseline raises the odds of what was faster. Ours differs: the
policy is linear in eight features of (unit, device) plus one number for each pair (theirs is a
recurrent network over embeddings), the time is predicted and not measured, and the baseline is the
mean of the batch. A placement over a memory limit is told to be slower by its excess.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from burnish.compiler.placement.errors import PlacementError
from burnish.compiler.placement.predict import Placement, placed
from burnish.compiler.placement.problem import Problem
from burnish.compiler.placement.tables import Floats, Ints, Tables

SAMPLES, BATCH = 3000, 30
RATE, ENTROPY = 0.1, 0.02
PENALTY = 4.0
FEATURES = 6


def place(
    problem: Problem, *, overlap: bool = False, seed: int = 0, samples: int = SAMPLES
) -> Placement:
    """The best of ``samples`` draws; the same for one seed. No guarantee.

    Raises :class:`PlacementError` where no draw met the memory limits.
    """
    tables = Tables.of(problem)
    policy = _Policy(tables)
    draw = np.random.default_rng(seed)
    best, found = np.inf, None
    finite = np.where(np.isfinite(tables.limits), tables.limits, 0.0).sum() or 1.0
    rounds = max(1, samples // BATCH)
    for at in range(rounds):
        rows, trace = policy.draw(draw)
        seconds, excess = tables.evaluate(rows, overlap=overlap)
        legal = np.where(excess > 0, np.inf, seconds)
        first = int(legal.argmin())
        if legal[first] < best:
            best, found = float(legal[first]), rows[first].copy()
        reward = -np.sqrt(seconds * (1 + PENALTY * (excess > 0) + PENALTY * excess / finite))
        spread = reward.std()
        advantage = (reward - reward.mean()) / spread if spread > 0 else np.zeros(len(reward))
        policy.learn(trace, advantage, ENTROPY * (1 - at / rounds))
    if found is None:
        raise PlacementError(
            f"learned: none of {rounds * BATCH} draws met the memory limits; use ilp"
        )
    note = f"{rounds * BATCH} draws, seed {seed}"
    return placed(problem, "learned", tables.assignment(found), overlap=overlap, note=note)


@dataclass(frozen=True)
class _Choice:
    """One unit's draw in a batch: features ``[batch, devices, features]``, odds, what was drawn."""

    unit: int
    features: Floats
    odds: Floats
    drawn: Ints


class _Policy:
    """``softmax(table[unit, device] + features . weights)`` over the devices of a unit."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        count, width = len(tables.units), len(tables.devices)
        self.weights = np.zeros(FEATURES)
        self.table = np.zeros((count, width))
        self.moments = [np.zeros(FEATURES), np.zeros((count, width))]
        self.squares = [np.zeros(FEATURES), np.zeros((count, width))]
        self.steps = 0
        self.cost = np.array([tables.seconds[list(u.members)].sum(0) for u in tables.units])
        self.mask = np.full((count, width), -np.inf)
        for at, allowed in enumerate(tables.allowed):
            self.mask[at, list(allowed)] = 0.0
        self.cost = np.where(np.isfinite(self.mask), self.cost, 0.0)
        self.scale = max(float(self.cost.sum()) / max(1, np.isfinite(self.mask).sum()), 1e-12)
        self.weight_bytes = np.zeros(count)
        for node, spec in enumerate(tables.problem.nodes):
            size = spec.weight_bytes + spec.state_bytes + sum(spec.weights.values())
            self.weight_bytes[tables.unit_of[node]] += size
        self.uses: list[list[tuple[int, int]]] = []
        for unit in tables.units:
            own = set(unit.members)
            self.uses.append(
                [
                    (v, -1 if value.source is None else int(tables.unit_of[value.source]))
                    for v, value in enumerate(tables.problem.values)
                    if own & set(value.targets) and value.source not in own
                ]
            )
        self.sends = [
            sum(
                tables.moves[v, :, tables.host]
                for v, value in enumerate(tables.problem.values)
                if value.to_host and value.source in unit.members
            )
            + np.zeros(width)
            for unit in tables.units
        ]

    def draw(self, draw: np.random.Generator) -> tuple[Ints, list[_Choice]]:
        """``[batch, units]`` devices, and what :meth:`learn` needs."""
        tables, width = self.tables, len(self.tables.devices)
        rows = np.full((BATCH, len(tables.units)), -1, np.int64)
        load, held = np.zeros((BATCH, width)), np.zeros((BATCH, width))
        every, trace = np.arange(BATCH), []
        limits = np.where(np.isfinite(tables.limits), tables.limits, np.inf)
        for unit in range(len(tables.units)):
            features = np.empty((BATCH, width, FEATURES))
            cost = self.cost[unit]
            features[:, :, 0] = cost / self.scale
            features[:, :, 1] = cost / max(cost.max(), 1e-12)
            features[:, :, 2] = self._moves(unit, rows) / self.scale
            features[:, :, 3] = self.sends[unit] / self.scale
            features[:, :, 4] = load / max(float(self.cost.max(1).sum()), 1e-12)
            features[:, :, 5] = (held + self.weight_bytes[unit]) / limits
            logits = self.table[unit] + features @ self.weights + self.mask[unit]
            odds = np.exp(logits - logits.max(1, keepdims=True))
            odds /= odds.sum(1, keepdims=True)
            drawn = (odds.cumsum(1) < draw.random((BATCH, 1))).sum(1)
            drawn = np.minimum(drawn, tables.allowed[unit][-1])
            rows[:, unit] = drawn
            load[every, drawn] += cost[drawn]
            held[every, drawn] += self.weight_bytes[unit]
            trace.append(_Choice(unit, features, odds, drawn))
        return rows, trace

    def _moves(self, unit: int, rows: Ints) -> Floats:
        """Seconds of moving what the unit uses to each device, from where it was drawn."""
        found = np.zeros((BATCH, len(self.tables.devices)))
        for value, source in self.uses[unit]:
            if source < 0:
                found += self.tables.moves[value, self.tables.host]
            else:
                here = rows[:, source]  # -1 where a later unit makes it: it adds nothing
                found += np.where(here[:, None] >= 0, self.tables.moves[value][here], 0.0)
        return found

    def learn(self, trace: list[_Choice], advantage: Floats, entropy: float) -> None:
        """One step of Adam up the expected reward, and the entropy of the draws."""
        weights, table = np.zeros_like(self.weights), np.zeros_like(self.table)
        every = np.arange(BATCH)
        for choice in trace:
            ahead = -choice.odds * advantage[:, None]
            ahead[every, choice.drawn] += advantage
            logs = np.log(np.maximum(choice.odds, 1e-12))
            mean = (choice.odds * logs).sum(1, keepdims=True)
            ahead -= entropy * choice.odds * (logs - mean)
            table[choice.unit] = ahead.mean(0)
            weights += np.einsum("bd,bdf->f", ahead, choice.features) / BATCH
        self.steps += 1
        for at, (value, slope) in enumerate(((self.weights, weights), (self.table, table))):
            self.moments[at] = 0.9 * self.moments[at] + 0.1 * slope
            self.squares[at] = 0.99 * self.squares[at] + 0.01 * slope**2
            mean = self.moments[at] / (1 - 0.9**self.steps)
            size = np.sqrt(self.squares[at] / (1 - 0.99**self.steps))
            value += RATE * mean / (size + 1e-8)
