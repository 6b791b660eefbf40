"""Recurrence kernels of random cells, and what they compute, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from tvm import relax, tirx

from burnish.passes.recurrence import call_recurrence, panel_width
from burnish.targets.recurrence_form import ACTIVATIONS, GATES, Cell

FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}


@st.composite
def cells(draw: Any) -> Cell:
    """Any cell."""
    kind = draw(st.sampled_from(sorted(GATES)))
    usual = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
    bounded = ("Sigmoid", "Tanh", "HardSigmoid", "Softsign", "ScaledTanh")
    names = draw(
        st.one_of(
            st.just(usual[kind]),
            st.tuples(*[st.sampled_from(bounded)] * FUNCTIONS[kind]),
            st.tuples(*[st.sampled_from(ACTIVATIONS)] * FUNCTIONS[kind]),
        )
    )
    lstm = kind == "LSTM"
    return Cell(
        kind,
        tuple((name, 0.3, 0.4) for name in names),
        reverse=draw(st.booleans()),
        after=kind == "GRU" and draw(st.booleans()),
        coupled=lstm and draw(st.booleans()),
        peepholes=lstm and draw(st.booleans()),
        lengths=draw(st.booleans()),
        clip=draw(st.sampled_from([0.0, 0.5])),
        projected=lstm and draw(st.booleans()),
    )


def case(
    cell: Cell, steps: int, batch: int, units: int, hidden: int, seed: int = 0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Operands of a kernel, and results in float64; ``hidden`` is for cells that project."""
    rng = np.random.default_rng(seed)
    hidden = hidden if cell.projected else units
    gates = GATES[cell.kind]
    width = panel_width(cell.kind, hidden, batch)
    panels = -(-hidden // width)

    def numbers(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.7).astype(np.float32)

    x = numbers(steps, batch, gates, panels * width)
    r = numbers(panels, units, gates, width) / np.float32(units**0.5)
    given = [x, r]
    plain = {"r": r.transpose(2, 1, 0, 3).reshape(gates, units, -1)[..., :hidden]}
    if cell.after:
        given.append(numbers(panels * width))
        plain["rb"] = given[-1][:hidden]
    if cell.peepholes:
        given.append(numbers(3, panels * width))
        plain["p"] = given[-1][:, :hidden]
    if cell.projected:
        wide = panel_width("RNN", units, batch)
        w = numbers(-(-units // wide), hidden, 1, wide) / np.float32(hidden**0.5)
        given.append(w)
        plain["w"] = w.transpose(1, 0, 2, 3).reshape(hidden, -1)[:, :units]
    given.append(numbers(batch, units))
    plain["h"] = given[-1]
    if cell.kind == "LSTM":
        given.append(numbers(batch, hidden))
        plain["c"] = given[-1]
    if cell.lengths:
        # Longer ones than the sequence end with it.
        given.append(rng.integers(0, steps + 2, batch).astype(np.int32))
        plain["lengths"] = np.minimum(given[-1], steps)
    wanted = _computed(cell, x[..., :hidden].astype(np.float64), plain)
    return given, wanted


def kernel(cell: Cell, given: list[np.ndarray], open_sizes: bool = False) -> tirx.PrimFunc:
    """The function that the importers make for such operands."""
    steps, batch = (tirx.Var(name, "int64") for name in ("steps", "batch"))

    def shape(position: int, array: np.ndarray) -> list[Any]:
        sizes: list[Any] = list(array.shape)
        if open_sizes and position == 0:
            sizes[:2] = [steps, batch]
        if open_sizes and position >= len(given) - cell.lengths - 1 - (cell.kind == "LSTM"):
            sizes[0] = batch
        return sizes

    operands = [
        relax.Var(f"v{i}", relax.TensorType(shape(i, array), str(array.dtype)))
        for i, array in enumerate(given)
    ]
    builder = relax.BlockBuilder()
    with builder.function("main", operands):
        builder.emit_func_output(builder.emit(call_recurrence(builder, cell, operands)))
    (found,) = [f for f in builder.get().functions.values() if isinstance(f, tirx.PrimFunc)]
    return found.with_attr("global_symbol", "kernel")


def _computed(cell: Cell, x: np.ndarray, v: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The results, step by step and row by row."""
    v = {name: a if name == "lengths" else a.astype(np.float64) for name, a in v.items()}
    steps, batch = x.shape[:2]
    acts = [lambda z, act=act: _activated(*act, z) for act in cell.activations]

    def gate(which: int, z: np.ndarray) -> np.ndarray:
        return acts[which](np.clip(z, -cell.clip, cell.clip) if cell.clip > 0 else z)

    y = np.zeros((steps, batch, v["h"].shape[1]))
    last = [v["h"].copy(), *([v["c"].copy()] if cell.kind == "LSTM" else [])]
    for b in range(batch):
        h, c = last[0][b], last[1][b] if cell.kind == "LSTM" else None
        length = int(v["lengths"][b]) if cell.lengths else steps
        for s in range(length):
            t = length - 1 - s if cell.reverse else s
            z = x[t, b] + np.einsum("k,gkn->gn", h, v["r"])
            if cell.kind == "RNN":
                h = gate(0, z[0])
            elif cell.kind == "GRU":
                update, reset = gate(0, z[0]), gate(0, z[1])
                if cell.after:
                    new = x[t, b, 2] + reset * (z[2] - x[t, b, 2] + v["rb"])
                else:
                    new = x[t, b, 2] + (reset * h) @ v["r"][2]
                h = (1 - update) * gate(1, new) + update * h
            else:
                p = v["p"] if cell.peepholes else np.zeros((3, 1))
                i = gate(0, z[0] + p[0] * c)
                f = 1 - i if cell.coupled else gate(0, z[2] + p[1] * c)
                c = f * c + i * gate(1, z[3])
                h = gate(0, z[1] + p[2] * c) * acts[2](c)
                h = h @ v["w"] if cell.projected else h
            y[t, b] = h
        last[0][b] = h
        if cell.kind == "LSTM":
            last[1][b] = c
    return [y, *last]


def _activated(name: str, alpha: float, beta: float, z: np.ndarray) -> np.ndarray:
    return {
        "Affine": lambda: alpha * z + beta,
        "Elu": lambda: np.where(z < 0, alpha * np.expm1(np.minimum(z, 0)), z),
        "HardSigmoid": lambda: np.clip(alpha * z + beta, 0, 1),
        "LeakyRelu": lambda: np.where(z < 0, alpha * z, z),
        "Relu": lambda: np.maximum(z, 0),
        "ScaledTanh": lambda: alpha * np.tanh(beta * z),
        "Sigmoid": lambda: 1 / (1 + np.exp(-z)),
        "Softplus": lambda: np.logaddexp(0, z),
        "Softsign": lambda: z / (1 + np.abs(z)),
        "Tanh": lambda: np.tanh(z),
        "ThresholdedRelu": lambda: np.where(z > alpha, z, 0),
    }[name]()
