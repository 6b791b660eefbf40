# ruff: noqa: E501
"""Relay's text: names, scopes, literals, nesting, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from import_support import compiled

import burnish
from burnish.compiler.importers.relay.graph import (
    Call,
    Constant,
    Global,
    Graph,
    If,
    Item,
    Let,
    Operator,
    RelayError,
    TensorType,
    Tuple,
    TupleType,
    Var,
)
from burnish.compiler.importers.relay.importer import import_relay
from burnish.compiler.importers.relay.model import RelayModel
from burnish.compiler.importers.relay.read import parse_relay

HEAD = '#[version = "0.0.5"]\n'
X = "Tensor[(2, 3), float32]"


def read(body: str, params: str = f"%x: {X}") -> RelayModel:
    return parse_relay(f"{HEAD}def @main({params}) {{\n{body}\n}}\n".encode(), name="net.relay")


def result(model: RelayModel, *inputs: np.ndarray) -> list[np.ndarray]:
    mod, _ = import_relay(model)
    return compiled(mod)(*inputs)


def calls(graph: Graph) -> list[str]:
    ops = [graph.nodes[n.op] for n in graph.nodes if isinstance(n, Call)]
    return [op.name for op in ops if isinstance(op, Operator)]


def test_longest_declared_name_wins() -> None:
    """``%input.1`` is a parameter where one is declared; else field 1 of ``%input``."""
    declared = read("  add(%input.1, %f.0.weight)", f"%input.1: {X}, %f.0.weight: {X}")
    assert not any(isinstance(n, Item) for n in declared.graph.nodes)
    field = read("  tanh(%input.1)", f"%input: ({X}, {X})")
    assert [n.index for n in field.graph.nodes if isinstance(n, Item)] == [1]
    both = read("  add(%input.1, %input.0)", f"%input: ({X}, {X}), %input.1: {X}")
    assert [n.index for n in both.graph.nodes if isinstance(n, Item)] == [0]


@pytest.mark.parametrize("name", ["onnx::Gemm_0", "/model/layer.0/MatMul", 'a"b c', "1", "x-y"])
def test_names_are_taken_raw(name: str) -> None:
    model = read(f"  %0 = add(%{name}, %{name});\n  tanh(%0)", f"%{name}: {X} /* ty={X} */")
    assert [var.name for var in model.inputs()] == [name]


def test_temporaries_with_common_beginnings() -> None:
    lines = [f"  %{i} = add(%{i - 1}, 1f);" for i in range(1, 13)]
    model = read("\n".join(["  %0 = tanh(%x);", *lines, "  multiply(%12, %1)"]))
    x = np.ones((2, 3), "float32")
    got = result(model, x)[0]
    np.testing.assert_allclose(got, (np.tanh(x) + 12) * (np.tanh(x) + 1), rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", np.int32(3)),
        ("-3i64", np.int64(-3)),
        ("7i16", np.int16(7)),
        ("2.5f", np.float32(2.5)),
        ("1e-12f", np.float32(1e-12)),
        ("-inff", np.float32(-np.inf)),
        ("1e+10f64", np.float64(1e10)),
        ("3f16", np.float16(3)),
        ("True", np.bool_(True)),
    ],
)
def test_numbers(text: str, value: np.generic) -> None:
    nodes = read(f"  ({text} /* ty=float32 */,)").graph.nodes
    (array,) = [n.array for n in nodes if isinstance(n, Constant)]
    assert array.dtype == value.dtype
    assert array.shape == ()
    assert array == value


def test_defaults_are_filled_in() -> None:
    model = read("  nn.conv2d(%x, %x, padding=[1, 1, 1, 1])")
    (call,) = [n for n in model.graph.nodes if isinstance(n, Call)]
    assert call.attrs["padding"] == (1, 1, 1, 1)
    assert call.attrs["strides"] == (1, 1)
    assert call.attrs["groups"] == 1
    assert call.attrs["data_layout"] == "NCHW"
    assert call.attrs["out_dtype"] == ""


def test_types() -> None:
    params = (
        f"%a: (Tensor[(?, 4i64), int8], (float32,), bool), %b: fn ({X}) -> ({X},), %c: List[{X}]"
    )
    a, b, c = read("  %a.0", params).parameters()
    assert a.type == TupleType.of(
        (
            TensorType((None, 4), "int8"),
            TupleType.of((TensorType((), "float32"),)),
            TensorType((), "bool"),
        )
    )
    assert c.type is None
    assert b.type is not None


def test_blocks_tuples_functions_and_branches(tmp_path: Path) -> None:
    """Built by the project's pipeline: TVM's own shares memory between branches."""
    body = """
  let %k: fn (Tensor[(2, 3), float32]) -> Tensor[(2, 3), float32] = fn (%q: Tensor[(2, 3), float32], Primitive=1, Composite="my.exp") {
    exp(%q)
  };
  %1 = (
    let %v = add(%x, 1f);
    (%k(%v), %v)
  );
  %4 = if (%c) {
    %2 = %1.0;
    tanh(%2)
  } else {
    %3 = %1.1;
    @helper(%3)
  };
  (%4, (%4,), ())
"""
    text = f"{HEAD}def @main(%x: {X}, %c: bool) {{{body}}}\n\ndef @helper(%q: {X}) -> {X} {{\n  negative(%q)\n}}\n"
    model = parse_relay(text.encode())
    kinds = {type(n) for n in model.graph.nodes}
    assert {Let, If, Tuple, Global, Var} <= kinds
    (tmp_path / "net.relay").write_text(text)
    built = burnish.compile(tmp_path / "net.relay")
    x = np.ones((2, 3), "float32")
    for flag, want in ((True, np.tanh(np.exp(x + 1))), (False, -(x + 1))):
        got = built(x, np.asarray(flag))
        np.testing.assert_allclose(got[0], want, rtol=1e-6)
        np.testing.assert_allclose(got[1][0], want, rtol=1e-6)
        assert got[2] == ()


def test_a_lone_function_and_unused_definitions() -> None:
    """``Function.astext()``, and a module whose prelude nothing uses."""
    prelude = "type List[A] {\n  Cons(A, List[A]),\n  Nil,\n}\n\ndef @map[A](%f: fn (A) -> A) {\n  match (%f) {\n  }\n}\n\n"
    for text in (
        f"fn (%x: {X}) {{\n  tanh(%x)\n}}\n",
        f"{prelude}def @main(%x: {X}) {{\n  tanh(%x)\n}}\n",
    ):
        assert calls(parse_relay((HEAD + text).encode()).graph) == ["tanh"]


def test_thousands_of_nested_expressions() -> None:
    """Nesting is limited by memory, not by Python's stack."""
    deep = 3000
    model = read(f"  {'tanh(' * deep}%x{')' * deep}")
    assert len(calls(model.graph)) == deep
    lets = "".join(f"  let %v{i} = tanh({f'%v{i - 1}' if i else '%x'});\n" for i in range(deep))
    model = read(f"{lets}  %v{deep - 1}")
    assert sum(isinstance(n, Let) for n in model.graph.nodes) == deep
    mod, _ = import_relay(model)
    assert len(mod["main"].body.blocks[0].bindings) >= deep


def test_lossy_numbers_are_told() -> None:
    assert read("  multiply(%x, 0.5f)").graph.warnings == ()
    (said,) = read("  multiply(%x, 0.123457f)").graph.warnings
    assert "1 numbers have six digits" in said
    assert "save_json" in said


LOOP = f"""
  let %loop: fn ({X}) -> {X} = fn (%k: {X}) -> {X} {{
    %0 = add(%k, 1f);
    %loop(%0)
  }};
  %loop(%x)"""
DOUBLING = "".join(
    f"  let %f{i} = fn (%y{i}: {X}) {{\n    %{i} = %f{i - 1}(%y{i});\n    %f{i - 1}(%{i})\n  }};\n"
    for i in range(1, 30)
)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("  add(%x, %y)", r"line 3: a declared name after % is expected, got 'y\)'"),
        ("  add(%x, %x1)", "a declared name after % is expected"),
        ("  add(%x, %x", "is expected, got"),
        ("  add(%x, %x);", "'}' is expected"),
        ("  tanh(%x) tanh(%x)", "'}' is expected"),
        (
            "  nn.softmax(%x, axis=-1, colour=2)",
            "nn.softmax has no attribute 'colour'; it has axis",
        ),
        ('  nn.softmax(%x, axis="one")', "nn.softmax: the attribute axis must be int, got 'one'"),
        ("  add(%x, meta[relay.Constant][0])", "metadata section is missing, and the constants"),
        ("  @other(%x)", "calls @other, which it does not define"),
        ("  match (%x) {\n  }", "algebraic data types and match are not supported"),
        ("  Cons(%x, Nil)", "algebraic data types and match are not supported"),
        ("  ref(%x)", "references are not supported"),
        ("  reshape(%x, newshape=" + "[" * 40 + "]" * 40 + ")", "attribute values nest too deep"),
        ("  add(%x, 99999999999i16)", "the number 99999999999 is no int16"),
    ],
)
def test_errors_of_reading(body: str, said: str) -> None:
    with pytest.raises(RelayError, match=said):
        read(body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (LOOP, "a function calls itself, which is how Relay writes loops"),
        (
            f"  let %f0 = fn (%y: {X}) {{\n    tanh(%y)\n  }};\n{DOUBLING}  %f29(%x)",
            "written out, the model has more than",
        ),
        ("  %x.0", "field 0 is taken of no tuple"),
        ("  %0 = (%x, %x);\n  %0.2", "field 2 is taken of a tuple of 2"),
        (
            "  %0 = fn (%a: float32) {\n    %a\n  };\n  %0(%x, %x)",
            "a function of 1 parameters gets 2",
        ),
        ("  %x(%x)", "what is called is no function"),
        ("  fn (%a: float32) {\n    %a\n  }", "the model returns a function"),
        ("  ()", "returns nothing"),
        (
            "  %0 = (%x, %x);\n  tanh(%0)",
            r"tanh at line 4: a tensor is expected as argument, got a tuple",
        ),
        (
            "  reshape(%x, newshape=[-1, -1])",
            "reshape at line 3: the target .* leaves two sizes open",
        ),
        (
            "  transpose(%x, axes=[0, 5])",
            "transpose at line 3: axis 5 is outside a tensor of rank 2",
        ),
        ("  concatenate(%x, axis=0)", "a tuple of tensors is expected"),
        ("  dyn.reshape(%x, %n, newshape=[])", "depends on the values of the inputs"),
        ("  qnn.dequantize(%x, %x, 0)", "a scale must be a constant"),
    ],
)
def test_errors_of_conversion(body: str, said: str) -> None:
    model = read(body, f"%x: {X}, %n: Tensor[(2), int64]")
    with pytest.raises(RelayError, match=said):
        import_relay(model)


def test_the_text_says_that_its_metadata_was_omitted() -> None:
    text = (
        f"{HEAD}def @main(%x: {X}) {{\n  add(%x, meta[relay.Constant][0])\n}}\n"
        "/* For debugging purposes the metadata section has been omitted.\n */\n"
    )
    with pytest.raises(RelayError, match="was omitted when it was printed") as found:
        parse_relay(text.encode())
    assert "show_meta_data=True" in str(found.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\xff\xfe", "is no text in UTF-8"),
        (b"hello\n", "has no Relay function"),
        (b"def @a() {\n  ()\n}\ndef @b() {\n  ()\n}\n", "none of the functions is @main: a, b"),
        (f"def @main(%x: {'(' * 99}".encode(), "types nest deeper than 64"),
    ],
)
def test_errors_of_files(text: bytes, said: str) -> None:
    with pytest.raises(RelayError, match=said):
        parse_relay(text)


def test_a_cut_text_is_an_error_at_every_place() -> None:
    body = "  %0 = nn.softmax(%x, axis=-1) /* ty=Tensor[(2, 3), float32] */;\n  (%0, 1.5f)\n"
    text = f"{HEAD}def @main(%x: {X}) {{\n{body}}}"
    for end in range(len(text)):
        with pytest.raises(RelayError):
            parse_relay(text[:end].encode())
