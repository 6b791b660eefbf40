"""Regions of supported calls: as large as they may be, and no path leaves and comes back."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
import tvm_ffi
from hypothesis import given
from hypothesis import strategies as st
from tvm import relax

from burnish.passes.graph import op_name
from burnish.passes.regions import find_regions, replace_regions

SUPPORTED = ("relax.add", "relax.multiply")


def supported(call: relax.Call) -> bool:
    return op_name(call) in SUPPORTED


def graph(lines: list[tuple[str, int, int]], outputs: int = 1) -> tvm.IRModule:
    """``main`` of two inputs; each line is an operator and the places of its operands."""
    builder = relax.BlockBuilder()
    values = [relax.Var(name, relax.TensorType((2,), "float32")) for name in "xy"]
    with builder.function("main", list(values), {"num_input": 2}):
        with builder.dataflow():
            for name, first, second in lines:
                op = getattr(relax.op, name)
                values.append(builder.emit(op(values[first], values[second])))
            out = builder.emit_output(relax.Tuple(values[-outputs:]))
        builder.emit_func_output(out)
    return builder.finalize()


def sizes(mod: tvm.IRModule) -> list[int]:
    return [len(region.calls) for region in find_regions(mod["main"], supported)]


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([("add", 0, 1), ("multiply", 2, 0)], [2]),
        ([("add", 0, 0), ("multiply", 1, 1), ("add", 2, 3)], [3]),
        ([("add", 0, 1), ("subtract", 2, 0), ("multiply", 2, 3)], [1, 1]),
        ([("add", 0, 1), ("subtract", 0, 1), ("multiply", 2, 3)], [2]),
        ([("subtract", 0, 1), ("subtract", 2, 0)], []),
        # The second joins the first's region, and so the third may not: it would be read twice.
        ([("add", 0, 1), ("subtract", 2, 2), ("add", 0, 0), ("multiply", 4, 3)], [2, 1]),
    ],
)
def test_regions(lines, wanted):
    assert sizes(graph(lines)) == wanted


def kept(region):
    """A replacement that computes the same: the calls themselves, in reverse program order."""
    return list(region.calls)


lines = st.integers(1, 14).flatmap(
    lambda count: st.tuples(
        *(
            st.tuples(
                st.sampled_from(["add", "multiply", "subtract", "maximum"]),
                st.integers(0, place + 1),
                st.integers(0, place + 1),
            )
            for place in range(count)
        )
    )
)


@given(lines, st.integers(1, 3))
def test_any_graph_is_cut_without_circles(given_lines, outputs):
    mod = graph(list(given_lines), min(outputs, len(given_lines)))
    before = tvm_ffi.structural_hash(mod)
    regions = find_regions(mod["main"], supported)
    places = [binding.var for region in regions for binding in region.calls]
    every = [b for b in mod["main"].body.blocks[0].bindings if isinstance(b.value, relax.Call)]
    assert len(places) == sum(op_name(b.value) in SUPPORTED for b in every)
    for region in regions:
        own = {binding.var for binding in region.calls}
        below: set[relax.Var] = set()
        for binding in mod["main"].body.blocks[0].bindings:
            read = set(relax.analysis.free_vars(binding.value))
            if binding.var in own:
                assert not read & below, "a path leaves the region and comes back"
            elif read & (own | below):
                below.add(binding.var)
        assert not own.intersection(region.inputs)
    new = replace_regions(mod, supported, kept)
    relax.analysis.well_formed(new)
    assert tvm_ffi.structural_hash(mod) == before
    x, y = (np.random.default_rng(3).uniform(0.5, 1.5, 2).astype("float32") for _ in range(2))
    for a, b in zip(run(mod, x, y), run(new, x, y), strict=True):
        np.testing.assert_array_equal(a, b)


def run(mod: tvm.IRModule, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """The graph by NumPy."""
    main = mod["main"]
    values = dict(zip(main.params, (x, y), strict=True))
    for binding in main.body.blocks[0].bindings:
        if isinstance(binding.value, relax.Tuple):
            values[binding.var] = [values[one] for one in binding.value.fields]
            continue
        name = op_name(binding.value).removeprefix("relax.")
        values[binding.var] = getattr(np, name)(*(values[arg] for arg in binding.value.args))
    return values[main.body.body]


def test_a_call_that_joins_a_region_comes_after_all_that_the_region_comes_after():
    # The third joins the second's region, which comes after the first by way of an outsider.
    lines = [("add", 0, 1), ("subtract", 2, 2), ("add", 3, 3), ("add", 0, 0), ("subtract", 5, 5)]
    mod = graph([*lines, ("multiply", 2, 6)])
    relax.analysis.well_formed(replace_regions(mod, supported, kept))


def test_a_region_may_stay():
    mod = graph([("add", 0, 1), ("multiply", 2, 0)])
    assert replace_regions(mod, supported, lambda region: None).same_as(mod)
