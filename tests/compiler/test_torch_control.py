"""``torch.cond``, ``while_loop``, ``scan`` and ``map`` against eager, by our pipeline."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from import_support import worst
from kernel_support import Built, lowered
from torch import Tensor, nn
from torch._higher_order_ops import associative_scan, scan, while_loop
from torch._higher_order_ops.map import map as map_each

from burnish.compiler.errors import ImportModelError, UnsupportedOperatorError
from burnish.compiler.importers import import_model

LEAVES = torch.utils._pytree.tree_leaves


def normal(*shape: int, seed: int | None = None) -> Tensor:
    made = torch.Generator()
    made.seed() if seed is None else made.manual_seed(seed)
    return torch.randn(shape, generator=made)


def ready(model: nn.Module, examples: tuple[Any, ...], dynamic: Any = None) -> Callable[..., float]:
    """How far the compiled model is from eager, as a function of its inputs."""
    read = import_model(model.eval(), examples, dynamic=dynamic)
    build = Built(lowered(read.mod))

    def error(*args: Any) -> float:
        with torch.no_grad():
            want = [np.asarray(leaf) for leaf in LEAVES(model(*args))]
        return worst(build(*(t.numpy() for t in read.signature.flatten(args))), want)

    error.kernels = build.kernels  # type: ignore[attr-defined]
    error.signature = read.signature  # type: ignore[attr-defined]
    return error


class Branches(nn.Module):
    """Four outcomes by data and by a size; each reads its own weights, a buffer and a size."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(3, 3), nn.Linear(3, 3)
        self.register_buffer("shift", torch.linspace(-1, 1, 3))

    def forward(self, x: Tensor) -> dict[str, Any]:
        def deeper(x: Tensor) -> tuple[Tensor, Tensor]:
            return torch.cond(
                x[0, 0] > 0,
                lambda x: (self.one(x) + self.shift, x.argmax(1)),
                lambda x: (torch.tanh(self.other(x)) * x.shape[0], x.argmin(1)),
                (x,),
            )

        def plain(x: Tensor) -> tuple[Tensor, Tensor]:
            return self.other(self.one(x)), torch.zeros_like(x[:, 0], dtype=torch.int64)

        y, place = torch.cond(x.sum() > 0, deeper, plain, (x,))
        many = torch.cond(x.shape[0] > 4, lambda y: y * 2, lambda y: y - 1, (y,))
        return {"y": many + x, "place": place}


@pytest.mark.heavy
def test_branches_by_data_and_by_size() -> None:
    error = ready(Branches(), (normal(2, 3),), {"x": {0: "batch"}})
    for batch in (1, 4, 5, 9):
        for shift in (-3.0, 3.0):
            x = normal(batch, 3) + shift
            assert error(x) < 1e-6
            x[0, 0] = -1.0
            assert error(x) < 1e-6


@pytest.mark.heavy
def test_sizes_fixed_and_a_predicate_known_at_import() -> None:
    class Chosen(Branches):
        def forward(self, x: Tensor, flag: bool = True) -> Any:
            more = torch.cond(flag, lambda x: (x + 1,), lambda x: (x - 1,), (x,))
            return super().forward(x), more

    error = ready(Chosen(), (normal(5, 3), False))
    for shift in (-3.0, 3.0):
        assert error(normal(5, 3) + shift, False) < 1e-6


class Rounds(nn.Module):
    """A loop of as many rounds as an input says, or until the sum is large; branches inside."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, trips: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        def goes(step: Tensor, x: Tensor) -> Tensor:
            return (step < trips) & (x.abs().sum() < 1000)

        def body(step: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            x = torch.cond(
                x.mean() > 0, lambda x: self.layer(x) * 1.5, lambda x: x.abs() + step, (x,)
            )
            return step + 1, x

        return while_loop(goes, body, (torch.zeros((), dtype=torch.int64), x))


@pytest.fixture(scope="module")
def rounds() -> Callable[..., float]:
    torch.manual_seed(0)
    return ready(Rounds(), (torch.tensor(3), normal(2, 3)), {"x": {0: "batch"}})


@given(trips=st.integers(0, 40), batch=st.integers(1, 5), seed=st.integers(0, 1000))
def test_rounds_known_at_run_time(rounds: Any, trips: int, batch: int, seed: int) -> None:
    assert rounds(torch.tensor(trips), normal(batch, 3, seed=seed)) < 1e-4


@pytest.mark.heavy
def test_a_loop_in_a_branch_counts_with_a_plain_number() -> None:
    class Counted(nn.Module):
        def forward(self, x: Tensor) -> Any:
            def many(x: Tensor) -> Tensor:
                _step, y = while_loop(
                    lambda step, y: y.abs().sum() < 90,
                    lambda step, y: (step + 2, y * 1.5 + step),
                    (0, x),
                )
                return y * 2

            y = torch.cond(x.max() > 0, many, lambda x: -x, (x,))
            return y, *while_loop(lambda n, y: n * n < 90, lambda n, y: (n + 1, y + n), (1, y))

    error = ready(Counted(), (normal(3, 4),), {"x": {0: "rows"}})
    assert [str(spec) for spec in error.signature.outputs][1] == "1: int64[]"  # type: ignore[attr-defined]
    for rows in (1, 4, 7):
        assert error(normal(rows, 4) + 3) < 1e-5
        assert error(normal(rows, 4) - 9) < 1e-5


@pytest.mark.heavy
def test_attention_and_convolutions_inside() -> None:
    """Masks made outside, lengths that passes write as ``t + 2 - 2``."""

    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.mix = nn.Conv1d(4, 4, 3, padding=1)

        def forward(self, x: Tensor, trips: Tensor) -> Tensor:
            past = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()

            def body(step: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
                q = x[:, None]
                attended = nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=past)
                return step + 1, attended[:, 0] + x

            start = torch.zeros((), dtype=torch.int64)
            _, y = while_loop(lambda step, _: step < trips, body, (start, x))
            return torch.cond(
                y.sum() > 0,
                lambda y: self.attention(y, y, y)[0] + 1,
                lambda y: self.mix(y.transpose(1, 2)).transpose(1, 2).contiguous(),
                (y,),
            )

    torch.manual_seed(0)
    dynamic = {"x": {0: "batch", 1: "time"}}
    error = ready(Inside(), (normal(2, 5, 4), torch.tensor(2)), dynamic)
    for batch, time in ((2, 5), (1, 9), (3, 2)):
        for trips in (0, 3):
            for shift in (-3, 3):
                x = normal(batch, time, 4, seed=trips) + shift
                assert error(x, torch.tensor(trips)) < 1e-5


class Steps(nn.Module):
    """Two states over two inputs; rows of two dtypes, and what is scanned backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.again = nn.Linear(4, 5), nn.Linear(5, 5)

    def forward(self, x: Tensor, h: Tensor) -> Any:
        def step(state: dict[str, Tensor], row: tuple[Tensor, Tensor]) -> Any:
            new = torch.tanh(self.into(row[0]) + self.again(state["h"]))
            total = state["total"] + row[1].sum()
            return {"h": new, "total": total}, (new * 2, new.argmax(-1), total + 0)

        start = {"h": h, "total": h.sum()}
        forwards = scan(step, start, (x, x.flip(0)), dim=0)
        return forwards, scan(
            step, start, (x.transpose(0, 1), x.transpose(0, 1)), dim=1, reverse=True
        )


@pytest.mark.parametrize(
    ("steps", "dynamic", "tries"),
    [
        (3, None, (3,)),  # written out
        pytest.param(70, None, (70,), marks=pytest.mark.heavy),  # functions
        pytest.param(
            3,
            {"x": {0: "time", 1: "batch"}, "h": {0: "batch"}},
            (2, 3, 60),
            marks=pytest.mark.heavy,
        ),
    ],
)
def test_scans(steps: int, dynamic: Any, tries: tuple[int, ...]) -> None:
    torch.manual_seed(steps)
    error = ready(Steps(), (normal(steps, 2, 4), normal(2, 5)), dynamic)
    for length in tries:
        batch = 2 if dynamic is None else 1 + length % 3
        assert error(normal(length, batch, 4), normal(batch, 5)) < 1e-5
    assert len(error.kernels) < 90  # type: ignore[attr-defined]


def test_weights_are_laid_out_once_not_in_each_step() -> None:
    read = import_model(Steps().eval(), (normal(70, 2, 4), normal(2, 5)))
    transposed = {
        var.name_hint: "permute_dims" in read.mod[var].script()
        for var in read.mod.get_global_vars()
    }
    assert len(transposed) > 5
    assert [name for name, found in transposed.items() if found] == ["main"]


@pytest.mark.heavy
def test_maps_and_associative_scans() -> None:
    class Each(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: Tensor, y: Tensor) -> Any:
            each = map_each(lambda a, y: self.layer(a).softmax(-1) + y, x, y)
            return each, associative_scan(
                lambda a, b: a * 0.5 + b, y.expand(6, 2), dim=0, combine_mode="generic"
            )

    error = ready(Each(), (normal(4, 2, 3), normal(2)), {"x": {0: "rows"}})
    for rows in (2, 5, 40):
        assert error(normal(rows, 2, 3), normal(2)) < 1e-6


def refused(function: Callable[..., Any], *args: Any, dynamic: Any = None) -> ImportModelError:
    class Calls(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return function(x)

    with pytest.raises(ImportModelError) as caught:
        import_model(Calls().eval(), args, dynamic=dynamic)
    return caught.value


def test_what_is_refused_inside_is_listed_once() -> None:
    def body(state: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        return state + torch.special.bessel_j0(row), row + 1

    error = refused(lambda x: scan(body, x[0], x, dim=0), normal(5, 3))
    assert isinstance(error, UnsupportedOperatorError)
    (found,) = error.operators
    assert (found.name, found.count) == ("aten.special_bessel_j0.default", 1)


@pytest.mark.parametrize(
    ("function", "dynamic", "message"),
    [
        (
            lambda x: torch.cond(x.sum() > 0, lambda x: x[:1] + 1, lambda x: x + 1, (x,)),
            None,
            "cond.*branches give",
        ),
        (
            lambda x: while_loop(
                lambda n, x: n < 3, lambda n, x: (n + 1, torch.cat([x, x])), (torch.tensor(0), x)
            ),
            None,
            "torch.export refused the model",
        ),
        (
            lambda x: associative_scan(lambda a, b: a + b, x, dim=0, combine_mode="generic"),
            {"x": {0: "rows"}},
            r"joins a size of \d+ with one of .*keep this size fixed",
        ),
        (
            lambda x: x.new_ones(
                while_loop(lambda n, y: n < 3, lambda n, y: (n + 1, y + 1), (0, x))[0]
            ),
            None,
            "depends on the values of a tensor",
        ),
    ],
)
def test_refusals(function: Any, dynamic: Any, message: str) -> None:
    assert re.search(message, str(refused(function, normal(5, 3), dynamic=dynamic)), re.DOTALL)
