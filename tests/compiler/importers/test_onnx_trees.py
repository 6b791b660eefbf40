"""Decision trees against a walk of each row through each tree."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_support import run

from burnish.compiler.errors import ImportModelError

FEATURES, TARGETS = 3, 4
COMPARE = (np.less_equal, np.less, np.greater_equal, np.greater, np.equal, np.not_equal)


def forest(seed: int, modes: tuple[int, ...], trees: int = 3, depth: int = 3) -> dict[str, Any]:
    """Attributes of random trees that are full but for some early leaves."""
    rng = np.random.default_rng(seed)
    nodes: list[list[Any]] = []
    leaves: list[tuple[float, int]] = []
    members: list[float] = []

    def grow(left: int) -> tuple[int, int]:
        """Index, and whether it is a leaf."""
        if left == 0 or (left < depth and rng.random() < 0.2):
            leaves.append((float(rng.standard_normal()), int(rng.integers(TARGETS))))
            return len(leaves) - 1, 1
        mode, place = int(rng.choice(modes)), len(nodes)
        split = float(np.round(rng.standard_normal(), 1))
        nodes.append([int(rng.integers(FEATURES)), mode, split, int(rng.integers(2))])
        if mode == 6:
            members.extend([*np.round(rng.standard_normal(3), 1).tolist(), np.nan])
        nodes[place] += [*grow(left - 1), *grow(left - 1)]
        return place, 0

    roots = [grow(depth)[0] for _ in range(trees)]
    feature, mode, split, missing, true, true_leaf, false, false_leaf = zip(*nodes, strict=True)
    tensor = helper.make_tensor
    attrs = {
        "n_targets": TARGETS,
        "tree_roots": roots,
        "nodes_featureids": feature,
        "nodes_modes": tensor("m", TensorProto.UINT8, [len(mode)], mode),
        "nodes_splits": tensor("s", TensorProto.FLOAT, [len(split)], split),
        "nodes_missing_value_tracks_true": missing,
        "nodes_truenodeids": true,
        "nodes_trueleafs": true_leaf,
        "nodes_falsenodeids": false,
        "nodes_falseleafs": false_leaf,
        "leaf_weights": tensor("w", TensorProto.FLOAT, [len(leaves)], [w for w, _ in leaves]),
        "leaf_targetids": [target for _, target in leaves],
    }
    if members:
        attrs["membership_values"] = tensor("v", TensorProto.FLOAT, [len(members)], members)
    return attrs


def model(attrs: dict[str, Any], rows: int) -> onnx.ModelProto:
    node = helper.make_node("TreeEnsemble", ["x"], ["y"], "trees", domain="ai.onnx.ml", **attrs)
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "test",
        [info("x", TensorProto.FLOAT, [rows, FEATURES])],
        [info("y", TensorProto.FLOAT, [rows, TARGETS])],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 5)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def walked(attrs: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """``[rows, trees, 2]``: weight and target of the leaf each row ends at in each tree."""
    array = onnx.numpy_helper.to_array
    modes, splits = array(attrs["nodes_modes"]), array(attrs["nodes_splits"])
    weights = array(attrs["leaf_weights"])
    sets: list[list[float]] = [[]]
    for value in array(attrs["membership_values"]) if "membership_values" in attrs else ():
        sets.append([]) if np.isnan(value) else sets[-1].append(value)
    of = {int(place): sets[i] for i, place in enumerate(np.flatnonzero(modes == 6))}
    found = np.zeros((len(x), len(attrs["tree_roots"]), 2))
    for row, tree in np.ndindex(found.shape[:2]):
        at, leaf = attrs["tree_roots"][tree], False
        while not leaf:
            value = x[row, attrs["nodes_featureids"][at]]
            if np.isnan(value):
                goes = bool(attrs["nodes_missing_value_tracks_true"][at])
            elif modes[at] == 6:
                goes = value in of[at]
            else:
                goes = bool(COMPARE[modes[at]](value, splits[at]))
            way = "true" if goes else "false"
            leaf = bool(attrs[f"nodes_{way}leafs"][at])
            at = attrs[f"nodes_{way}nodeids"][at]
        found[row, tree] = weights[at], attrs["leaf_targetids"][at]
    return found


@pytest.mark.parametrize(
    ("how", "modes"), [(0, (1,)), (1, (1, 2, 3, 4, 5)), (2, (0, 6)), (3, (0,))]
)
def test_each_row_ends_at_its_leaves(how: int, modes: tuple[int, ...]) -> None:
    attrs = forest(how, modes) | {"aggregate_function": how}
    x = np.random.default_rng(9).standard_normal((11, FEATURES)).round(1).astype(np.float32)
    x[2, 1] = x[5] = np.nan
    leaves = walked(attrs, x)
    want = np.zeros((len(x), TARGETS))
    for row, target in np.ndindex(want.shape):
        given = leaves[row][leaves[row, :, 1] == target, 0]
        if given.size:
            want[row, target] = (given.sum() / 3, given.sum(), given.min(), given.max())[how]
    (got,) = run(model(attrs, len(x)), {"x": x})
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_scores_become_shares_and_other_transforms_are_refused() -> None:
    attrs = forest(5, (0,)) | {"post_transform": 1}
    x = np.random.default_rng(1).standard_normal((5, FEATURES)).astype(np.float32)
    (got,) = run(model(attrs, 5), {"x": x})
    np.testing.assert_allclose(got.sum(1), 1, rtol=1e-5)
    with pytest.raises(ImportModelError, match="post_transform=4 has no converter"):
        run(model(attrs | {"post_transform": 4}, 5), {"x": x})
    with pytest.raises(ImportModelError, match="nodes or leaves that it does not have"):
        run(model(attrs | {"tree_roots": [99]}, 5), {"x": x})


def test_a_cycle_is_refused() -> None:
    attrs = forest(5, (0,), trees=1)
    attrs["nodes_truenodeids"] = [0] * len(attrs["nodes_truenodeids"])
    attrs["nodes_trueleafs"] = [0] * len(attrs["nodes_trueleafs"])
    with pytest.raises(ImportModelError, match="more than 64 levels"):
        run(model(attrs, 5), {"x": np.zeros((5, FEATURES), np.float32)})
