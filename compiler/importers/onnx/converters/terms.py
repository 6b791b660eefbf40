"""TfIdfVectorizer over integers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from tvm import te, tirx
from tvm.ir import Expr

from burnish.compiler.importers.onnx.emit import const, fixed, kernel, op, ranked
from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts


@converts("TfIdfVectorizer", since=9)
def tfidf_vectorizer(node: Node) -> Result:
    """``[N] or [B, N] -> [columns] or [B, columns]``: how often each n-gram occurs, weighted.

    The elements of an n-gram may lie up to ``max_skip_count`` elements apart, all alike.
    """
    attrs = node.attrs
    if "pool_strings" in attrs or "pool_int64s" not in attrs:
        raise Refused("terms of strings: map the strings to integers outside the model")
    shape = ranked(node)
    (length,) = fixed(node, shape[-1:], "the number of terms")
    x = node.inputs[0]
    if node.ndim() == 1:
        x = node.emit(op.expand_dims(x, 0))
    columns = max(attrs["ngram_indexes"]) + 1
    least, most = int(attrs["min_gram_length"]), int(attrs["max_gram_length"])
    total = None
    for n, table in _grams(attrs, columns).items():
        if not least <= n <= most:
            continue
        for skip in range(int(attrs["max_skip_count"]) + 1 if n > 1 else 1):
            count = length - (n - 1) * (skip + 1)
            if count > 0:
                found = kernel(node, _count(n, skip, count, columns), x, table, name="count")
                total = found if total is None else node.emit(op.add(total, found))
    if total is None:
        raise Refused("no n-gram fits the input")
    counts = op.astype(total, "float32")
    mode = str(attrs["mode"])
    if mode in ("IDF", "TFIDF"):
        counts = node.emit(counts)
        weights = np.ones(columns, np.float32)
        if "weights" in attrs:
            weights[list(attrs["ngram_indexes"])] = attrs["weights"]
        if mode == "IDF":
            counts = op.astype(node.emit(op.greater(counts, const(0, "float32"))), "float32")
            counts = node.emit(counts)
        counts = op.multiply(counts, const(weights, "float32"))
    return op.squeeze(node.emit(counts), [0]) if node.ndim() == 1 else counts


def _grams(attrs: dict[str, Any], columns: int) -> dict[int, Any]:
    """Length -> ``[columns, 1 + n]``: whether the column has such an n-gram, and its elements."""
    pool, starts = list(attrs["pool_int64s"]), [*attrs["ngram_counts"], len(attrs["pool_int64s"])]
    places = iter(attrs["ngram_indexes"])
    found = {}
    for n, (start, end) in enumerate(itertools.pairwise(starts), 1):
        table = np.zeros((columns, 1 + n), np.int64)
        for at in range(start, end, n):
            table[next(places)] = [1, *pool[at : at + n]]
        found[n] = const(table, "int64")
    return found


def _count(n: int, skip: int, count: int, columns: int) -> Any:
    def make(x: te.Tensor, table: te.Tensor) -> te.Tensor:
        def element(b: Any, c: Any) -> Expr:
            i = te.reduce_axis((0, count), "i")
            same = [table(c, 0) == tirx.const(1, "int64")]
            same += [x(b, i + k * (skip + 1)).astype("int64") == table(c, 1 + k) for k in range(n)]
            one, zero = tirx.const(1, "int32"), tirx.const(0, "int32")
            return te.sum(tirx.Select(tirx.all(*same), one, zero), axis=i)

        return te.compute((x.shape[0], columns), element, name="count")

    return make
