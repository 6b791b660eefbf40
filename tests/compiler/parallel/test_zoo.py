"""A real model over two and four processes: the whole's results, and a fair share of its bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import burnish
from burnish.models.bench_nets import load

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize(("parts", "most"), [(2, 0.6), (4, 0.35)])
def test_minilm(parts: int, most: float) -> None:
    net, (ids, mask) = load("minilm")
    padded = mask.clone()
    padded[:, -20:] = 0
    with burnish.tensor_parallel(net, (ids, mask), ["cpu"] * parts) as ranks:
        for given in ((ids, mask), (ids.flip(1), padded)):
            with torch.no_grad():
                wanted = net(*given).numpy()
            error = np.abs(ranks(*given) - wanted).max() / np.abs(wanted).max()
            assert error <= 1e-4
        report = ranks.report
    assert max(report.shares) <= most
    assert max(report.stored_bytes) <= most * report.whole_bytes
    assert [one.kind for one in report.collectives] == ["all_reduce"] * 13
