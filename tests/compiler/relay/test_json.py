# ruff: noqa: E501
"""Relay's JSON and parameter files: damaged, lying, and odd ones."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from relay_fixtures import network, operators

from burnish.compiler.errors import ImportModelError, UnsupportedOperatorError
from burnish.compiler.importers.relay.arrays import decode_array, read_params
from burnish.compiler.importers.relay.graph import RelayError
from burnish.compiler.importers.relay.importer import declared_inputs, import_relay
from burnish.compiler.importers.relay.read import parse_relay

Edit = Callable[[dict[str, Any]], None]


def edited(name: str, *edits: Edit) -> bytes:
    document = json.loads(operators()[name].json)
    for edit in edits:
        edit(document)
    return json.dumps(document).encode()


def nodes(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    return [node for node in document["nodes"] if node["type_key"] == key]


def number(document: dict[str, Any], key: str) -> int:
    return next(i for i, node in enumerate(document["nodes"]) if node["type_key"] == key)


def attribute(key: str, name: str, value: str) -> Edit:
    return lambda document: nodes(document, key)[0]["attrs"].update({name: value})


def renamed(old: str, new: str) -> Edit:
    def edit(document: dict[str, Any]) -> None:
        for node in nodes(document, "Op"):
            if node["repr_str"] == old:
                node["repr_str"] = new

    return edit


def cyclic(document: dict[str, Any]) -> None:
    at = number(document, "relay.Call")
    args = document["nodes"][int(document["nodes"][at]["attrs"]["args"])]
    args["data"] = [at]


def retyped(key: str, new: str) -> Edit:
    return lambda document: nodes(document, key)[0].update(type_key=new)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (cyclic, r"has a cycle: node \d+ contains itself by way of node \d+"),
        (attribute("relay.Call", "op", "1"), "where an expression is expected"),
        (attribute("relay.Call", "op", "0"), r"\(relay.Call\) lacks op"),
        (attribute("relay.Call", "op", "99999"), r"names node 99999; there are \d+"),
        (attribute("relay.Call", "op", "-1"), "names node -1"),
        (attribute("relay.Call", "op", "x"), "op must be a number, got 'x'"),
        (attribute("relay.Call", "args", "1"), "is IRModule, where Array is expected"),
        (attribute("relay.attrs.SoftmaxAttrs", "axis", "a"), "axis must be a number"),
        (attribute("relay.Var", "vid", "1"), "is IRModule, where relay.Id is expected"),
        (attribute("relay.TensorType", "shape", "0"), "is null, where Array is expected"),
        (retyped("relay.Call", "relay.Match"), "algebraic data types and match are not supported"),
        (retyped("relay.Call", "relay.RefCreate"), "references are not supported"),
        (retyped("relay.Function", "relax.expr.Function"), "is a module of Relax or TIR, no Relay"),
        (retyped("IRModule", "Array"), "holds Array, no module"),
        (lambda d: d.update(root=0), "the root 0 is no node"),
        (lambda d: d.update(nodes=3), "it has no list of nodes"),
        (lambda d: d["nodes"].__setitem__(2, 7), "node 2 has no type_key"),
        (lambda d: nodes(d, "relay.Call")[0].update(attrs=3), "has no attributes"),
        (lambda d: nodes(d, "Map")[0]["data"].pop(), "is a map with a key that has no value"),
    ],
)
def test_damaged_modules(edit: Edit, said: str) -> None:
    with pytest.raises(RelayError, match=said):
        parse_relay(edited("nn.softmax", edit), name="net.json")


def test_unknown_operators_are_told_all_at_once() -> None:
    document = json.loads(network("mlp").json)
    renamed("nn.relu", "random.threefry_split")(document)
    renamed("nn.softmax", "my.softmax")(document)
    renamed("nn.bias_add", "my.bias")(document)
    model = parse_relay(json.dumps(document).encode(), network("mlp").params)
    with pytest.raises(UnsupportedOperatorError) as found:
        import_relay(model)
    rows = {item.name: item for item in found.value.operators}
    assert {name: item.count for name, item in rows.items()} == {
        "my.bias": 3,
        "my.softmax": 1,
        "random.threefry_split": 2,
    }
    said = str(found.value)
    assert said.startswith("3 Relay operators cannot be imported: my.bias x3 (node ")
    assert "not an operator of TVM 0.19" in said
    assert "write it with other operators of Relay" in said
    assert "random numbers are not supported; pass them as an input" in said


def blob(array: np.ndarray, **changes: Any) -> bytes:
    fields = {"magic": 0xDD5E40F096B4A13F, "rank": array.ndim, "code": 2, "bits": 32, "lanes": 1}
    fields |= {"shape": array.shape, "bytes": array.nbytes} | changes
    head = struct.pack("<QQiii", fields["magic"], 0, 1, 0, fields["rank"])
    kind = struct.pack("<BBH", fields["code"], fields["bits"], fields["lanes"])
    sizes = struct.pack(f"<{len(fields['shape'])}q", *fields["shape"])
    return head + kind + sizes + struct.pack("<q", fields["bytes"]) + array.tobytes()


ONES = np.ones((2, 3), "float32")


def test_arrays_are_read() -> None:
    got = decode_array(base64.b64encode(blob(ONES)).decode(), "array 0")
    np.testing.assert_array_equal(got, ONES)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (blob(ONES)[:-1], "array 0 is truncated: 24 bytes are declared at byte 56, 23 are there"),
        (blob(ONES) + b"x", "has 1 bytes after its array"),
        (blob(ONES, shape=(2, 4)), r"24 bytes are declared for an array of shape \(2, 4\)"),
        (blob(ONES, bytes=23), "23 bytes are declared"),
        (blob(ONES, shape=(2**40, 2**40), bytes=2**62), "bytes are declared for an array of shape"),
        (
            blob(ONES, shape=(2**59,), rank=1, bytes=2**61),
            "is truncated: 2305843009213693952 bytes",
        ),
        (blob(ONES, shape=(-2, -3)), r"declares an array of shape \(-2, -3\)"),
        (blob(ONES, rank=1000), "declares an array of rank 1000"),
        (blob(ONES, magic=1), "holds no TVM array"),
        (blob(ONES, lanes=4), "32 bits, 4 lanes, which is not supported"),
        (blob(ONES, code=3), "dtype code 3"),
        (b"", "is truncated: 8 bytes are declared at byte 0, 0 are there"),
    ],
)
def test_damaged_arrays(data: bytes, said: str) -> None:
    with pytest.raises(RelayError, match=said):
        decode_array(base64.b64encode(data).decode(), "array 0")


def test_damaged_base64() -> None:
    name = "nn.conv2d/nhwc"
    text = base64.b64encode(blob(ONES)).decode()
    for bad, said in (
        (text[:-3], "it may be truncated"),
        (text[:8] + "!" + text[9:], "is no valid"),
    ):
        with pytest.raises(RelayError, match=said):
            decode_array(bad, name)
    with pytest.raises(RelayError, match="must be base64 text, got int"):
        decode_array(3, name)


def test_parameter_files_cut_anywhere() -> None:
    data = network("lstm").params
    assert data is not None
    names = {"weight_ih": (32, 6), "weight_hh": (32, 8), "bias": (32,)}
    assert {name: a.shape for name, a in read_params(data).items()} == names
    for end in range(0, len(data), 7):
        with pytest.raises(RelayError, match="truncated"):
            read_params(data[:end])


def test_parameter_files_that_lie() -> None:
    """Counts and lengths are held against the bytes at hand before anything is allocated."""
    head = struct.pack("<QQ", 0xF7E58D4F05049CB7, 0)
    for data, said in (
        (head + struct.pack("<Q", 2**61), "is truncated: 2305843009213693952 items are declared"),
        (head + struct.pack("<QQ", 1, 2**62), "bytes are declared at byte 32, 0 are there"),
        (
            head + struct.pack("<QQ", 1, 1) + b"\xff" + struct.pack("<Q", 0),
            "a name that is no UTF-8",
        ),
        (head + struct.pack("<QQ", 1, 1) + b"w" + struct.pack("<Q", 0), "has 1 names and 0 arrays"),
        (b"12345678" + head, "was not written by relay.save_param_dict"),
    ):
        with pytest.raises(RelayError, match=said):
            read_params(data)


def test_parameters_must_fit() -> None:
    fixture = network("lstm")
    right = {"weight_ih": np.zeros((32, 6), "float32")}
    with pytest.raises(RelayError, match="none of the parameters other is one of the model's"):
        parse_relay(fixture.json, {"other": ONES})
    model = parse_relay(fixture.json, {"weight_ih": ONES})
    with pytest.raises(
        RelayError, match=r"'weight_ih' is float32\[2, 3\], the model takes float32\[32, 6\]"
    ):
        import_relay(model)
    model = parse_relay(fixture.json, right, "net.json")
    with pytest.raises(RelayError, match=r"net\.json: 2 parameters of its main function have no value: "
                       "weight_hh, bias; give them as params="):  # fmt: skip
        import_relay(model, list(fixture.inputs.values()))


def test_open_sizes_need_a_name_or_an_example() -> None:
    model = parse_relay(network("dynamic").json, network("dynamic").params)
    assert [item.shape for item in declared_inputs(model)] == [("", "", 8)]
    with pytest.raises(
        RelayError, match=r"'tokens' is float32\[\?, \?, 8\]: give example_inputs, or"
    ):
        import_relay(model)
    with pytest.raises(RelayError, match="axis 2 of the input 'tokens' is 8 in the file"):
        import_relay(model, None, {"tokens": {0: "batch", 1: "seq", 2: "width"}})
    with pytest.raises(
        RelayError, match="dynamic names the input 'x'; the model's inputs are: tokens"
    ):
        import_relay(model, None, {"x": {0: "batch"}})
    with pytest.raises(RelayError, match=r"the example of 'tokens' is float64\[1, 2, 8\]"):
        import_relay(model, (np.zeros((1, 2, 8)),))


@given(st.data())
def test_mutated_modules_are_refused_or_read(data: st.DataObject) -> None:
    """Any attribute, item or kind replaced by another: a clear error, or a graph."""
    document = json.loads(operators()["nn.conv2d/strided"].json)
    for _ in range(data.draw(st.integers(1, 4))):
        node = data.draw(st.sampled_from(document["nodes"]))
        count = len(document["nodes"])
        what = data.draw(st.sampled_from(["attrs", "data", "type_key", "repr_str"]))
        if what == "attrs" and node.get("attrs"):
            name = data.draw(st.sampled_from(sorted(node["attrs"])))
            values = st.one_of(st.integers(-2, count + 2).map(str), st.text(max_size=3), st.none())
            node["attrs"][name] = data.draw(values)
        elif what == "data" and node.get("data"):
            place = data.draw(st.integers(0, len(node["data"]) - 1))
            node["data"][place] = data.draw(
                st.one_of(st.integers(-2, count + 2), st.text(max_size=2))
            )
        elif what == "type_key":
            other = data.draw(st.sampled_from(document["nodes"]))
            node["type_key"] = other["type_key"]
        elif what == "repr_str" and "repr_str" in node:
            node["repr_str"] = data.draw(st.one_of(st.text(max_size=4), st.integers()))
    try:
        model = parse_relay(json.dumps(document).encode())
    except ImportModelError:
        return
    for at, node in enumerate(model.graph.nodes):
        below = [
            *getattr(node, "args", ()),
            *getattr(node, "fields", ()),
            *getattr(node, "params", ()),
        ]
        assert all(child < at for child in below)


@given(st.data())
def test_mutated_text_is_refused_or_read(data: st.DataObject) -> None:
    text = operators()["nn.conv2d/strided"].text.decode()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        length = data.draw(st.integers(0, 6))
        put = data.draw(st.text(alphabet='%@(){}[],;.:="0123456789fnlet metaTensor?\n', max_size=6))
        text = text[:at] + put + text[at + length :]
    try:
        parse_relay(text.encode())
    except ImportModelError:
        return
