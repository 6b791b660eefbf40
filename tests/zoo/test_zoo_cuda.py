"""The zoo built for GPUs of three generations: every kernel compiled, and what it compiles to.

``cuda_products.json`` lists what is expected of every model's products: spills with their cost
(bytes of local memory a thread, loads and stores of it, and those in the main loop), and the
products of two-byte floats without tensor cores, with their rules. ``python tests/cuda_zoo.py
NAME`` writes it anew.
"""

from __future__ import annotations

import pytest

from burnish import models
from cuda_support import require_compiler
from cuda_zoo import NARROW, Case, build, cases, found, listed

ARCHITECTURES = ("sm_75", "sm_80", "sm_90")
SPILLED = 0.05
"""Of all products, at most."""


@pytest.mark.heavy
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.id)
def test_every_kernel_compiles_and_its_products_are_as_listed(case: Case) -> None:
    require_compiler()
    entry = {arch: what for compiled in build(case) for arch, what in found(compiled, case).items()}
    for kind in ("spills", "plain"):
        now = {arch: what[kind] for arch, what in entry.items()}
        assert now == {arch: what[kind] for arch, what in listed()[case.id].items()}, kind
    assert all(what["products"] for what in entry.values())


def test_every_model_is_listed_for_every_architecture() -> None:
    entries = listed()
    assert {case.id for case in cases()} == set(entries)
    assert {case.model for case in cases()} == set(models.names())
    for name, entry in entries.items():
        expected = ARCHITECTURES[1:] if name.endswith("bfloat16") else ARCHITECTURES
        assert tuple(entry) == expected, name
        assert all(what["products"] for what in entry.values()), name


def test_few_products_spill_and_none_in_its_main_loop() -> None:
    entries = [what for entry in listed().values() for what in entry.values()]
    spills = [cost for what in entries for cost in what["spills"].values()]
    assert len(spills) <= SPILLED * sum(what["products"] for what in entries)
    assert all(in_loop == 0 for _bytes, _accesses, in_loop in spills)


def test_products_of_two_bytes_run_on_tensor_cores() -> None:
    """All but products of at most four rows, and sums of fewer than 16 terms."""
    for name, entry in listed().items():
        if not name.endswith(NARROW):
            continue
        for arch, what in entry.items():
            others = {kernel for kernel, rule in what["plain"].items() if rule not in VECTORS}
            assert others <= SHORT_SUMS.get(name.rpartition("-")[0], set()), (name, arch)


VECTORS = ("gemv", "matvec")
SHORT_SUMS = {"fashion-cnn": {"fused_conv2d_cast_add_relu"}}
"""Its first convolution: 3 x 3 windows of one channel."""
