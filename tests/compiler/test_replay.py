"""Calls that skip the virtual machine: right on any input, by any caller, without allocations."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import onnx.parser
import pytest
import torch
import tvm_ffi
from small_nets import Block, Classifier, Mlp, made
from torch import nn

import burnish
from burnish.compiler.compiled import Compiled
from burnish.compiler.errors import InvalidInputError
from burnish.compiler.parity import parity
from burnish.compiler.replay import Span, separate
from support import require_program

X = torch.randn(2, 20, generator=torch.Generator().manual_seed(3))


def eager(model: nn.Module, *inputs: torch.Tensor) -> object:
    with torch.no_grad():
        return model(*inputs)


def check(compiled: Compiled, model: nn.Module, *draws: tuple[torch.Tensor, ...]) -> None:
    for inputs in draws:
        assert parity(compiled(*inputs), eager(model, *inputs)).rel < 1e-5
        arrays = compiled(*[value.numpy() for value in inputs])
        assert parity(arrays, eager(model, *inputs)).rel < 1e-5


class Chain(nn.Module):
    """Outputs that later kernels read, of several dtypes."""

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        first = torch.softmax(x, -1)
        second = first.cumsum(0)
        return {"all": [first, (second, second.T.contiguous() > 0.5)], "ids": x.argmax(-1)}


def test_known_shapes_are_recorded_once():
    net = made(Mlp)
    compiled = burnish.compile(net, (X,))
    assert compiled._replay is None
    compiled(X)
    recorded = compiled._replay
    assert recorded is not None
    check(compiled, net, *[(torch.randn(2, 20),) for _ in range(5)])
    assert compiled._replay is recorded


@pytest.mark.parametrize(
    ("net", "draw"),
    [
        (made(Classifier), lambda: (torch.randn(1, 3, 17, 13),)),
        (made(Block), lambda: (torch.randint(0, 50, (2, 7)), torch.randint(0, 2, (2, 7)))),
        (Chain().eval(), lambda: (torch.randn(3, 5),)),
    ],
)
def test_replays_are_the_models_answers(net, draw):
    compiled = burnish.compile(net, draw())
    check(compiled, net, *[draw() for _ in range(6)])
    assert compiled._replay is not None


def test_outputs_of_earlier_calls_stay_as_they_are():
    net = made(Classifier)
    draws = [(torch.randn(1, 3, 16, 16),) for _ in range(4)]
    compiled = burnish.compile(net, draws[0])
    got = [compiled(*inputs) for inputs in draws]
    for inputs, found in zip(draws, got, strict=True):
        assert parity(found, eager(net, *inputs)).rel < 1e-5


def test_memory_that_must_be_copied_is_copied_at_each_replay():
    net = made(Mlp)
    compiled = burnish.compile(net, (X,))
    compiled(X)
    wide = torch.zeros(2, 40)
    for number in range(3):
        wide[:, ::2] = X * number
        for value in (wide[:, ::2], tvm_ffi.from_dlpack(wide[:, ::2])):
            got = torch.as_tensor(compiled(value))
            assert parity(got, eager(net, X * number)).rel < 1e-5


def test_a_list_of_another_shape_is_refused_after_one_that_fits():
    net = nn.Embedding(9, 4).eval()
    compiled = burnish.compile(net, (torch.tensor([1, 2, 3]),))
    for _ in range(2):
        np.testing.assert_array_equal(compiled([4, 5, 8]), net.weight[[4, 5, 8]].detach())
        with pytest.raises(InvalidInputError, match=r"has shape \(2,\), the model takes \(3,\)"):
            compiled([1, 2])


class Passing(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x + 1, x


@pytest.mark.parametrize(
    ("net", "inputs", "dynamic"),
    [
        (made(Mlp), (X,), {"input": {0: "batch"}}),
        (Passing().eval(), (X,), None),
    ],
    ids=["open sizes", "an input returned"],
)
def test_what_cannot_be_recorded_runs_on_the_virtual_machine(net, inputs, dynamic):
    compiled = burnish.compile(net, inputs, dynamic=dynamic)
    for _ in range(3):
        got, want = compiled(*inputs), eager(net, *inputs)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert compiled._replay is None


def test_a_branch_is_taken_by_its_condition_at_each_call():
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        choose (bool c, float[4] x) => (float[4] y) {
          y = If (c) <
            then_branch = yes () => (float[4] a) { a = Exp (x) },
            else_branch = no () => (float[4] b) { b = Neg (x) }
          >
        }"""
    )
    compiled = burnish.compile(model)
    x = np.arange(4, dtype="float32")
    for chosen in (True, False, True, False):
        want = np.exp(x) if chosen else -x
        got = np.asarray(compiled(np.array(chosen), x))
        np.testing.assert_allclose(got.reshape(4), want, rtol=1e-6)
    assert compiled._replay is None


@pytest.mark.parametrize("convert", [lambda x: x, lambda x: x.numpy()], ids=["torch", "numpy"])
def test_four_threads_with_a_thousand_calls_each_are_all_answered_right(convert):
    net = made(Mlp)
    compiled = burnish.compile(net, (X,))
    torch_threads = torch.get_num_threads()
    rng = torch.Generator().manual_seed(0)
    inputs = [[torch.randn(2, 20, generator=rng) for _ in range(10)] for _ in range(4)]
    want = [[eager(net, x) for x in own] for own in inputs]
    wrong: list[tuple[int, int]] = []
    together = threading.Barrier(4)

    def work(place: int) -> None:
        together.wait()
        for call in range(1000):
            got = torch.as_tensor(compiled(convert(inputs[place][call % 10])))
            if not torch.allclose(got, want[place][call % 10], rtol=1e-5, atol=1e-5):
                wrong.append((place, call))

    callers = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []
    assert torch.get_num_threads() == torch_threads


def test_two_models_and_torch_run_at_the_same_time():
    first, second = made(Classifier), made(Mlp)
    picture = torch.randn(1, 3, 32, 32)
    models = [
        (burnish.compile(first, (picture,)), picture, eager(first, picture)),
        (burnish.compile(second, (X,), threads=3), X, eager(second, X)),
        (first, picture, eager(first, picture)),
    ]
    wrong: list[int] = []

    def work(place: int) -> None:
        model, inputs, want = models[place]
        for _ in range(200):
            with torch.no_grad():
                got = model(inputs)
            if parity(got, want).rel > 1e-5:
                wrong.append(place)

    callers = [threading.Thread(target=work, args=(place % 3,)) for place in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


COUNTER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdlib.h>
static _Atomic long large;
long large_allocations(void) { return large; }
static void count(size_t size) { if (size >= 4096) large++; }
void *malloc(size_t size) {
  static void *(*real)(size_t);
  if (!real) real = dlsym(RTLD_NEXT, "malloc");
  count(size);
  return real(size);
}
int posix_memalign(void **out, size_t alignment, size_t size) {
  static int (*real)(void **, size_t, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "posix_memalign");
  count(size);
  return real(out, alignment, size);
}
void *aligned_alloc(size_t alignment, size_t size) {
  static void *(*real)(size_t, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "aligned_alloc");
  count(size);
  return real(alignment, size);
}
"""


def test_a_call_allocates_nothing_but_its_outputs(tmp_path):
    # Counted by a library that stands before malloc: what is smaller than any tensor here is left
    # out, since Python itself allocates.
    (tmp_path / "counter.c").write_text(COUNTER)
    counter = tmp_path / "counter.so"
    compiler = require_program("gcc")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "counter.c", "-o", str(counter), "-ldl"],
        cwd=tmp_path,
        check=True,
    )
    code = """
    import ctypes, torch, burnish
    from torch import nn
    net = nn.Sequential(nn.Conv2d(8, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, stride=2),
                        nn.Softmax(1), nn.MaxPool2d(2), nn.Conv2d(32, 40, 1)).eval()
    x = torch.randn(1, 8, 64, 64)
    compiled = burnish.compile(net, (x,))
    for _ in range(5):
        compiled(x)
    assert compiled(x).nbytes >= 4096
    large = ctypes.CDLL(None).large_allocations
    large.restype = ctypes.c_long
    for _ in range(10):  # a thread of the pool gets its own workspace when it first has work
        before = large()
        for _ in range(100):
            compiled(x)
        print(large() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LD_PRELOAD": str(counter)},
    )
    assert done.returncode == 0, done.stderr
    assert min(map(int, done.stdout.split())) == 100


def test_spans_of_memory():
    whole, part, next_to = Span(100, 50), Span(110, 40), Span(150, 8)
    assert whole.holds(part)
    assert whole.meets(part)
    assert not part.holds(whole)
    assert not whole.meets(next_to)
    assert Span(90, 20).meets(whole)
    assert not whole.holds(Span(90, 20))


@pytest.mark.parametrize(
    ("slots", "weights", "used", "apart"),
    [
        ([(0, 64), (64, 64)], [(128, 64), (128, 64)], [(0, 64), (80, 16), (500, 9)], True),
        ([(0, 64), (64, 64)], [], [(0, 64), (48, 32)], False),  # half in an input
        ([(0, 64), (32, 64)], [], [], False),  # two slots in the same place
        ([(0, 64), (64, 64)], [(100, 4)], [], False),  # a weight given out
        ([(0, 64), (64, 0)], [], [], False),  # nothing in it
        ([(0, 64)], [], [(9, 0)], False),
    ],
)
def test_memory_of_inputs_and_outputs_must_be_theirs_alone(slots, weights, used, apart):
    spans = [[Span(*pair) for pair in pairs] for pairs in (slots, weights, used)]
    assert separate(*spans) is apart
