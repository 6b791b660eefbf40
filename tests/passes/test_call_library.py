"""Products handed to a library: structure, what is left alone, the caller's module."""

from __future__ import annotations

import pytest
import torch
import tvm_ffi
from small_nets import made

from burnish.compiler.driver import import_model
from burnish.passes.call_library import CallLibrary
from burnish.passes.graph import bindings, op_name
from burnish.targets.cuda.blas import Product


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = torch.nn.Linear(6, 9)
        self.last = torch.nn.Linear(9, 4)

    def forward(self, x):
        y = torch.nn.functional.gelu(self.last(torch.relu(self.wide(x))), approximate="tanh")
        return y, y @ y.transpose(-1, -2)


def imported(net: type[torch.nn.Module] = Net, *inputs, **options):
    return import_model(made(net), inputs or (torch.randn(2, 5, 6),), **options).mod


def calls(mod) -> list[int]:
    """Flags of the calls of the library's function, in program order."""
    found = []
    for binding in bindings(mod["main"]):
        if op_name(binding.value) == "relax.call_dps_packed":
            assert binding.value.args[0].global_symbol == Product.symbol
            found.append(int(binding.value.args[1].fields[-1].value))
    return found


def left(mod) -> list[str]:
    return [op_name(b.value) for b in bindings(mod["main"]) if op_name(b.value) == "relax.matmul"]


def test_a_product_its_bias_and_its_activation_are_one_call():
    mod = imported()
    before = tvm_ffi.structural_hash(mod)
    new = CallLibrary(lambda product: True)(mod)
    assert tvm_ffi.structural_hash(mod) == before
    assert calls(new) == [2 + 4 + 8, 2 + 4 + 16, 2]
    assert not left(new)
    assert tvm_ffi.structural_equal(CallLibrary(lambda product: True)(new), new)


def test_only_what_is_chosen():
    mod = imported()
    seen = []

    def chosen(product):
        seen.append(product.key)
        return product.key == "float32 [2*] 5x9x6 nt+bias"

    new = CallLibrary(chosen)(mod)
    assert calls(new) == [2 + 4]
    assert len(left(new)) == 2
    assert "float32 [2*] 5x4x9 nt+bias+gelu_tanh" in seen
    assert "float32 [2*2] 5x5x4 nt" in seen


def test_a_value_read_twice_ends_its_call():
    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = torch.nn.Linear(6, 9)

        def forward(self, x):
            y = self.wide(x)
            return y, torch.relu(y)

    assert calls(CallLibrary(lambda product: True)(imported(Both))) == [2 + 4]


@pytest.mark.parametrize("case", ["open size", "whole numbers"])
def test_what_is_left_alone(case):
    class Product(torch.nn.Module):
        def forward(self, a, b):
            return a @ b

    dtype = torch.float32 if case == "open size" else torch.int32
    inputs = torch.ones(3, 4, dtype=dtype), torch.ones(4, 5, dtype=dtype)
    options = {"dynamic": {"a": {0: "rows"}}} if case == "open size" else {}
    new = CallLibrary(lambda product: True)(imported(Product, *inputs, **options))
    assert not calls(new)
    assert len(left(new)) == 1
