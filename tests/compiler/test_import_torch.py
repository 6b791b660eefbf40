"""PyTorch models: names, structure and numbers as in eager, at two sizes where sizes are open."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from import_support import compiled, worst
from torch import nn

import burnish
from burnish.compiler.errors import ImportModelError, UnsupportedOperatorError
from burnish.compiler.importers import import_model
from burnish.compiler.importers import memory as memory_check
from burnish.passes.params import get_params, input_vars, weight_vars
from relax_support import op_names


class Block(nn.Module):
    """Embeddings by a table of positions, masked attention, norms, a tied output projection."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 16)
        self.places = nn.Embedding(64, 16)
        self.qkv = nn.Linear(16, 48)
        self.norm = nn.LayerNorm(16)
        self.rms = nn.RMSNorm(16)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.tokens.weight
        self.register_buffer("order", torch.arange(64)[None], persistent=False)
        self.register_buffer("causal", torch.ones(64, 64).tril().bool())
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 16))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        batch, seq = ids.shape
        x = self.tokens(ids) + self.places(self.order[:, :seq])
        q, k, v = self.qkv(x * self.scale).view(batch, seq, 3, 4, 4).permute(2, 0, 3, 1, 4)
        allowed = self.causal[:seq, :seq] & mask[:, None, None, :].bool()
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        x = self.rms(self.norm(F.silu(F.gelu(x.transpose(1, 2).reshape(batch, seq, 16)))))
        return {"logits": self.head(x), "hidden": x}


@pytest.fixture(scope="module")
def block() -> nn.Module:
    torch.manual_seed(0)
    return Block().eval()


def tokens(batch: int, seq: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and a mask that leaves the first row of the first item nothing to attend to."""
    rng = np.random.default_rng(seed)
    mask = (rng.random((batch, seq)) > 0.3).astype(np.int64)
    mask[0, 0] = 0
    return torch.from_numpy(rng.integers(0, 20, (batch, seq))), torch.from_numpy(mask)


def eager(model: nn.Module, *args: torch.Tensor) -> list[np.ndarray]:
    with torch.no_grad():
        return [t.numpy() for t in torch.utils._pytree.tree_leaves(model(*args))]


def test_open_sizes_names_and_whole_operators(block: nn.Module) -> None:
    both = {0: "batch", 1: "seq"}
    # An example of batch 1 must not fix the batch.
    read = import_model(block, tokens(1, 8), dynamic={"ids": both, "mask": both})
    assert read.kind == "torch"
    assert read.baseline_model is block

    assert [str(spec) for spec in read.signature.inputs] == [
        "ids: int64[batch, seq]",
        "mask: int64[batch, seq]",
    ]
    assert [str(spec) for spec in read.signature.outputs] == [
        "logits: float32[batch, seq, 20]",
        "hidden: float32[batch, seq, 16]",
    ]
    # The table of positions limits the sequence, nothing the batch.
    assert read.signature.symbols == {"batch": (1, None), "seq": (1, 64)}
    assert read.signature.unflatten([1, 2]) == {"logits": 1, "hidden": 2}

    assert [var.name for var in weight_vars(read.mod)] == [
        "tokens.weight",  # and head.weight, which is the same memory
        "places.weight",
        "qkv.weight",
        "qkv.bias",
        "norm.weight",
        "norm.bias",
        "rms.weight",
        "scale",
    ]
    state = block.state_dict()
    for name, value in get_params(read.mod).items():
        np.testing.assert_array_equal(value.numpy(), state[name].numpy())

    counts = Counter(op_names(read.mod))
    for name in ("attention_bias", "layer_norm", "rms_norm", "gelu", "silu"):
        assert counts[f"nn.{name}"] == 1
    assert counts["matmul"] == 2
    assert "match_cast" not in read.mod.script()

    ready = compiled(read.mod)
    for batch, seq in ((3, 5), (1, 64), (2, 1)):
        args = tokens(batch, seq, seed=seq)
        assert worst(ready(*(t.numpy() for t in args)), eager(block, *args)) < 1e-5


def test_transposes_around_attention_cancel() -> None:
    class Heads(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q = x.view(2, 5, 4, 4).transpose(1, 2)
            return F.scaled_dot_product_attention(q, q, q, is_causal=True).transpose(1, 2)

    read = import_model(Heads().eval(), (torch.randn(2, 5, 16),))
    assert op_names(read.mod) == ["reshape", "nn.attention"]


def test_the_imported_weights_are_a_copy() -> None:
    model = nn.Linear(3, 2).eval()
    read = import_model(model, (torch.ones(1, 3),))
    before = get_params(read.mod)["weight"].numpy().copy()
    with torch.no_grad():
        model.weight.zero_()
    np.testing.assert_array_equal(get_params(read.mod)["weight"].numpy(), before)


def test_hash_follows_the_content() -> None:
    torch.manual_seed(0)
    model, args = nn.Linear(3, 2).eval(), (torch.ones(1, 3),)
    first = import_model(model, args).source_hash
    assert import_model(model, args).source_hash == first
    with torch.no_grad():
        model.weight[0, 0] += 1
    assert import_model(model, args).source_hash != first


def test_dims_as_objects_keep_their_range() -> None:
    model = nn.Linear(3, 2).eval()
    dim = torch.export.Dim("rows", min=2, max=16)
    read = import_model(model, (torch.ones(4, 3),), dynamic={"input": {0: dim}})
    assert read.signature.symbols == {"rows": (2, 16)}


class Nested(nn.Module):
    def forward(
        self, pair: tuple[torch.Tensor, dict[str, torch.Tensor]], scale: float = 1.0, unused=None
    ):
        x, more = pair
        return (x * scale, {"sum": [x + more["y"]], "none": None})


def test_nested_and_constant_arguments() -> None:
    x, y = torch.ones(2, 3), torch.ones(2, 3)
    read = import_model(Nested().eval(), {"pair": (x, {"y": y}), "scale": 2.0})
    assert [str(spec) for spec in read.signature.inputs] == [
        "pair_0: float32[2, 3]",
        "pair_1_y: float32[2, 3]",
    ]
    flat = read.signature.flatten(((x, {"y": y}),))
    assert flat[0] is x
    assert flat[1] is y
    assert read.signature.unflatten([1, 2]) == (1, {"sum": [2], "none": None})
    got = compiled(read.mod)(x.numpy(), y.numpy())
    assert worst(got, [2 * x.numpy(), (x + y).numpy()]) == 0


def test_unused_inputs_stay() -> None:
    class First(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + 1

    read = import_model(First().eval(), (torch.ones(2), torch.ones(3)))
    assert [var.name for var in input_vars(read.mod)] == ["x", "y"]


def test_half_and_bfloat16_stay() -> None:
    for dtype, name in ((torch.float16, "float16"), (torch.bfloat16, "bfloat16")):
        model = nn.Sequential(nn.Conv1d(4, 4, 1), nn.Linear(8, 3)).to(dtype).eval()
        read = import_model(model, (torch.ones(2, 4, 8, dtype=dtype),))
        assert {str(value.dtype) for value in get_params(read.mod).values()} == {name}
        assert read.signature.outputs[0].dtype == name
        assert str(read.mod["main"].ret_ty.fields[0].dtype) == name


def test_exported_programs_and_files(tmp_path: Path) -> None:
    model, args = nn.Linear(3, 2).eval(), (torch.ones(4, 3),)
    program = torch.export.export(model, args)
    torch.export.save(program, tmp_path / "m.pt2")
    want = eager(model, *args)
    for source in (program, tmp_path / "m.pt2", str(tmp_path / "m.pt2")):
        read = import_model(source)
        assert [var.name for var in weight_vars(read.mod)] == ["weight", "bias"]
        assert [name for name, _ in read.signature.arguments] == ["input"]
        assert worst(compiled(read.mod)(args[0].numpy()), want) < 1e-6
    with pytest.raises(ImportModelError, match="ExportedProgram has its dynamic sizes fixed"):
        import_model(program, dynamic={"input": {0: "batch"}})


def test_training_mode_warns_and_is_restored() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    with pytest.warns(UserWarning, match=r"training mode; it is imported as in model.eval\(\)"):
        read = import_model(model, (torch.randn(4, 3),))
    assert all(module.training for module in model.modules())
    assert op_names(read.mod) == ["nn.batch_norm"]
    assert [var.name for var in weight_vars(read.mod)] == [
        "0.weight",
        "0.bias",
        "0.running_mean",
        "0.running_var",
    ]


class Calls(nn.Module):
    """A function as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


def test_every_unsupported_operator_is_listed() -> None:
    class Inner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pooled = F.avg_pool2d(x, 2, divisor_override=3)  # a form that has no converter
            return torch.special.bessel_j0(x)[:, :, :2, :2] + torch.igamma(pooled, pooled)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(self.inner(x))

    with pytest.raises(UnsupportedOperatorError) as caught:
        import_model(Outer().eval(), (torch.ones(1, 1, 4, 4),))
    text = str(caught.value)
    assert "3 torch operators cannot be imported:\naten.avg_pool2d.default x1: divisor" in text
    found = {item.name: item for item in caught.value.operators}
    bessel = found["aten.special_bessel_j0.default"]
    assert bessel.count == 2
    assert bessel.nodes[0].startswith("inner:")
    assert bessel.shapes == ("(float32[1, 1, 4, 4])", "(float32[1, 1, 2, 2])")
    assert bessel.sources[1].startswith("test_import_torch.py:")
    assert bessel.sources[1].endswith("in forward: return torch.special.bessel_j0(self.inner(x))")
    assert "burnish.register_converter('aten::special_bessel_j0', fn)" in bessel.remedy
    for part in (*bessel.nodes, *bessel.shapes, *bessel.sources, bessel.remedy):
        assert part in text
    assert found["aten.igamma.default"].count == 1
    assert found["aten.avg_pool2d.default"].reason.startswith("divisor_override has no converter")


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return x + self.seen


@pytest.mark.parametrize(
    ("model", "examples", "dynamic", "message"),
    [
        (nn.Linear(3, 2), None, None, r"needs example_inputs: .* forward\(input"),
        (nn.Linear(3, 2), (), None, "example_inputs do not fit the model .*missing.*'input'"),
        (nn.Linear(3, 2), (torch.ones(3),) * 2, None, "do not fit the model .*too many"),
        (nn.Linear(3, 2), 3, None, "must be a tuple of positional or a mapping .* got int"),
        (nn.Linear(3, 2), (torch.ones(4),), None, "torch.export refused the model: "),
        (nn.Linear(3, 2), (torch.ones(1, 3),), {"x": {0: "n"}}, "'x'; the model's inputs are: inp"),
        (nn.Linear(3, 2), (torch.ones(1, 3),), {"input": {5: "n"}}, r"axis 5 .* shape \(1, 3\)"),
        (nn.Linear(3, 2), (torch.ones(1, 3),), {"input": {0: "a b"}}, "a name like 'batch'"),
        (nn.Linear(3, 2), (torch.ones(2, 3),), {"input": {1: "n"}}, r"refused .*\(dynamic=...\)"),
        (Remembers(), (torch.ones(1),), None, "writes to its buffer 'seen' in forward"),
        (Calls(lambda x: x.add_(1)), (torch.ones(1),), None, "writes to its input"),
        (
            Calls(lambda x: F.avg_pool2d(x, 2, divisor_override=3)),
            (torch.ones(1, 1, 4, 4),),
            None,
            r"avg_pool2d.*divisor_override has no converter",
        ),
        (
            Calls(lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear")),
            (torch.ones(1, 1, 7, 7),),
            None,
            "scale factor 1.7 of size 7 is not whole",
        ),
    ],
)
def test_refusals_say_what_to_do(model, examples, dynamic, message: str) -> None:
    with pytest.raises(ImportModelError, match=message):
        import_model(model.eval(), examples, dynamic=dynamic)


def test_unknown_kinds_of_model() -> None:
    with pytest.raises(ImportModelError, match=r"cannot import dict: give a torch.nn.Module"):
        import_model({})


def test_too_large_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        available = 1000

    monkeypatch.setattr(memory_check.psutil, "virtual_memory", Memory)
    with pytest.raises(ImportModelError, match=r"parameters take 0.0 MiB and .* 0.0 MiB free"):
        import_model(nn.Linear(30, 20).eval(), (torch.ones(1, 30),))


def test_a_large_model_states_both_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        available = 3 * 2**30

    monkeypatch.setattr(memory_check.psutil, "virtual_memory", Memory)
    with pytest.raises(ImportModelError, match=r"take 2.00 GiB and .* about 4.00 GiB, with 3"):
        memory_check.check_memory(2 * 2**30, copies=2)


def test_tied_weights_are_stored_once() -> None:
    """The table of tokens and the projection back read one array, packed for the product."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(1000, 64)
            self.head = nn.Linear(64, 1000, bias=False)
            self.head.weight = self.tokens.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(torch.tanh(self.tokens(ids)))

    model, ids = Tied().eval(), torch.randint(0, 1000, (2, 7))
    ready = burnish.compile(model, (ids,), do_no_harm=False)
    (weight,) = ready.params.values()
    assert 1000 * 64 <= weight.numpy().size < 1.1 * 1000 * 64
    assert worst([ready(ids).numpy()], eager(model, ids)) < 1e-6
