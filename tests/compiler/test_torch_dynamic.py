"""Open sizes of PyTorch models: however the arguments nest, within their ranges, by one name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from import_support import compiled, worst
from torch import Tensor, nn
from torch.export import Dim

import burnish
from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers import import_model


@dataclass
class Pair:
    left: Tensor
    right: Tensor | None = None
    more: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Answer:
    total: Tensor
    parts: list[Tensor]
    none: Tensor | None = None


class Nested(nn.Module):
    """A dataclass, a dict, a list and a keyword in; another dataclass out."""

    def forward(self, pair: Pair, named: dict[str, list[Tensor]], *, scale: Tensor) -> Answer:
        total = pair.left * scale + named["y"][0]
        return Answer(total, [pair.more["z"] + 1, named["y"][0].sum(0)])


def nested(rows: int) -> dict[str, Any]:
    torch.manual_seed(rows)
    return {
        "pair": Pair(torch.randn(rows, 3), None, {"z": torch.randn(rows, 2)}),
        "named": {"y": [torch.randn(rows, 3)]},
        "scale": torch.randn(3),
    }


def test_nested_and_dataclass_arguments_stay_open() -> None:
    model, rows = Nested().eval(), {0: "rows"}
    dynamic = {"pair": {"left": rows, "more": {"z": ["rows"]}}, "named": {"y": [rows]}}
    read = import_model(model, nested(1), dynamic=dynamic)
    assert [str(spec) for spec in read.signature.inputs] == [
        "pair_left: float32[rows, 3]",
        "pair_more_z: float32[rows, 2]",
        "named_y_0: float32[rows, 3]",
        "scale: float32[3]",
    ]
    assert [str(spec) for spec in read.signature.outputs] == [
        "total: float32[rows, 3]",
        "parts.0: float32[rows, 2]",
        "parts.1: float32[3]",
    ]
    ready = compiled(read.mod)
    for count in (1, 3, 8):
        values = nested(count)
        flat = read.signature.flatten((), values)
        got = ready(*(t.numpy() for t in flat))
        want = model(**values)
        assert worst(got, [t.numpy() for t in (want.total, *want.parts)]) < 1e-6
    out = read.signature.unflatten([1, 2, 3])
    assert (out.total, out.parts, out.none) == (1, [2, 3], None)


class Rest(nn.Module):
    def forward(self, *parts: Tensor, scale: Tensor | None = None) -> Tensor:
        return sum(parts) if scale is None else sum(parts) * scale


def test_sequences_say_sizes_by_position_and_varargs_have_names() -> None:
    x = torch.ones(2, 3)
    rows = [{0: "rows"}, ("rows", None)]
    read = import_model(Rest().eval(), (x, x), dynamic=rows)
    named = import_model(Rest().eval(), (x, x), dynamic={"parts_0": rows[0], "parts_1": rows[1]})
    for got in (read, named):
        assert [str(spec) for spec in got.signature.inputs] == [
            "parts_0: float32[rows, 3]",
            "parts_1: float32[rows, 3]",
        ]
    five = np.ones((5, 3), np.float32)
    assert worst(compiled(read.mod)(five, five), [2 * five]) == 0


class Positions(nn.Module):
    """A table of 64 positions, of which a model reads the first ``seq``, however many."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(64, 4))
        self.register_buffer("order", torch.arange(64)[None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        seq = x.shape[1]
        last = torch.arange(seq).clamp(max=63)
        return x + self.table[self.order[:, :seq]] + self.table[:seq] * self.table[last]


@pytest.mark.parametrize(
    ("size", "limits"),
    [
        ("seq", (1, 64)),
        (Dim("seq"), (1, 64)),
        (Dim("seq", max=32), (1, 32)),
        (Dim("seq", min=3, max=64), (3, 64)),
        (Dim("seq", min=5, max=100), (5, 64)),
    ],
)
def test_ranges_come_from_the_user_and_the_model(size: Any, limits: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = Positions().eval()
    read = import_model(model, (torch.randn(2, 8, 4),), dynamic={"x": {0: "batch", 1: size}})
    assert read.signature.symbols == {"batch": (1, None), "seq": limits}
    text = read.mod.script()
    assert "match_cast" not in text
    assert "T.min" not in text
    ready = compiled(read.mod)
    for batch, seq in ((1, limits[0]), (3, limits[1]), (2, 7)):
        x = torch.randn(batch, seq, 4)
        assert worst(ready(x.numpy()), [model(x).detach().numpy()]) < 1e-6


def test_one_name_is_one_size_though_the_model_limits_it() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = Positions(), Positions()

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return self.one(x), self.other(y)

    x = torch.randn(1, 8, 4)
    both = {1: "seq"}
    read = import_model(Two().eval(), (x, x), dynamic={"x": both, "y": both})
    assert [str(spec) for spec in read.signature.inputs] == [
        "x: float32[1, seq, 4]",
        "y: float32[1, seq, 4]",
    ]
    assert read.signature.symbols == {"seq": (1, 64)}


class First(nn.Module):
    def forward(self, x: Tensor, rest: dict[str, Tensor], flag: bool = True) -> Tensor:
        return x + rest["y"]


X = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("dynamic", "message"),
    [
        ("batch", "must be a mapping of arguments, or a sequence .* got 'batch'"),
        ([None] * 4, "has 4 items for the model's inputs: x, rest"),
        ({"z": {0: "n"}}, "names the input 'z'; the model's inputs are: x, rest, flag"),
        ({"x": {2: "n"}}, r"axis 2 of input 'x', a tensor of shape \(2, 3\)"),
        ({"x": {"y": "n"}}, "axis 'y' of input 'x': an axis is a number"),
        ({"x": "n"}, "open sizes of input 'x' must be a mapping like .* got 'n'"),
        ({"x": {0: "a b"}}, "needs a name like 'batch', got 'a b'"),
        ({"rest": {"z": {0: "n"}}}, "names 'z' in input 'rest', which has: 'y'"),
        ({"rest": 3}, "must follow the nesting of input 'rest', which has 1 parts; got 3"),
        ({"flag": {0: "n"}}, "gives sizes for input 'flag', which is no tensor"),
        (
            {"x": {0: Dim("n", max=8)}, "rest": {"y": {0: Dim("n", max=9)}}},
            r"gives 'n' two ranges: \(0, 8\) and \(0, 9\)",
        ),
    ],
)
def test_what_dynamic_says_wrong(dynamic: Any, message: str) -> None:
    with pytest.raises(ImportModelError, match=message):
        import_model(First().eval(), (X, {"y": X}, True), dynamic=dynamic)


def test_modules_in_training_are_named_and_left_so() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3))).eval()
    model[1][0].train()
    with pytest.warns(UserWarning, match=r"^1.0 of the model are in training mode; .*eval\(\)"):
        import_model(model, (X,))
    assert [m.training for m in model.modules()] == [False, False, False, True, False]


def test_attention_without_heads_may_have_an_open_batch():
    class Attend(torch.nn.Module):
        def forward(self, x, mask):
            attend = torch.nn.functional.scaled_dot_product_attention
            return (
                attend(x, x, x),
                attend(x, x, x, is_causal=True, scale=0.2),
                attend(x, x, x, attn_mask=mask > 0),
                attend(x, x, x, attn_mask=mask[0]),
                attend(x, x, x, attn_mask=mask),
            )

    net = Attend().eval()
    open_sizes = {"x": {0: "batch", 1: "length"}, "mask": {0: "batch", 1: "length", 2: "length"}}
    compiled = burnish.compile(
        net, (torch.randn(3, 6, 8), torch.randn(3, 6, 6)), dynamic=open_sizes
    )
    for batch, length in ((2, 5), (4, 9), (1, 3)):
        x, mask = torch.randn(batch, length, 8), torch.randn(batch, length, length)
        for found, wanted in zip(compiled(x, mask), net(x, mask), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
