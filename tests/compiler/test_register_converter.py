"""Converters of the user's own for PyTorch operators: used, held to torch's types, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import tvm
from import_support import compiled, worst
from torch import Tensor, nn
from tvm import relax, te

import burnish
from burnish.compiler import registry
from burnish.compiler.cache_key import NotCachedError, cache_key
from burnish.compiler.config import CompileConfig
from burnish.compiler.errors import ConfigError, ImportModelError, UnsupportedOperatorError
from burnish.compiler.importers import import_model, load_model
from burnish.targets.target import parse_target
from relax_support import op_names

X = torch.linspace(-3, 3, 12).reshape(3, 4)


@torch.library.custom_op("burnish_test::softcap", mutates_args=())
def softcap(x: Tensor, cap: float = 2.0, *, shift: float = 0.0) -> Tensor:
    return torch.tanh(x / cap) * cap + shift


@softcap.register_fake
def _(x: Tensor, cap: float = 2.0, *, shift: float = 0.0) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("burnish_test::halves", mutates_args=())
def halves(x: Tensor, names: list[int]) -> tuple[Tensor, Tensor]:
    return x[:, : names[0]].clone(), x[:, names[0] :].clone()


@halves.register_fake
def _(x: Tensor, names: list[int]) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], names[0]), x.new_empty(x.shape[0], x.shape[1] - names[0])


class Net(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        a, b = halves(softcap(x, 1.5) + softcap(x, shift=0.5), [1])
        return torch.nn.functional.gelu(a), b


def cap_converter(builder, x, cap, shift):
    def compute(x: te.Tensor) -> te.Tensor:
        return te.compute(x.shape, lambda *i: te.tanh(x(*i) / cap) * cap + shift)

    return builder.call_te(compute, x)


def halves_converter(builder, x, names):
    return tuple(builder.emit(relax.op.split(x, names, axis=1)))


@pytest.fixture(autouse=True)
def own_converters() -> Iterator[None]:
    """What a test registers goes with it."""
    before = dict(registry.converters)
    yield
    registry.converters.clear()
    registry.converters.update(before)


def test_custom_operators_become_what_the_user_says() -> None:
    with pytest.raises(UnsupportedOperatorError, match="2 torch operators cannot be imported"):
        import_model(Net().eval(), (X,))
    burnish.register_converter("burnish_test::softcap", cap_converter)
    burnish.register_converter("burnish_test::halves.default", halves_converter)
    read = import_model(Net().eval(), (X,), dynamic={"x": {0: "rows"}})
    want = Net()(X)
    assert worst(compiled(read.mod)(X.numpy()), [t.numpy() for t in want]) < 1e-6
    model = burnish.compile(Net().eval(), (X,), dynamic={"x": {0: "rows"}})
    five = torch.randn(5, 4)
    got = model(five)
    for mine, theirs in zip(got, Net()(five), strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_operators_of_torch_can_be_given_another_form() -> None:
    burnish.register_converter("aten::gelu", lambda builder, x, approximate: relax.op.nn.relu(x))
    assert op_names(import_model(nn.GELU().eval(), (X,)).mod) == ["nn.relu"]
    # An operator that torch would take apart is kept whole.
    burnish.register_converter("aten::mish", lambda builder, x: relax.op.tanh(x))
    assert op_names(import_model(nn.Mish().eval(), (X,)).mod) == ["tanh"]


def test_models_that_need_them_are_not_cached() -> None:
    burnish.register_converter("burnish_test::softcap", cap_converter)
    loaded = load_model(nn.Linear(4, 2).eval(), (X,))
    # The tests' own pass context would do, too.
    with tvm.transform.PassContext(), pytest.raises(NotCachedError, match="converters of your own"):
        cache_key(loaded, (X,), None, parse_target("cpu"), CompileConfig())


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda b, x, cap, shift: None, "must return 1 Relax expression, got None"),
        (lambda b, x, cap, shift: (x, x), "must return 1 Relax expression, got"),
        (lambda b, x, cap, shift: relax.op.sum(x), r"gives shape .*, torch gives \[3, 4\]"),
        (lambda b, x, cap, shift: relax.op.astype(x, "int32"), "gives int32 where torch gives flo"),
        (lambda b, x: x, "takes 2 positional arguments but 3 were given|unexpected keyword"),
    ],
)
def test_what_a_converter_gives_is_held_to_torch(fn, message: str) -> None:
    burnish.register_converter("burnish_test::softcap", fn)
    burnish.register_converter("burnish_test::halves", halves_converter)
    with pytest.raises(ImportModelError, match=message) as caught:
        import_model(Net().eval(), (X,))
    assert "test_register_converter.py:" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "fn", "message"),
    [
        (
            "burnish_test::softcap",
            3,
            "converter of 'burnish_test::softcap' must be callable",
        ),
        ("softcap", len, "'softcap' names no PyTorch operator: write it like 'my::op'"),
        (3, len, "3 names no PyTorch operator"),
        ("nowhere::softcap", len, "no operator 'nowhere::softcap' and no namespace 'nowhere'"),
        ("burnish_test::sofcap", len, r"in the namespace 'burnish_test' \(near: burnish_test::sof"),
        ("aten::gelu.nothing", len, "knows no operator 'aten::gelu.nothing'"),
    ],
)
def test_registrations_refused(name, fn, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        burnish.register_converter(name, fn)


def test_twice_needs_replace() -> None:
    burnish.register_converter("burnish_test::softcap", cap_converter)
    with pytest.raises(ConfigError, match="registered already; pass replace=True"):
        burnish.register_converter("burnish_test::softcap", cap_converter)
    burnish.register_converter("burnish_test::softcap", lambda b, x, cap, shift: x, replace=True)


@pytest.fixture
def own_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """No converter of ONNX operators outlives its test."""
    monkeypatch.setattr(registry, "onnx_converters", {})


def _onnx(tmp_path: Path, op: str, domain: str, version: int) -> Path:
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [4]) for n in "xy")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op, ["x"], ["y"], domain=domain)], "g", [x], [y]
    )
    sets = {"": 18, domain: version}
    imports = [onnx.helper.make_opsetid(name, number) for name, number in sets.items()]
    path = tmp_path / "m.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=imports, ir_version=9), path)
    return path


@pytest.mark.usefixtures("own_onnx")
def test_onnx_operator_of_a_domain_of_ones_own(tmp_path: Path) -> None:
    path = _onnx(tmp_path, "Twice", "com.example", 3)
    with pytest.raises(UnsupportedOperatorError, match=r"com\.example"):
        import_model(path)
    for since, factor in ((1, 2.0), (3, 3.0), (4, 4.0)):
        burnish.register_converter(
            "com.example::Twice",
            lambda node, factor=factor: relax.op.multiply(
                node.inputs[0], relax.const(factor, "float32")
            ),
            format="onnx",
            since=since,
        )
    x = np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(compiled(import_model(path).mod)(x)[0], 3 * x)
    loaded = load_model(path)
    with tvm.transform.PassContext(), pytest.raises(NotCachedError, match="converters of your own"):
        cache_key(loaded, None, None, parse_target("cpu"), CompileConfig())


@pytest.mark.usefixtures("own_onnx")
def test_onnx_operator_given_another_form(tmp_path: Path) -> None:
    seen = []

    def convert(node):
        seen.append(node.op)
        return None if node.op == "Relu" else relax.op.negative(node.inputs[0])

    for op in ("Relu", "Abs"):
        burnish.register_converter(f"ai.onnx::{op}", convert, format="onnx")
    x = np.asarray([-1, 2, -3, 4], np.float32)
    for op, want in (("Relu", np.maximum(x, 0)), ("Abs", -x)):
        got = compiled(import_model(onnx.load(_onnx(tmp_path, op, "", 18))).mod)(x)[0]
        np.testing.assert_array_equal(got, want)
    assert seen == ["Relu", "Abs"]


@pytest.mark.usefixtures("own_onnx")
def test_what_an_onnx_registration_must_be() -> None:
    for name in ("Twice", "::Twice", "com.example::", "a b::Twice", 7):
        with pytest.raises(ConfigError, match=r"names no ONNX operator: write it like 'com.exa"):
            burnish.register_converter(name, len, format="onnx")
    with pytest.raises(ConfigError, match="format 'tf' is unknown; known: torch, onnx"):
        burnish.register_converter("a::b", len, format="tf")
    burnish.register_converter("a.b::C", len, format="onnx")
    with pytest.raises(ConfigError, match=r"'a.b::C' since 1 is registered already"):
        burnish.register_converter("a.b::C", len, format="onnx")
    burnish.register_converter("a.b::C", len, format="onnx", replace=True)
    burnish.register_converter("a.b::C", len, format="onnx", since=2)
