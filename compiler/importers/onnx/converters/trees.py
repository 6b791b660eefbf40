"""Decision trees of ai.onnx.ml: all rows go down all trees at once, a step a level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from burnish.compiler.importers.onnx.emit import const, op, ranked
from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts

DEEPEST = 64
_TESTS = (op.less_equal, op.less, op.greater_equal, op.greater, op.equal, op.not_equal)
"""What ``nodes_modes`` stands for, in its order; one more is membership of a set."""
_MEMBER = len(_TESTS)
_AVERAGE, _SUM, _MIN, _MAX = range(4)


@converts("TreeEnsemble", domain="ai.onnx.ml", since=5)
def tree_ensemble(node: Node) -> Result:
    """``[n, features] -> [n, targets]``: of each tree the leaf that a row ends at, put together."""
    how = int(node.attrs.get("aggregate_function", _SUM))
    after = int(node.attrs.get("post_transform", 0))
    if after not in (0, 1, 2):
        raise Refused(f"post_transform={after} has no converter: NONE, SOFTMAX and LOGISTIC have")
    trees = _read(node)
    rows = ranked(node)[0]
    roots = const(trees.roots[None], "int64")
    at = node.emit(op.broadcast_to(roots, relax.ShapeExpr([rows, trees.roots.size])))
    for _ in range(trees.depth()):
        at = _step(node, trees, at)
    # A finite one: TVM's maximum begins at the least number, not at -infinity.
    largest = float(np.finfo(node.dtype()).max)
    empty = {_MIN: largest, _MAX: -largest}.get(how, 0.0)
    count = int(node.attrs.get("n_targets", trees.targets.max(initial=0) + 1))
    if (trees.targets >= count).any():
        raise Refused(f"a leaf of target {trees.targets.max()} for {count} targets")
    table = np.full((len(trees.true), count), empty)
    leaves = np.arange(len(trees.true) - len(trees.targets), len(trees.true))
    table[leaves, trees.targets] = trees.weights
    given = node.emit(_pick(table, at, node.dtype()))
    return _transformed(node, _together(node, given, how, trees.roots.size), after)


def _together(node: Node, given: relax.Expr, how: int, count: int) -> relax.Var:
    """``[n, trees, targets] -> [n, targets]``; a target that no leaf gives is 0."""
    if how in (_MIN, _MAX):
        best = node.emit((op.min if how == _MIN else op.max)(given, axis=1))
        largest = const(np.finfo(node.dtype()).max, node.dtype())
        none = node.emit(op.greater_equal(node.emit(op.abs(best)), largest))
        return node.emit(op.where(none, const(0, node.dtype()), best))
    total = node.emit(op.sum(given, axis=1))
    return node.emit(op.divide(total, const(count, node.dtype()))) if how == _AVERAGE else total


def _transformed(node: Node, scores: relax.Expr, after: int) -> relax.Expr:
    if after == 0:
        return scores
    return op.nn.softmax(scores, axis=1) if after == 1 else op.sigmoid(scores)


@dataclass(frozen=True)
class _Trees:
    """Nodes of all trees, the leaves last; a leaf follows itself.

    ``sets`` holds a row of members a node, filled up with NaN; ``missing`` says whether NaN takes
    the true branch; ``weights`` and ``targets`` are those of the leaves.
    """

    roots: np.ndarray
    true: np.ndarray
    false: np.ndarray
    features: np.ndarray
    modes: np.ndarray
    splits: np.ndarray
    sets: np.ndarray
    missing: np.ndarray
    weights: np.ndarray
    targets: np.ndarray

    def depth(self) -> int:
        """Steps from the roots until all paths are at a leaf."""
        first = len(self.true) - len(self.targets)
        level, depth = np.unique(self.roots), 0
        while (level < first).any():
            depth += 1
            if depth > DEEPEST:
                raise Refused(f"trees of more than {DEEPEST} levels")
            level = np.unique(np.concatenate([self.true[level], self.false[level]]))
        return depth


def _step(node: Node, trees: _Trees, at: relax.Var) -> relax.Var:
    """The next node of each row in each tree."""
    dtype = node.dtype()
    feature = node.emit(_pick(trees.features, at, "int64"))
    value = node.emit(op.gather_elements(node.inputs[0], feature, axis=1))
    split = node.emit(_pick(trees.splits, at, dtype))
    used = sorted(set(trees.modes[: len(trees.true) - len(trees.targets)].tolist()))
    goes: relax.Expr = const(False, "bool")
    mode = node.emit(_pick(trees.modes, at, "int64")) if len(used) > 1 else None
    for kind in used:
        test = _member(node, trees, at, value) if kind == _MEMBER else _TESTS[kind](value, split)
        if mode is not None:
            is_kind = node.emit(op.equal(mode, const(kind, "int64")))
            test = op.where(is_kind, node.emit(test), goes)
        goes = node.emit(test)
    missing = node.emit(_pick(trees.missing, at, "bool"))
    goes = node.emit(op.where(op.isnan(value), missing, goes))
    yes, no = (node.emit(_pick(table, at, "int64")) for table in (trees.true, trees.false))
    return node.emit(op.where(goes, yes, no))


def _member(node: Node, trees: _Trees, at: relax.Var, value: relax.Var) -> relax.Expr:
    members = node.emit(_pick(trees.sets, at, node.dtype()))
    same = node.emit(op.equal(node.emit(op.expand_dims(value, 2)), members))
    return op.greater(
        node.emit(op.sum(node.emit(op.astype(same, "int32")), axis=2)), const(0, "int32")
    )


def _pick(table: np.ndarray, at: relax.Var, dtype: str) -> relax.Expr:
    return op.take(const(table, dtype), at, axis=0, mode="clip")


def _read(node: Node) -> _Trees:
    attrs = node.attrs
    modes = np.asarray(attrs["nodes_modes"], np.int64)
    inner, weights = modes.size, np.asarray(attrs["leaf_weights"], np.float64)
    leaves = np.arange(inner, inner + weights.size)
    targets = np.asarray(attrs["leaf_targetids"], np.int64)

    def array(name: str, dtype: Any = np.int64) -> np.ndarray:
        found = np.asarray(attrs.get(name, np.zeros(inner)), dtype)
        if found.shape != (inner,):
            raise Refused(f"{name} has {found.size} elements for {inner} nodes")
        return found

    def after(way: str) -> np.ndarray:
        found = array(f"nodes_{way}nodeids") + inner * array(f"nodes_{way}leafs")
        return np.concatenate([found, leaves])

    def and_leaves(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, np.zeros((weights.size, *values.shape[1:]), values.dtype)])

    trees = _Trees(
        np.asarray(attrs["tree_roots"], np.int64),
        after("true"),
        after("false"),
        and_leaves(array("nodes_featureids")),
        and_leaves(modes),
        and_leaves(array("nodes_splits", np.float64)),
        and_leaves(_sets(modes, np.asarray(attrs.get("membership_values", []), np.float64))),
        and_leaves(array("nodes_missing_value_tracks_true", bool)),
        weights,
        targets,
    )
    places = np.concatenate([trees.roots, trees.true, trees.false])
    if targets.shape != weights.shape or not ((places >= 0) & (places < trees.true.size)).all():
        raise Refused("its attributes name nodes or leaves that it does not have")
    return trees


def _sets(modes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Members by node; in ``values`` a NaN ends the set of a node."""
    ends = np.flatnonzero(np.isnan(values))
    parts = [part[~np.isnan(part)] for part in np.split(values, ends)]
    of = np.flatnonzero(modes == _MEMBER)
    if len(parts) < len(of):
        raise Refused(f"membership_values holds {len(parts)} sets for {len(of)} nodes")
    table = np.full((modes.size, max((part.size for part in parts), default=0) or 1), np.nan)
    for place, part in zip(of, parts, strict=False):
        table[place, : part.size] = part
    return table
