"""LSTM, GRU and RNN of ONNX against ONNX Runtime, over directions, options and open sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from example_counts import COMPILED
from hypothesis import given
from hypothesis import strategies as st
from import_support import compiled
from kernel_support import Built, lowered
from onnx import ModelProto, TensorProto, helper, numpy_helper

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers import import_model
from burnish.passes.params import weight_vars

FLOAT, INT32 = TensorProto.FLOAT, TensorProto.INT32
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
# (name, takes alpha, takes beta) of the functions that ONNX Runtime has.
ACTIVATIONS = [
    ("Relu", 0, 0), ("Tanh", 0, 0), ("Sigmoid", 0, 0), ("Affine", 1, 1), ("LeakyRelu", 1, 0),
    ("ThresholdedRelu", 1, 0), ("ScaledTanh", 1, 1), ("HardSigmoid", 1, 1), ("Elu", 1, 0),
    ("Softsign", 0, 0), ("Softplus", 0, 0),
]  # fmt: skip


def layer(
    kind: str,
    rng: np.random.Generator,
    sizes: tuple[int, int, int, int],
    *,
    ways: int = 1,
    optional: str = "",
    frozen: bool = True,
    opset: int = 17,
    **attrs: Any,
) -> tuple[ModelProto, dict[str, np.ndarray]]:
    """A model of one node, and its inputs; ``optional`` names inputs to give: b, l, h, c, p."""
    steps, batch, features, units = sizes
    gates = GATES[kind]

    def numbers(*shape: int) -> np.ndarray:
        # Small enough that rounding dies out over the steps.
        return (rng.standard_normal(shape) * 0.6 / units**0.5).astype(np.float32)

    values = {
        "x": numbers(steps, batch, features) * 2,
        "w": numbers(ways, gates * units, features),
        "r": numbers(ways, gates * units, units),
        "b": numbers(ways, 2 * gates * units),
        "l": rng.integers(1, steps + 1, batch).astype(np.int32),
        "h": numbers(ways, batch, units),
        "c": numbers(ways, batch, units),
        "p": numbers(ways, 3 * units),
    }
    names = ["x", "w", "r", *(n if n in optional else "" for n in "blhcp")]
    if kind != "LSTM":
        names = names[:6]
    while not names[-1]:
        names.pop()
    inputs = [n for n in names if n and not (frozen and n in "wrbp")]
    outputs = ["y", "yh", "yc"][: 3 if kind == "LSTM" else 2]
    node = helper.make_node(
        kind, names, outputs, hidden_size=units,
        direction=attrs.pop("direction", "bidirectional" if ways == 2 else "forward"), **attrs,
    )  # fmt: skip

    def info(name: str) -> Any:
        dtype = INT32 if name == "l" else FLOAT
        shape: list[Any] = list(values[name].shape)
        return helper.make_tensor_value_info(name, dtype, shape)

    graph = helper.make_graph(
        [node],
        "g",
        [info(n) for n in inputs],
        [helper.make_tensor_value_info(n, FLOAT, None) for n in outputs],
        [numpy_helper.from_array(values[n], n) for n in names if n and n not in inputs],
    )
    opsets = [helper.make_opsetid("", opset)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return proto, {n: values[n] for n in inputs}


def runtime(proto: ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


def close(got: list[np.ndarray], want: list[np.ndarray]) -> None:
    assert [(a.shape, a.dtype) for a in got] == [(b.shape, b.dtype) for b in want]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def check(proto: ModelProto, inputs: dict[str, np.ndarray], *, ours: bool = True) -> None:
    """Imported and built, by the pipeline or by TVM's own, it gives what ONNX Runtime gives."""
    read = import_model(proto)
    build = Built(lowered(read.mod)) if ours else compiled(read.mod)
    close(build(*inputs.values()), runtime(proto, inputs))


@pytest.mark.parametrize("ways", [2, pytest.param(1, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("kind", GATES)
def test_every_cell(kind: str, ways: int) -> None:
    proto, inputs = layer(kind, np.random.default_rng(0), (5, 3, 7, 20), ways=ways, optional="b")
    check(proto, inputs)
    names = {var.name for var in weight_vars(import_model(proto).mod)}
    assert {"w.forward", "r.forward"} <= names
    assert "w" not in names


@pytest.mark.parametrize("kind", GATES)
def test_every_option_at_once(kind: str) -> None:
    more: dict[str, Any] = {"input_forget": 1} if kind == "LSTM" else {}
    proto, inputs = layer(
        kind, np.random.default_rng(1), (6, 2, 5, 33), ways=2, optional="blhcp", clip=0.7, **more
    )
    check(proto, inputs)
    check(proto, inputs, ours=False)


@pytest.mark.parametrize(("name", "alpha", "beta"), ACTIVATIONS)
def test_every_activation(name: str, alpha: int, beta: int) -> None:
    numbers: dict[str, Any] = {}
    if alpha:
        numbers["activation_alpha"] = [0.3] * 2
    if beta:
        numbers["activation_beta"] = [0.7] * 2
    proto, inputs = layer(
        "GRU", np.random.default_rng(2), (4, 2, 3, 9), optional="b",
        activations=[name, name.lower()], **numbers,
    )  # fmt: skip
    check(proto, inputs)


@pytest.mark.parametrize("name", ["LeakyRelu", "HardSigmoid", "Elu"])
def test_activations_have_defaults(name: str) -> None:
    """Not ThresholdedRelu: ONNX says 1, as the operator has it; ONNX Runtime takes 0."""
    proto, inputs = layer("RNN", np.random.default_rng(2), (4, 2, 3, 9), activations=[name])
    check(proto, inputs)


@pytest.mark.heavy
@COMPILED
@given(st.data())
def test_any_layer_is_what_onnx_runtime_gives(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(GATES)))
    sizes = tuple(data.draw(st.integers(1, n), label="size") for n in (7, 9, 12, 70))
    direction = data.draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    ways = 2 if direction == "bidirectional" else 1
    optional = "".join(n for n in "blhcp" if data.draw(st.booleans()))
    attrs: dict[str, Any] = {"direction": direction}
    if kind == "GRU":
        attrs["linear_before_reset"] = data.draw(st.integers(0, 1))
    if kind == "LSTM":
        attrs["input_forget"] = data.draw(st.integers(0, 1))
    if data.draw(st.booleans()):
        attrs["clip"] = 0.5
    if data.draw(st.booleans()):
        count = FUNCTIONS[kind] * ways
        drawn = [data.draw(st.sampled_from(ACTIVATIONS)) for _ in range(count)]
        attrs["activations"] = [name for name, _, _ in drawn]
        for index, word in ((1, "alpha"), (2, "beta")):
            numbers = [0.1 + 0.1 * index * i for i, d in enumerate(drawn) if d[index]]
            attrs |= {f"activation_{word}": numbers} if numbers else {}
    proto, inputs = layer(
        kind, np.random.default_rng(data.draw(st.integers(0, 99))), sizes, ways=ways,
        optional=optional, frozen=data.draw(st.booleans()),
        opset=data.draw(st.sampled_from([7, 14, 22])), **attrs,
    )  # fmt: skip
    check(proto, inputs)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", GATES)
def test_steps_and_batch_may_stay_open(kind: str) -> None:
    rng = np.random.default_rng(3)
    proto, _ = layer(kind, rng, (5, 3, 4, 40), ways=2, optional="bl")
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "steps"
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "batch"
    proto.graph.input[1].type.tensor_type.shape.dim[0].dim_param = "batch"
    read = import_model(proto, dynamic={"x": {0: "steps", 1: "batch"}, "l": {0: "batch"}})
    build = Built(lowered(read.mod))
    for steps, batch in ((5, 3), (1, 1), (90, 7), (2, 16)):
        x = rng.standard_normal((steps, batch, 4)).astype(np.float32)
        lengths = rng.integers(1, steps + 1, batch).astype(np.int32)
        close(build(x, lengths), runtime(proto, {"x": x, "l": lengths}))


@pytest.mark.parametrize("kind", GATES)
def test_batches_in_front(kind: str) -> None:
    """ONNX Runtime has no ``layout=1``: it is the other layout with its axes turned."""
    plain, inputs = layer(kind, np.random.default_rng(4), (5, 3, 4, 18), ways=2, optional="bh")
    want = runtime(plain, inputs)
    proto, _ = layer(kind, np.random.default_rng(4), (5, 3, 4, 18), ways=2, optional="bh")
    proto.graph.node[0].attribute.append(helper.make_attribute("layout", 1))
    for value in proto.graph.input:
        dims = value.type.tensor_type.shape.dim
        dims[0].dim_value, dims[1].dim_value = dims[1].dim_value, dims[0].dim_value
    turned = [np.ascontiguousarray(a.swapaxes(0, 1)) for a in inputs.values()]
    got = Built(lowered(import_model(proto, fold=False).mod))(*turned)
    axes = [(2, 0, 1, 3), *[(1, 0, 2)] * 2]
    close(got, [a.transpose(t) for a, t in zip(want, axes, strict=False)])


def test_lengths_out_of_range_read_nothing_else() -> None:
    """Where ONNX Runtime refuses to run, longer is all and less than nothing is nothing."""
    proto, inputs = layer("LSTM", np.random.default_rng(5), (4, 2, 3, 8), ways=2, optional="l")
    build = Built(lowered(import_model(proto).mod))
    y, h, _ = build(inputs["x"], np.array([9, -3], np.int32))
    close([y[:, :, :1]], [build(inputs["x"], np.array([4, 4], np.int32))[0][:, :, :1]])
    assert not y[:, :, 1].any()
    assert not h[:, 1].any()


def test_many_steps_are_one_kernel() -> None:
    proto, inputs = layer("LSTM", np.random.default_rng(6), (300, 1, 16, 48), optional="b")
    build = Built(lowered(import_model(proto).mod))
    close(build(*inputs.values()), runtime(proto, inputs))
    assert len(build.kernels) <= 5


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"activations": ["Tanh", "Sign"]}, r"GRU.*'Sign' is none of Affine"),
        ({"activations": ["Tanh", "Affine"]}, r"Affine has no activation_alpha: give one"),
        ({"activations": ["Tanh"]}, r"1 activations where 2 are needed"),
    ],
)
def test_refusals_say_why(attrs: dict[str, Any], message: str) -> None:
    proto, _ = layer("GRU", np.random.default_rng(7), (3, 1, 2, 4), **attrs)
    with pytest.raises(ImportModelError, match=message):
        import_model(proto, fold=False)
