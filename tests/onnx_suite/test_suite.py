"""All 2,024 cases of onnx.backend.test, in one pool; the list of those refused is exact."""

from __future__ import annotations

import pytest

from onnx_suite import cases, listing, pool, themes


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
