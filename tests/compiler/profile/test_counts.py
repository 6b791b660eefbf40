"""Operations and bytes of kernels, against formulas and PyTorch's own counter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from tvm import tirx

import burnish
from burnish.compiler.bench.work import count_work
from burnish.compiler.profile.kernel import Kernel, value_of
from burnish.compiler.profile.records import kernel_records, operators


def records(net, inputs, **fields) -> dict[str, Kernel]:
    """The kernels' records of a network, by name."""
    dynamic = fields.pop("dynamic", None)
    imported = burnish.import_model(net.eval(), inputs, dynamic=dynamic)
    fields = {"exact_conv": True, **fields}
    mod = burnish.optimize(imported, do_no_harm=False, **fields).mod
    assert any(isinstance(func, tirx.PrimFunc) for func in mod.functions.values())
    return kernel_records(mod, mod)


def only(found: dict[str, Kernel], operator: str) -> Kernel:
    (kernel,) = (kernel for kernel in found.values() if operator in kernel.operators)
    return kernel


class Attend(nn.Module):
    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, q, k, v):
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)


class Call(nn.Module):
    """Any function as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def test_gemm_with_its_bias():
    kernel = only(records(nn.Linear(64, 40), (torch.ones(3, 64),)), "gemm")
    assert kernel.operators == ("gemm", "add")
    assert kernel.dtype == "float32"
    assert (kernel.flops, kernel.elementwise, kernel.transcendental) == (2 * 3 * 64 * 40, 3 * 40, 0)
    assert kernel.written == 4 * 3 * 40
    stored = 48 if kernel.arguments[1][-1] in (16, 48) else 64  # columns, filled up to whole tiles
    assert sum(kernel.reads) == 4 * (3 * 64 + 64 * stored + 40)


def test_weights_of_four_bits_are_read_as_stored():
    dense = only(records(nn.Linear(64, 48), (torch.ones(3, 64),)), "gemm")
    narrow = only(records(nn.Linear(64, 48), (torch.ones(3, 64),), quantize="w4g32"), "gemm")
    assert narrow.flops == dense.flops
    assert sum(dense.reads) - sum(narrow.reads) == 64 * 48 * 4 - (64 * 48 // 2 + 2 * 48 * 4)


@settings(max_examples=25)  # a network is compiled an example
@given(
    channels=st.integers(1, 5),
    filters=st.integers(1, 20),
    window=st.sampled_from([1, 3]),
    stride=st.integers(1, 2),
    size=st.integers(5, 9),
    depthwise=st.booleans(),
)
def test_convolutions_as_torch_counts_them(channels, filters, window, stride, size, depthwise):
    groups = channels if depthwise else 1
    filters = channels if depthwise else filters
    net = nn.Conv2d(channels, filters, window, stride, window // 2, groups=groups, bias=False)
    x = torch.ones(2, channels, size, size)
    found = records(net, (x,))
    assert sum(kernel.flops for kernel in found.values()) == count_work(net, (x,)).flops


@pytest.mark.parametrize(("channels", "groups"), [(12, 6), (32, 8), (64, 2)])
def test_joined_groups_count_as_if_apart(channels, groups):
    net = nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=groups, bias=False)
    x = torch.ones(1, channels, 8, 8)
    found = records(net, (x,))
    assert sum(kernel.flops for kernel in found.values()) == count_work(net, (x,)).flops


@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2), (4, 2)])
def test_transposed_convolutions_count_the_kernels_own_taps(window, stride):
    net = nn.ConvTranspose2d(8, 16, window, stride, bias=False)
    x = torch.ones(1, 8, 6, 6)
    found = sum(kernel.flops for kernel in records(net, (x,)).values())
    # PyTorch counts for each input, here each output counts: borders differ.
    assert found == pytest.approx(count_work(net, (x,)).flops, rel=0.5)
    if window == stride:
        assert found == count_work(net, (x,)).flops


def test_a_winograd_convolution_counts_its_products():
    net, x = nn.Conv2d(64, 32, 3, padding=1), torch.ones(1, 64, 28, 28)
    kernel = only(records(net, (x,), exact_conv=False), "winograd")
    assert kernel.flops in (2 * tiles * n * n * 64 * 32 for tiles, n in ((14 * 14, 4), (7 * 7, 6)))
    assert kernel.elementwise == 32 * 28 * 28


def test_a_convolution_reads_its_input_and_weights_once():
    found = records(nn.Conv2d(16, 32, 3, padding=1), (torch.ones(1, 16, 8, 8),))
    kernel = only(found, "conv2d")
    assert kernel.flops == 2 * 9 * 16 * 32 * 64
    assert kernel.elementwise == 32 * 64
    assert sum(kernel.reads) == 4 * (16 * 64 + 9 * 16 * 32 + 32)
    assert kernel.written == 4 * 32 * 64


@pytest.mark.parametrize(("causal", "m", "n"), [(False, 7, 7), (False, 3, 9), (True, 8, 8)])
def test_attention(causal, m, n):
    shape = (2, 3, m, 16)
    inputs = (torch.ones(shape), torch.ones(2, 3, n, 16), torch.ones(2, 3, n, 16))
    net = Attend(causal)
    kernel = only(records(net, inputs), "attention")
    pairs = m * (m + 1) // 2 if causal else m * n
    assert kernel.flops == count_work(net, inputs).flops == 2 * 2 * 2 * 3 * 16 * pairs
    assert kernel.transcendental == 2 * 3 * pairs
    assert kernel.written == 4 * 2 * 3 * m * 16


def test_softmax():
    (kernel,) = records(nn.Softmax(-1), (torch.ones(5, 30),)).values()
    # the maximum, the difference, the exponential, the sum, the quotient
    assert (kernel.flops, kernel.elementwise, kernel.transcendental) == (0, 4 * 150, 150)
    assert (sum(kernel.reads), kernel.written) == (600, 600)


def test_elementwise_counts_each_operation():
    net = Call(lambda x, y: torch.tanh(x * y + 1))
    (kernel,) = records(net, (torch.ones(4, 6), torch.ones(6))).values()
    assert (kernel.flops, kernel.elementwise, kernel.transcendental) == (0, 48, 24)
    assert (sum(kernel.reads), kernel.written) == (4 * (24 + 6), 4 * 24)


def test_a_lookup_reads_rows_not_the_table():
    found = records(nn.Embedding(1000, 8), (torch.zeros(5, dtype=torch.int64),))
    (kernel,) = found.values()
    assert (sum(kernel.reads), kernel.written) == (5 * 8 * 4 + 5 * 8, 5 * 8 * 4)
    assert (kernel.flops, kernel.elementwise) == (0, 0)


def test_own_loops_are_unknown_but_their_bytes():
    found = records(Call(lambda x: torch.sort(x, -1)[0]), (torch.ones(4, 9),))
    kernel = only(found, "argsort")
    assert (kernel.flops, kernel.elementwise, kernel.transcendental) == (None, None, None)
    assert (sum(kernel.reads), kernel.written) == (4 * 36, 8 * 36)
    assert kernel.work([(4, 9), (4, 9)]).operations is None


@pytest.mark.parametrize("batch", [1, 6])
def test_symbolic_sizes_are_bound_by_the_tensors(batch):
    net = nn.Sequential(nn.Linear(20, 32), nn.GELU())
    open_ = records(net, (torch.ones(3, 20),), dynamic={"input": {0: "batch"}})
    fixed = only(records(net, (torch.ones(batch, 20),)), "gemm")
    kernel = only(open_, "gemm")
    assert isinstance(kernel.flops, str)
    shapes = [tuple(batch if isinstance(n, str) else n for n in s) for s in kernel.arguments]
    assert kernel.work(shapes) == fixed.work(fixed.arguments)
    assert Kernel.from_dict(kernel.to_dict()) == kernel


def test_symbolic_causal_attention():
    net = Attend(True)
    inputs = tuple(torch.ones(1, 2, 6, 16) for _ in "qkv")
    dynamic = {name: {2: "n"} for name in "qkv"}
    kernel = only(records(net, inputs, dynamic=dynamic), "attention")
    shapes = [tuple(9 if isinstance(n, str) else n for n in s) for s in kernel.arguments]
    assert kernel.work(shapes).flops == 2 * 2 * 2 * 16 * 9 * 10 // 2


def test_operators_of_a_name():
    assert operators("fused_conv2d1_add12_tir_clip") == ("conv2d", "add", "clip")
    assert operators("fused_layer_norm_max_pool2d3") == ("layer_norm", "max_pool2d")
    assert operators("log2") == ("log2",)
    assert operators("take4") == ("take",)


def test_errors_say_what_is_wrong():
    kernel = Kernel("k", ("k",), "maps", "float32", (("n",),), "n*2", 0, 0, ("n",), "n")
    with pytest.raises(ValueError, match="kernel k takes 1 arguments, got 2"):
        kernel.work([(1,), (2,)])
    with pytest.raises(ValueError, match="the size m is not known"):
        value_of("m * 2", {"n": 1})
    with pytest.raises(ValueError, match="an amount has only"):
        value_of("__import__('os')", {})
