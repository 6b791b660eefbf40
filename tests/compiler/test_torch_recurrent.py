"""torch's LSTM, GRU and RNN against eager, over layers, options, dtypes and open sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_support import Built, lowered
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence

from burnish.compiler.errors import ImportModelError, UnsupportedOperatorError
from burnish.compiler.importers import import_model, survey_model
from burnish.compiler.importers.tensors import to_numpy
from burnish.passes.params import get_params

KINDS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
BOTH = {"input": {0: "first", 1: "second"}}
TOLERANCE = {torch.float16: 4e-3, torch.bfloat16: 3e-2}


def eager(model: nn.Module, *inputs: Any) -> list[np.ndarray]:
    with torch.no_grad():
        leaves = torch.utils._pytree.tree_leaves(model(*inputs))
    return [to_numpy(leaf.float()) for leaf in leaves]


def close(got: Sequence[np.ndarray], want: Sequence[np.ndarray], tolerance: float = 2e-5) -> None:
    assert [a.shape for a in got] == [b.shape for b in want]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a.astype(np.float32), b, rtol=0, atol=tolerance)


def check(model: nn.Module, *inputs: Any, dynamic: Any = None, others: Sequence[Any] = ()) -> None:
    """Imported and built, the layer gives what it gives in eager, for these and other inputs."""
    read = import_model(model.eval(), inputs, dynamic=dynamic)
    build = Built(lowered(read.mod))
    for values in (inputs, *others):
        flat = torch.utils._pytree.tree_leaves(values)
        close(
            build(*map(to_numpy, flat)),
            eager(model, *values),
            TOLERANCE.get(flat[0].dtype, 2e-5),
        )


def layer(kind: str, *sizes: int, dtype: torch.dtype = torch.float32, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    return KINDS[kind](*sizes, **more).to(dtype).eval()


def states(kind: str, layers: int, *sizes: int, projected: int = 0) -> Any:
    """First states for ``layers`` layers and directions of ``[batch, units]``."""
    h = torch.randn(layers, *sizes[:-1], projected or sizes[-1])
    return (h, torch.randn(layers, *sizes)) if kind == "LSTM" else h


@pytest.mark.parametrize(
    "kind", ["GRU", *(pytest.param(k, marks=pytest.mark.heavy) for k in ("LSTM", "RNN"))]
)
def test_layers_in_two_directions_with_first_states(kind: str) -> None:
    model = layer(kind, 5, 19, num_layers=2, bidirectional=True, batch_first=True, dropout=0.5)
    check(model, torch.randn(3, 6, 5), states(kind, 4, 3, 19))


def test_projected_states() -> None:
    model = layer("LSTM", 5, 37, num_layers=2, proj_size=18)
    check(model, torch.randn(6, 2, 5), states("LSTM", 2, 2, 37, projected=18))


@pytest.mark.parametrize("kind", ["RNN", pytest.param("GRU", marks=pytest.mark.heavy)])
def test_without_biases_and_without_batch(kind: str) -> None:
    check(layer(kind, 3, 16, bias=False), torch.randn(6, 3))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("LSTM", torch.bfloat16),
        pytest.param("GRU", torch.float16, marks=pytest.mark.heavy),
        pytest.param("RNN", torch.float64, marks=pytest.mark.heavy),
    ],
)
def test_other_numbers(kind: str, dtype: torch.dtype) -> None:
    check(layer(kind, 8, 16, dtype=dtype), torch.randn(6, 2, 8).to(dtype))


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("LSTM", {"batch_first": True}),
        pytest.param("GRU", {"num_layers": 2, "bidirectional": True}, marks=pytest.mark.heavy),
        pytest.param("LSTM", {"bidirectional": True}, marks=pytest.mark.heavy),
        pytest.param("LSTM", {"proj_size": 9, "batch_first": True}, marks=pytest.mark.heavy),
        pytest.param("RNN", {"nonlinearity": "relu"}, marks=pytest.mark.heavy),
    ],
)
def test_steps_and_batch_may_stay_open(kind: str, more: dict[str, Any]) -> None:
    others = [(torch.randn(a, b, 5),) for a, b in ((1, 1), (40, 3), (2, 17))]
    check(layer(kind, 5, 20, **more), torch.randn(3, 4, 5), dynamic=BOTH, others=others)


class Cells(nn.Module):
    """A cell in a loop of the user's own; its states are the results."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, input: torch.Tensor) -> Any:
        state = None
        for x in input.unbind(0):
            state = self.cell(x, state)
        return state


@pytest.mark.heavy
@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    check(Cells(kind(5, 7)), torch.randn(3, 2, 5))


@pytest.mark.heavy
@settings(deadline=None, max_examples=15)  # a build each
@given(st.data())
def test_any_layer_is_what_eager_gives(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    steps, batch, features, units = (data.draw(st.integers(1, n)) for n in (7, 9, 12, 40))
    layers, ways = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2))
    more: dict[str, Any] = {name: data.draw(st.booleans()) for name in ("bias", "batch_first")}
    if kind == "RNN":
        more["nonlinearity"] = data.draw(st.sampled_from(["tanh", "relu"]))
    projected = 0
    if kind == "LSTM" and units > 1 and data.draw(st.booleans()):
        projected = more["proj_size"] = data.draw(st.integers(1, units - 1))
    model = layer(kind, features, units, num_layers=layers, bidirectional=ways == 2, **more)
    sizes = [batch, steps] if more["batch_first"] else [steps, batch]
    rows = [batch]
    if data.draw(st.booleans(), label="no batch"):
        sizes, rows = [steps], []
    inputs: list[Any] = [torch.randn(*sizes, features)]
    if data.draw(st.booleans(), label="states given"):
        inputs.append(states(kind, layers * ways, *rows, units, projected=projected))
    dynamic = None
    if rows and len(inputs) == 1 and data.draw(st.booleans(), label="open"):
        dynamic = BOTH
    check(model, *inputs, dynamic=dynamic)


class Twice(nn.Module):
    """One layer read twice, and one of its weights by another operator too."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.lstm(self.lstm(x)[0])
        return y * self.lstm.weight_hh_l0.sum()


def test_weights_keep_their_names_and_are_stored_once() -> None:
    torch.manual_seed(0)
    model, x = Twice().eval(), torch.randn(5, 2, 4)
    read = import_model(model, (x,))
    assert list(get_params(read.mod)) == [
        "lstm.weight_hh_l0",  # of the sum
        "lstm.weight_ih_l0",
        "lstm.bias_ih_l0",
        "lstm.weight_hh_l0~1",
    ]
    close(Built(lowered(read.mod))(to_numpy(x)), eager(model, x))


@pytest.mark.heavy
def test_weights_made_at_run_time() -> None:
    model = layer("GRU", 4, 20)
    parametrizations.weight_norm(model, "weight_hh_l0")
    check(model, torch.randn(5, 2, 4))


def test_many_steps_are_few_kernels_and_work_is_counted() -> None:
    model, x = layer("LSTM", 16, 48, batch_first=True), torch.randn(1, 300, 16)
    build = Built(lowered(import_model(model, (x,)).mod))
    close(build(to_numpy(x)), eager(model, x))
    assert len(build.kernels) <= 7
    (row,) = [r for r in survey_model(model, (x,)).rows if r.name == "aten.lstm.input"]
    assert row.flops == 2 * 300 * 4 * 48 * (16 + 48)


def test_torch_traces_as_before_afterwards() -> None:
    model, x = layer("GRU", 3, 4), torch.randn(5, 2, 3)
    import_model(model, (x,))
    program = torch.export.export(model, (x,)).run_decompositions()
    assert "aten.gru.input" not in str(program.graph)
    with torch.no_grad():
        assert torch.equal(program.module()(x)[0], model(x)[0])


@pytest.mark.heavy
def test_a_program_of_the_users_own() -> None:
    model, x = layer("LSTM", 3, 4), torch.randn(5, 2, 3)
    read = import_model(torch.export.export(model, (x,)))
    close(Built(lowered(read.mod))(to_numpy(x)), eager(model, x))


def test_refusals_say_why() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.LSTM(3, 4)

        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            return self.inner(pack_padded_sequence(x, lengths))[1][0]

    with pytest.raises(ImportModelError, match=r"inner \(LSTM\) reads a packed sequence"):
        import_model(Packed().eval(), (torch.randn(5, 2, 3), torch.tensor([5, 2])))
    training = nn.LSTM(3, 4, 2, dropout=0.5).train()
    program = torch.export.export(training, (torch.randn(5, 2, 3),))
    with pytest.raises(UnsupportedOperatorError, match=r"dropout between recurrent layers"):
        import_model(program)
