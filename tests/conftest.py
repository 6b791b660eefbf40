"""Tiers, property-test profiles, and the contract checked around every IR transform."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support import in_ci

TESTS = Path(__file__).resolve().parent
TIERS = ("heavy", "tensorflow")
IR_FOLDERS = tuple(TESTS / name for name in ("compiler", "passes", "targets"))

# No deadline: the first example of a test often pays for an import or a build.
_shared = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", _shared, max_examples=25)
settings.register_profile("full", _shared, max_examples=500)
PROFILE = "full" if os.environ.get("BURNISH_FULL", "") not in ("", "0") else "default"
settings.load_profile(PROFILE)

# Tests see models compiled; those of the compile cache switch it on for themselves.
os.environ["BURNISH_CACHE_LIMIT"] = "0"


def pytest_configure() -> None:
    """Workers share the cores: threads of their references would wait for each other's cores."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch

        torch.set_num_threads(1)


def pytest_report_header(config: pytest.Config) -> str:
    tier = config.option.markexpr or "not heavy"
    seed = config.getoption("hypothesis_seed", None)
    return f"burnish: tier {tier!r}, hypothesis {PROFILE!r}, seed {seed or 'random'}, ci {in_ci()}"


def pytest_itemcollected(item: pytest.Item) -> None:
    """Property tests belong to both tiers: more examples are the full tier's point."""
    if hasattr(getattr(item, "obj", None), "hypothesis"):
        item.add_marker("property")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the other tiers unless ``-m`` chooses one or a test is named (``file::test``)."""
    if config.option.markexpr or any("::" in arg for arg in config.args):
        return
    other = [item for item in items if any(map(item.get_closest_marker, TIERS))]
    if other:
        config.hook.pytest_deselected(items=other)
        items[:] = [item for item in items if item not in other]


@pytest.fixture(autouse=True)
def well_formed_ir(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check Relax modules before and after every transform of the IR tests.

    A test marked ``ill_formed`` hands a pass a module that breaks the rules on purpose.
    """
    if request.node.get_closest_marker("ill_formed") or not any(
        request.path.is_relative_to(folder) for folder in IR_FOLDERS
    ):
        yield
        return
    import tvm
    from well_formed import WellFormed

    with tvm.transform.PassContext(instruments=[WellFormed()]):
        yield


@pytest.fixture
def short_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spend a second on each measurement, for tests of what is measured and not of the figures."""
    from burnish.compiler import compare, gate

    monkeypatch.setattr(gate, "BUDGET_S", 0.5)
    monkeypatch.setitem(compare.compare.__kwdefaults__, "budget_s", 1.0)
