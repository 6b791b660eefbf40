"""What a model takes and returns: nesting, checks by message, and the way through JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.compiler.errors import InvalidInputError
from burnish.compiler.signature import Signature, TensorSpec, dtype_name, evaluate
from burnish.runtime import trees

SIGNATURE = Signature(
    inputs=(
        TensorSpec("ids", ("batch", "seq"), "int64"),
        TensorSpec("mask", ("batch", "seq"), "float32"),
        TensorSpec("wide", ("2*batch", 3), "float32"),
    ),
    outputs=(TensorSpec("output", ("batch", 4), "float32"),),
    arguments=(("ids", 0), ("causal", {"const": True}), ("rest", {"dict": [["m", 1], ["w", 2]]})),
    output_tree={"fields": [["logits", 0], ["cache", {"const": None}]]},
    symbols={"batch": (1, 8), "seq": (2, None)},
)


def inputs(batch: int = 2, seq: int = 5) -> list[np.ndarray]:
    return [
        np.zeros((batch, seq), np.int64),
        np.zeros((batch, seq), np.float32),
        np.zeros((2 * batch, 3), np.float32),
    ]


def test_survives_json() -> None:
    assert Signature.from_dict(json.loads(json.dumps(SIGNATURE.to_dict()))) == SIGNATURE


def test_flatten_takes_arguments_as_the_model_does() -> None:
    ids, mask, wide = inputs()
    rest = {"m": mask, "w": wide}
    for args, kwargs in (
        ((ids, True, rest), {}),
        ((ids, rest), {}),
        ((ids,), {"rest": rest}),
        ((), {"rest": rest, "ids": ids, "causal": True}),
        ((ids, np.array(True), rest), {}),
    ):
        flat = SIGNATURE.flatten(args, kwargs)
        assert all(a is b for a, b in zip(flat, (ids, mask, wide), strict=True))


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((1,), {}, r"got 1 inputs; the model takes 3: ids: int64\[batch, seq\]"),
        ((1, True, {}, 4), {}, "got 4 inputs"),
        ((1, False, {"m": 1, "w": 2}), {}, "'causal' was imported as the constant True"),
        ((1, True, {"m": 1}), {}, r"'rest' must be a mapping with keys \['m', 'w'\]"),
        ((1, True), {"ids": 2}, "input 'ids' is given twice"),
        ((1,), {"cache": 2}, "input 'cache' is unknown"),
    ],
)
def test_flatten_refuses(args: tuple, kwargs: dict, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        SIGNATURE.flatten(args, kwargs)


def test_check_binds_symbols() -> None:
    assert SIGNATURE.check(inputs(3, 7)) == {"batch": 3, "seq": 7}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: np.zeros((2, 5), np.int32)}, "'ids' has dtype int32, the model takes int64"),
        ({0: np.zeros(5, np.int64)}, r"'ids' has shape \(5,\), the model takes \(batch, seq\)"),
        ({1: np.zeros((2, 6), np.float32)}, "seq is 5 in another place"),
        ({2: np.zeros((5, 3), np.float32)}, r"'wide' has shape \(5, 3\).* \(2\*batch, 3\)"),
        ({2: np.zeros((4, 2), np.float32)}, r"'wide' has shape \(4, 2\)"),
        ({0: [[1]]}, "'ids' must be a tensor .* got list"),
    ],
)
def test_check_refuses(change: dict, message: str) -> None:
    given_inputs = inputs()
    for index, value in change.items():
        given_inputs[index] = value
    with pytest.raises(InvalidInputError, match=message):
        SIGNATURE.check(given_inputs)


def test_check_holds_ranges_and_the_number() -> None:
    with pytest.raises(InvalidInputError, match="batch must be 1 to 8"):
        SIGNATURE.check(inputs(batch=9))
    with pytest.raises(InvalidInputError, match="seq must be at least 2"):
        SIGNATURE.check(inputs(seq=1))
    with pytest.raises(InvalidInputError, match="got 1 inputs"):
        SIGNATURE.check(inputs()[:1])


def test_unflatten_restores_the_nesting() -> None:
    out = SIGNATURE.unflatten(["x"])
    assert out == {"logits": "x", "cache": None}
    assert out.logits == "x"
    with pytest.raises(AttributeError, match="no output 'hidden'; outputs: logits, cache"):
        _ = out.hidden


def test_dtype_names() -> None:
    import torch

    assert dtype_name(torch.bfloat16) == "bfloat16"
    assert dtype_name(np.float32) == dtype_name(np.dtype("float32")) == "float32"


@given(st.integers(1, 50), st.integers(1, 50))
def test_evaluate_matches_python(a: int, b: int) -> None:
    text = "a*b + 3*a - b//2 + (a + 1) % b"
    assert evaluate(text, {"a": a, "b": b}) == a * b + 3 * a - b // 2 + (a + 1) % b
    assert evaluate(text, {"a": a}) is None


def test_evaluate_refuses_code() -> None:
    with pytest.raises(ValueError, match="only"):
        evaluate("__import__('os')", {})


LEAF = object()
STRUCTURES = st.recursive(
    st.just(LEAF) | st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(STRUCTURES)
def test_any_nesting_goes_through_json_and_back(structure: object) -> None:
    count = 0

    def mark(value: object) -> object:
        nonlocal count
        if value is LEAF:
            count += 1
            return trees.Leaf(count - 1)
        if isinstance(value, dict):
            return {key: mark(item) for key, item in value.items()}
        return type(value)(map(mark, value)) if isinstance(value, (list, tuple)) else value

    node = json.loads(json.dumps(trees.encode(mark(structure))))
    assert trees.decode(node, [LEAF] * count) == structure
    leaves: dict[int, object] = {}
    trees.flatten(node, structure, leaves.__setitem__, "x")
    assert leaves == dict.fromkeys(range(count), LEAF)
    assert sorted(index for index, _ in trees.paths(node)) == list(range(count))


def test_named_tuples_are_refused() -> None:
    from typing import NamedTuple

    class Pair(NamedTuple):
        a: object

    with pytest.raises(TypeError, match="named tuple Pair has no plain form"):
        trees.encode(Pair(trees.Leaf(0)))
    with pytest.raises(TypeError, match="object is no tuple"):
        trees.encode(object())
