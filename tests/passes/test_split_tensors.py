"""One rank of a split graph: structure, all ranks together the same numbers, what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import tvm
from parallel_support import run_ranks, split
from torch import nn
from tvm.script import ir as I
from tvm.script import relax as R

from burnish.compiler.driver import import_model
from burnish.compiler.parallel.make import split_model
from burnish.compiler.parallel.report import Collective, collectives_of
from burnish.models.bert import Bert, BertShape
from burnish.models.llama import Llama, LlamaShape
from burnish.passes.params import get_params, param_bytes
from burnish.passes.split_tensors import SplitTensors
from relax_support import op_names, random_inputs, random_params, run


@I.ir_module
class Before:
    """Two linear layers, a norm, a third."""

    @R.function
    def main(
        x: R.Tensor((2, 4), "float32"),
        w1: R.Tensor((5, 4), "float32"),
        b1: R.Tensor((5,), "float32"),
        w2: R.Tensor((5, 4), "float32"),
        b2: R.Tensor((4,), "float32"),
        w3: R.Tensor((4, 3), "float32"),
    ) -> R.Tensor((2, 3), "float32"):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            turned = R.permute_dims(w1)
            up = R.matmul(x, turned)
            biased = R.add(up, b1)
            act = R.nn.gelu(biased)
            down = R.matmul(act, w2)
            out = R.add(down, b2)
            norm = R.nn.softmax(out, axis=-1)
            last = R.matmul(norm, w3)
            R.output(last)
        return last


@I.ir_module
class Second:
    """The second of two ranks: columns 3 and 4 of five, and column 2 of three."""

    @R.function
    def main(
        x: R.Tensor((2, 4), "float32"),
        w1: R.Tensor((2, 4), "float32"),
        b1: R.Tensor((2,), "float32"),
        w2: R.Tensor((2, 4), "float32"),
        b2: R.Tensor((4,), "float32"),
        w3: R.Tensor((4, 1), "float32"),
    ) -> R.Tensor((2, 3), "float32"):
        R.func_attr({"num_input": 1, "split_tensors": [1, 2]})
        with R.dataflow():
            turned = R.permute_dims(w1)
            up = R.matmul(x, turned)
            biased = R.add(up, b1)
            act = R.nn.gelu(biased)
            part = R.matmul(act, w2)
            down = R.call_dps_packed(
                "burnish.all_reduce", (part, R.prim_value(0)), out_ty=R.Tensor((2, 4), "float32")
            )
            out = R.add(down, b2)
            norm = R.nn.softmax(out, axis=-1)
            last = R.matmul(norm, w3)
            R.output(last)
        gathered = R.call_dps_packed(
            "burnish.all_gather",
            (last, R.prim_value(1), R.prim_value(1), R.prim_value(2)),
            out_ty=R.Tensor((2, 3), "float32"),
        )
        return gathered


@pytest.fixture(scope="module")
def net() -> tvm.IRModule:
    return random_params(Before)


def test_columns_then_rows(net: tvm.IRModule) -> None:
    found = split(net, 2)[1]
    tvm.ir.assert_structural_equal(found["main"], Second["main"])
    values = {name: value.numpy() for name, value in get_params(net).items()}
    parts = {name: value.numpy() for name, value in get_params(found).items()}
    for name, wanted in (
        ("w1", values["w1"][3:]),
        ("b1", values["b1"][3:]),
        ("w2", values["w2"][3:]),
        ("b2", values["b2"]),
        ("w3", values["w3"][:, 2:]),
    ):
        np.testing.assert_array_equal(parts[name], wanted, name)


def test_the_ranks_together_are_the_whole(net: tvm.IRModule) -> None:
    inputs = random_inputs(net)
    (wanted,) = run(net, *inputs)
    for (found,) in run_ranks(split(net, 2), *inputs):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_split_once(net: tvm.IRModule) -> None:
    found = split(net, 2)[0]
    tvm.ir.assert_structural_equal(SplitTensors(2, 0, 1)(found), found)
    with pytest.raises(ValueError, match=r"is rank 0 of 2 already.*split the whole one"):
        SplitTensors(4, 1, 1)(found)


def test_small_weights_stay_whole(net: tvm.IRModule) -> None:
    found = split(net, 2, least=16)[0]
    assert op_names(found).count("call_dps_packed") == 1  # the pair; w3 has 12 elements
    assert param_bytes(split(net, 2, least=100)[0]) == param_bytes(net)


def test_refuses_ranks_that_are_none() -> None:
    with pytest.raises(ValueError, match=r"rank must be from 0 to 1.*got rank 2 of 2"):
        SplitTensors(2, 2)
    with pytest.raises(ValueError, match="least must be 1 or more"):
        SplitTensors(2, 0, 0)


@pytest.fixture(scope="module")
def grouped() -> tuple[torch.nn.Module, torch.Tensor]:
    """A decoder of SmolLM2's head numbers: 9 queries to 3 keys; tied vocabulary."""
    torch.manual_seed(0)
    net = Llama(LlamaShape(53, 36, 1, 9, 3, 30, 16)).eval()
    return net, torch.randint(0, 53, (1, 7))


def test_heads_that_share_keys(grouped: tuple[torch.nn.Module, torch.Tensor]) -> None:
    net, ids = grouped
    mods = split_model(import_model(net, (ids,)), 2, least=1)
    shapes = [
        {name.rpartition("attn.")[2]: value.shape for name, value in get_params(mod).items()}
        for mod in mods
    ]
    for of_rank, queries in zip(shapes, (20, 16), strict=True):
        assert of_rank["q_proj.weight"] == (queries, 36)
        assert of_rank["k_proj.weight"] == of_rank["v_proj.weight"] == (8, 36)  # 2 of 3 heads
        assert of_rank["o_proj.weight"] == (36, queries)
    # Lookup, attention, feed-forward; then the logits, gathered.
    whole = 7 * 36 * 4
    reduced = [Collective("all_reduce", whole)] * 3
    assert collectives_of(mods[0]) == (*reduced, Collective("all_gather", 7 * 53 * 4))


@I.ir_module
class Lookup:
    @R.function
    def main(ids: R.Tensor((1, 6), "int64"), table: R.Tensor((5, 3), "float32")) -> R.Tensor(
        (1, 6, 3), "float32"
    ):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            out = R.take(table, ids, axis=0, mode="clip")
            R.output(out)
        return out


def test_lookups_on_every_rank_and_out_of_range() -> None:
    table = random_params(Lookup)
    ids = np.array([[0, 2, 3, 4, -7, 99]])
    rows = get_params(table)["table"].numpy()
    for (found,) in run_ranks(split(table, 2), ids):
        np.testing.assert_array_equal(found, rows[np.clip(ids, 0, 4)])


@pytest.mark.heavy
def test_four_ranks(grouped: tuple[torch.nn.Module, torch.Tensor]) -> None:
    torch.manual_seed(1)
    bert = Bert(BertShape(50, 16, 2, 4, 30, 16)).eval()
    mask = torch.tensor([[1] * 5 + [0] * 3, [1] * 8])
    for net, inputs in ((bert, (torch.randint(0, 50, (2, 8)), mask)), (grouped[0], grouped[1:])):
        with torch.no_grad():
            wanted = net(*inputs).numpy()
        mods = split_model(import_model(net, inputs), 4, least=1)
        for (found,) in run_ranks(mods, *(x.numpy() for x in inputs)):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


class Products(nn.Module):
    """Attention written as products."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(24, 24) for _ in range(4))

    def forward(self, x):
        split = (*x.shape[:2], 6, 4)
        q, k, v = (part(x).view(split).transpose(1, 2) for part in (self.q, self.k, self.v))
        mixed = torch.softmax(q @ k.transpose(-1, -2) * 0.5, -1) @ v
        return x + self.o(mixed.transpose(1, 2).reshape(x.shape))


class Fused(nn.Module):
    """Queries, keys and values of one layer; a second result."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(24, 72), nn.Linear(24, 24)

    def forward(self, x):
        split = (*x.shape[:2], 6, 4)
        q, k, v = (part.view(split).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.o(mixed.transpose(1, 2).reshape(x.shape)), mixed.mean(-1)


class Chain(nn.Module):
    """Odd sizes; operators that carry no split, and several that read one value."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (24, 13, 7, 9)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x, x.sum(1), torch.cat([x, x], -1), torch.topk(x, 2)[0]


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("make", "kinds"),
    [
        (Products, ["all_reduce"]),
        (Fused, ["all_gather"] * 2),
        (Chain, ["all_reduce", "all_gather"]),
    ],
)
def test_other_forms(make: type[nn.Module], kinds: list[str]) -> None:
    torch.manual_seed(2)
    net, x = make().eval(), torch.randn(2, 5, 24)
    mods = split_model(import_model(net, (x,)), 2, least=1)
    assert [one.kind for one in collectives_of(mods[0])] == kinds
    with torch.no_grad():
        wanted = net(x)
    wanted = [wanted] if isinstance(wanted, torch.Tensor) else wanted
    for given in run_ranks(mods, x.numpy()):
        for found, one in zip(given, wanted, strict=True):
            np.testing.assert_allclose(found, one.numpy(), rtol=1e-5, atol=1e-5)
