"""Recurrent layers and loops of TFLite, one step after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax, tirx

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.tflite.schema import options, tensor_name

op = relax.op
MOST_OPERATORS = 20_000


def while_(importer: Any, operator: Any) -> None:
    """A loop whose number of steps is known at import, written out step by step.

    Keras's recurrent layers are such loops: their counters are constants. Weights are shared
    between the steps.
    """
    found = options(operator, "WhileOptions")
    model = importer.model
    count = model.SubgraphsLength()
    if not (0 < found.CondSubgraphIndex() < count and 0 < found.BodySubgraphIndex() < count):
        raise ValueError("it names a subgraph that the file has not")
    condition = model.Subgraphs(found.CondSubgraphIndex())
    body = model.Subgraphs(found.BodySubgraphIndex())
    state = [_taken(importer, tensor) for tensor in importer.get_input_tensors(operator)]
    written = 0
    while True:
        going = _run(importer, condition, state)
        if len(going) != 1 or not isinstance(going[0], np.ndarray):
            raise ImportModelError(
                "WHILE: its number of steps is known only at run time, and a loop is written out "
                "step by step: export the model with a fixed number of steps, or give its .keras "
                "file",
                op="WHILE",
            )
        if not going[0].ravel()[0]:
            break
        written += body.OperatorsLength()
        if written > MOST_OPERATORS:
            raise ImportModelError(
                f"WHILE: written out it has more than {MOST_OPERATORS} operators: export the model "
                "for fewer steps, or give its .keras file",
                op="WHILE",
            )
        state = _run(importer, body, state)
    for tensor, value in zip(importer.get_output_tensors(operator), state, strict=True):
        if isinstance(value, np.ndarray):
            importer.set_known(tensor, value)
        else:
            key = tensor_name(importer.subgraph, tensor.tensor_idx)
            importer.exp_tab.set_expr(key, value, force_override=True)


def _taken(importer: Any, tensor: Any) -> Any:
    """A known value where there is one, else the expression."""
    value = importer.known_value(tensor)
    return importer.value(tensor) if value is None else value


def _run(importer: Any, graph: Any, state: list[Any]) -> list[Any]:
    """One pass through a subgraph, in place."""
    inner = type(importer)(
        importer.model, graph, importer.exp_tab.inner(), importer.bb, importer.conversion_state
    )
    inputs = inner.get_tensors(graph.InputsAsNumpy())
    for tensor, value in zip(inputs, state, strict=True):
        if isinstance(value, np.ndarray):
            inner.set_known(tensor, value)
        else:
            inner.exp_tab.set_expr(tensor_name(graph, tensor.tensor_idx), value)
    inner.convert_op_to_relax()
    return [_taken(inner, tensor) for tensor in inner.get_tensors(graph.OutputsAsNumpy())]


def sequence_lstm(importer: Any, operator: Any) -> relax.Expr:
    """``UNIDIRECTIONAL_SEQUENCE_LSTM``: 20 or 24 inputs as in TFLite's schema, ``[N, T, I]`` (or
    time first) -> ``[N, T, U]``; peepholes, projection and a coupled input gate included."""
    found = options(operator, "UnidirectionalSequenceLSTMOptions")
    tensors = importer.get_input_tensors(operator)
    if any(tensor.tensor_idx >= 0 for tensor in tensors[20:24]):
        raise ValueError("layer norm inside the LSTM: export it as an ordinary layer")
    given = [importer.value(t) if t.tensor_idx >= 0 else None for t in tensors[:20]]
    emit, activate = importer.emit, importer.convert_fused_activation_function
    steps = _steps(importer, given[0], bool(found.TimeMajor()))
    turned = [None if w is None else emit(op.permute_dims(w)) for w in given[1:9]]
    h, c = given[18], given[19]
    if given[16] is not None:
        projection = emit(op.permute_dims(given[16]))
    outputs = []

    def gate(which: int, x: relax.Expr, cell: relax.Expr | None) -> relax.Expr:
        """Input, forget, cell and output are 0 to 3; ``cell`` is what a peephole sees."""
        total = op.add(emit(op.matmul(x, turned[which])), emit(op.matmul(h, turned[4 + which])))
        peephole = None if which == 2 else given[(9, 10, -1, 11)[which]]
        if peephole is not None and cell is not None:
            total = op.add(emit(total), emit(op.multiply(cell, peephole)))
        if given[12 + which] is not None:
            total = op.add(emit(total), given[12 + which])
        return emit(total)

    for x in steps:
        forget = emit(op.sigmoid(gate(1, x, c)))
        if turned[0] is None:
            enter = emit(op.subtract(relax.const(1.0, "float32"), forget))
        else:
            enter = emit(op.sigmoid(gate(0, x, c)))
        fresh = emit(activate(gate(2, x, None), found.FusedActivationFunction()))
        c = emit(op.add(emit(op.multiply(forget, c)), emit(op.multiply(enter, fresh))))
        if found.CellClip() > 0:
            c = emit(op.clip(c, -found.CellClip(), found.CellClip()))
        shown = emit(op.sigmoid(gate(3, x, c)))
        h = emit(op.multiply(shown, emit(activate(c, found.FusedActivationFunction()))))
        if given[16] is not None:
            h = emit(op.matmul(h, projection))
            if given[17] is not None:
                h = emit(op.add(h, given[17]))
            if found.ProjClip() > 0:
                h = emit(op.clip(h, -found.ProjClip(), found.ProjClip()))
        outputs.append(h)
    return op.stack(outputs, axis=0 if found.TimeMajor() else 1)


def _steps(importer: Any, x: relax.Expr, time_major: bool) -> list[relax.Expr]:
    """The input of each step."""
    axis = 0 if time_major else 1
    count = x.ty.shape[axis]
    if not isinstance(count, tirx.IntImm):
        raise ValueError(f"the number of steps, {count}, is open, and steps are written out")
    if int(count) * 20 > MOST_OPERATORS:
        raise ValueError(f"{int(count)} steps are more than are written out")
    index = [relax.const(np.array(step), "int64") for step in range(int(count))]
    return [importer.emit(op.take(x, at, axis=axis, mode="fast")) for at in index]


LOOPS: dict[str, Callable[[Any, Any], relax.Expr | None]] = {
    "UNIDIRECTIONAL_SEQUENCE_LSTM": sequence_lstm,
    "WHILE": while_,
}
