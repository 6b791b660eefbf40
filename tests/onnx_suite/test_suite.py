"""All 2,024 cases of onnx.backend.test, in one pool; the list of those refused is exact."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from burnish.compiler.importers.onnx.checks import graphs_of
from burnish.compiler.importers.onnx.settings import promotable
from onnx_suite import cases, listing, pool, themes

LARGEST = 8
"""Elements of the largest input that is given a value at import."""
FLOATS = {
    "Dropout": "ratio",
    "MelWeightMatrix": "edges",
    "OneHot": "depth",
    "Range": "start limit delta",
    "Resize": "roi scales",
    "Upsample": "scales",
}
"""Operators with settings that are floats; all others take integers or booleans."""


@pytest.mark.heavy
@pytest.mark.timeout(1200)
def test_every_case_passes_or_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    names = cases.names()
    assert len(names) == cases.COUNT
    found = pool.run_all(names)
    with capsys.disabled():
        print(f"\n{themes.table(found)}")
    got = {
        name: (o.status, o.reason)
        for name, o in found.items()
        if o.status not in ("pass", "random")
    }
    listed = listing.read()
    changed = [
        f"{name}: listed as {listed.get(name, ('pass', ''))}, now {got.get(name, ('pass', ''))}"
        for name in sorted({*listed, *got})
        if listed.get(name) != got.get(name)
    ]
    assert not changed, "\n".join(["python tests/onnx_suite --write", *changed])


@pytest.mark.heavy
def test_what_is_given_a_value_at_import_sets_a_shape_or_an_attribute() -> None:
    """No case is answered by folding its data: a worker lets every other input be one of the call,
    and fails a case whose compiled function does not take it."""
    for name in cases.names():
        case = cases.load(name)
        graph = onnx.ModelProto.FromString(case.model).graph
        weights = {tensor.name for tensor in graph.initializer}
        given = [value.name for value in graph.input if value.name not in weights]
        fixed = promotable(graph)
        for inputs, _ in case.data:
            for value, array in zip(given, inputs, strict=False):
                if value not in fixed:
                    continue
                assert np.size(array) <= LARGEST, (name, value)
                users = {
                    node.op_type
                    for inner in graphs_of(graph)
                    for node in inner.node
                    if value in node.input
                }
                integers = np.asarray(array).dtype.kind in "iub"
                assert integers or users <= set(FLOATS), (name, value, users)
