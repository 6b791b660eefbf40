"""PyTorch models that draw: new numbers at each call, of the right kind."""

from __future__ import annotations

import pytest
import torch

import burnish


class Draws(torch.nn.Module):
    def forward(self, x, chance):
        plain = torch.rand(2000) * 2 - 1, torch.randn(3, 700, dtype=torch.float64)
        like = torch.rand_like(x), x + torch.randn_like(x)
        return *plain, *like, torch.bernoulli(chance), torch.bernoulli(x, 0.25)


@pytest.fixture(scope="module")
def calls():
    x, chance = torch.zeros(40, 50), torch.linspace(0, 1, 5).repeat(400, 1)
    compiled = burnish.compile(
        Draws().eval(), (x, chance), dynamic={"x": {0: "rows"}}, do_no_harm=False
    )
    return [compiled(x, chance) for _ in range(2)], chance, compiled


def test_each_call_draws_anew_in_the_types_and_shapes_of_torch(calls):
    (first, second), chance, _ = calls
    wanted = Draws()(torch.zeros(40, 50), chance)
    for one, other, torchs in zip(first, second, wanted, strict=True):
        assert one.dtype == torchs.dtype
        assert one.shape == torchs.shape
        assert not torch.equal(one, other)


def test_their_moments(calls):
    (first, _), _, _ = calls
    uniform, normal, like, noise, each, quarter = (value.double() for value in first)
    for one, mean, deviation in (
        (uniform, 0, 3**-0.5),
        (normal, 0, 1),
        (like, 0.5, 12**-0.5),
        (noise, 0, 1),
        (quarter, 0.25, (0.25 * 0.75) ** 0.5),
    ):
        error = deviation / one.numel() ** 0.5
        assert abs(one.mean() - mean) < 6 * error
        assert abs(one.std() - deviation) < 0.1 * deviation
    assert torch.allclose(each.mean(0), torch.linspace(0, 1, 5).double(), atol=0.15)
    assert each[:, 0].max() == 0
    assert each[:, 4].min() == 1


def test_open_sizes(calls):
    _, chance, compiled = calls
    found = compiled(torch.full((7, 50), 5.0), chance)
    assert found[2].shape == found[3].shape == found[5].shape == (7, 50)
    assert 4.5 < found[3].mean() < 5.5
