"""Every converter against what TVM 0.19 computed for the operator, from JSON and from text."""

from __future__ import annotations

from collections import defaultdict

import pytest
import tvm
from import_support import worst
from relay_fixtures import Fixture, imported, operators, results

from burnish.compiler.importers.relay import converters
from burnish.compiler.importers.relay.attributes import is_operator
from burnish.compiler.importers.relay.ops import (
    dyn,
    elementwise,
    image,
    index,
    nn,
    qnn,
    reduce,
    shape,
    signal,
    vision,
)

FAMILIES = {
    family.__name__.rpartition(".")[2]: family
    for family in (dyn, elementwise, image, index, nn, qnn, reduce, shape, signal, vision)
}
FAST = ("dyn", "reduce")
# Identities that no other operator's case stands for are the same line of code.
UNTESTED_IDENTITIES = set(elementwise.IDENTITIES)


def family_of(name: str) -> str:
    operator = name.partition("/")[0]
    return next(key for key, file in FAMILIES.items() if operator in file.CONVERTERS)


def cases() -> dict[str, list[Fixture]]:
    found: dict[str, list[Fixture]] = defaultdict(list)
    for name, fixture in operators().items():
        operator = name.partition("/")[0]
        family = "dyn" if operator == "open" else family_of(operator)
        found[family].append(fixture)
    return found


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=[] if name in FAST else [pytest.mark.heavy])
        for name in sorted(FAMILIES)
    ],
)
def test_results_are_those_of_tvm(family: str) -> None:
    """Integers of quantized operators exactly, everything else within 1e-5."""
    fixtures = cases()[family]
    mods = [imported(fixture, "json") for fixture in fixtures]
    found = results(mods, [fixture.inputs for fixture in fixtures])
    wrong = {}
    for fixture, outputs in zip(fixtures, found, strict=True):
        exact = family == "qnn" and all(a.dtype.kind in "iu" for a in fixture.outputs)
        error = worst(outputs, list(fixture.outputs))
        if error > (0 if exact else 1e-5):
            wrong[fixture.name] = error
    assert not wrong


@pytest.mark.filterwarnings("ignore:.*numbers have six digits")
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_text_says_what_json_says(family: str) -> None:
    for fixture in cases()[family]:
        tvm.ir.assert_structural_equal(
            imported(fixture, "json").without_attr("params"),
            imported(fixture, "relay").without_attr("params"),
        )


def test_every_converter_has_a_case() -> None:
    tried = {name.partition("/")[0] for name in operators()} | WITHOUT_CASE
    tried |= UNTESTED_IDENTITIES
    assert sorted(set(converters.CONVERTERS) - tried) == []


# Covered by another operator's converter, which it shares (an old name, a second spelling).
WITHOUT_CASE = {"scatter", "fixed_point_multiply_per_axis"}


def test_families_are_apart_and_of_relay() -> None:
    names = [name for file in FAMILIES.values() for name in file.CONVERTERS]
    assert len(names) == len(set(names))
    assert all(is_operator(name) for name in [*names, *converters.REFUSED] if name != "scatter")
    assert not set(names) & set(converters.REFUSED)
    assert len(names) >= 170
