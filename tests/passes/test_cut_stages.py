"""Stages of a graph: structure, the same numbers, and what is no cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm
from hypothesis import given, reject
from hypothesis import strategies as st
from small_nets import Block, made
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

import burnish
from burnish.passes.cut_stages import (
    Cut,
    binding_names,
    cut_stages,
    in_order_of_stages,
)
from burnish.passes.params import get_params, weight_vars, with_params


@I.ir_module
class Before:
    @R.function
    def main(
        x: R.Tensor((2, 4), "float32"),
        y: R.Tensor((2, 3), "float32"),
        w: R.Tensor((3, 4), "float32"),
        b: R.Tensor((3,), "float32"),
    ) -> R.Tuple(R.Tensor((2, 3), "float32")):
        R.func_attr({"num_input": 2})
        with R.dataflow():
            turned = R.permute_dims(w)
            product = R.matmul(x, turned)
            biased = R.add(product, b)
            halves = R.split(biased, [1], axis=1)
            left = halves[0]
            right = R.multiply(halves[1], halves[1])
            joined = R.concat((left, right), axis=1)
            out = R.add(joined, y)
            gv = (out,)
            R.output(gv)
        return gv


@I.ir_module
class First:
    @R.function
    def main(
        x: R.Tensor((2, 4), "float32"),
        w: R.Tensor((3, 4), "float32"),
        b: R.Tensor((3,), "float32"),
    ):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            turned = R.permute_dims(w)
            product = R.matmul(x, turned)
            biased = R.add(product, b)
            halves = R.split(biased, [1], axis=1)
            one = halves[0]
            two = halves[1]
            R.output(one, two)
        return (one, two)


@I.ir_module
class Second:
    @R.function
    def main(
        y: R.Tensor((2, 3), "float32"),
        left: R.Tensor((2, 1), "float32"),
        right: R.Tensor((2, 2), "float32"),
    ):
        R.func_attr({"num_input": 3})
        with R.dataflow():
            squared = R.multiply(right, right)
            joined = R.concat((left, squared), axis=1)
            out = R.add(joined, y)
            R.output(out)
        return (out,)


def with_weights() -> tvm.IRModule:
    rng = np.random.default_rng(0)
    weights = {n: rng.normal(size=s).astype("float32") for n, s in (("w", (3, 4)), ("b", (3,)))}
    return with_params(Before, weights)


def run(mod: tvm.IRModule, inputs: list[np.ndarray]) -> list[np.ndarray]:
    built = relax.build(relax.transform.LegalizeOps()(mod), "llvm")
    values = [tvm.runtime.tensor(value) for value in inputs]
    result = relax.VirtualMachine(built, tvm.cpu())["main"](*values, *get_params(mod).values())
    return [value.numpy() for value in result]


def through(cut: Cut, inputs: list[np.ndarray]) -> list[np.ndarray]:
    known = dict(zip(cut.inputs, inputs, strict=True))
    for stage in cut.stages:
        found = run(stage.mod, [known[name] for name in stage.takes])
        known.update(zip(stage.gives, found, strict=True))
    return [known[name] for name in cut.results]


def test_a_cut_is_these_modules_and_leaves_the_callers_alone() -> None:
    mod = with_weights()
    before = mod.script()
    cut = cut_stages(mod, ["halves"])
    for stage, expected in zip(cut.stages, (First, Second), strict=True):
        own = stage.mod["main"].without_attr("global_symbol")
        tvm.ir.assert_structural_equal(own, expected["main"].without_attr("global_symbol"))
    assert [list(get_params(stage.mod)) for stage in cut.stages] == [["w", "b"], []]
    assert cut.stages[0].takes == ("x",)
    assert cut.stages[1].takes == ("y", "halves.0", "halves.1")
    assert (cut.inputs, cut.results) == (("x", "y"), ("out",))
    assert mod.script() == before
    again = cut_stages(mod, [binding_names(mod).index("halves") + 1])
    for one, two in zip(cut.stages, again.stages, strict=True):
        tvm.ir.assert_structural_equal(one.mod["main"], two.mod["main"])


@pytest.mark.parametrize("points", [["product"], ["biased", 6]])
def test_stages_in_a_row_give_the_same_numbers(points: list[int | str]) -> None:
    mod = with_weights()
    rng = np.random.default_rng(1)
    inputs = [rng.normal(size=s).astype("float32") for s in ((2, 4), (2, 3))]
    weights = {name: value.numpy() for name, value in get_params(mod).items()}
    product = inputs[0] @ weights["w"].T + weights["b"]
    want = np.concatenate([product[:, :1], product[:, 1:] ** 2], axis=1) + inputs[1]
    cut = cut_stages(mod, points)
    assert len(cut.stages) == len(points) + 1
    np.testing.assert_allclose(through(cut, inputs)[0], want, rtol=1e-5)


def test_no_cut_is_the_model_itself() -> None:
    cut = cut_stages(with_weights(), [])
    once = cut.stages[0].mod
    twice = cut_stages(once, []).stages[0].mod
    tvm.ir.assert_structural_equal(once["main"], twice["main"])


BLOCK = burnish.import_model(
    made(Block), (torch.zeros(2, 7, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64))
)


@given(st.data())
def test_any_cut_of_a_transformer_block_is_whole(data: st.DataObject) -> None:
    """Each value is made before it is taken, each weight is where it is read, results are made."""
    mod = BLOCK.mod
    count = len(binding_names(mod))
    points = sorted(data.draw(st.sets(st.integers(1, count - 1), min_size=1, max_size=4)))
    try:
        cut = cut_stages(mod, points)
    except ValueError as error:
        if "makes nothing that a later one" not in str(error):
            raise
        reject()
    known = set(cut.inputs)
    for stage in cut.stages:
        assert set(stage.takes) <= known
        known.update(stage.gives)
        relax.analysis.well_formed(stage.mod)
        assert [v.name for v in weight_vars(stage.mod)] == list(get_params(stage.mod))
    assert set(cut.results) <= known
    computed = [name for stage in cut.stages for name in stage.computes]
    assert len(computed) == len(set(computed))


def test_stages_of_branches_are_put_in_order() -> None:
    """Every other binding of a block is of another stage where what it reads allows."""
    mod = BLOCK.mod
    made = [b.var for block in mod["main"].body.blocks for b in block.bindings]
    stages = {var: int(at > 8) for at, var in enumerate(made) if at % 2}
    ordered, points = in_order_of_stages(mod, stages)
    names = [b.var for block in ordered["main"].body.blocks for b in block.bindings]
    assert set(names) == set(made)
    assert len(points) == 1
    assert all(stages.get(var, 0) == 0 for var in names[: points[0]])
    assert all(stages.get(var, 1) == 1 for var in names[points[0] :])
    assert len(cut_stages(ordered, points).stages) == 2
    with pytest.raises(ValueError, match="is of stage 0 and reads a value of stage 1"):
        in_order_of_stages(mod, {made[0]: 1, made[1]: 0})


@I.ir_module
class Open:
    @R.function
    def main(x: R.Tensor(("n", 4), "float32")) -> R.Tensor(("n * 4",), "float32"):
        n = T.int64()
        R.func_attr({"num_input": 1})
        with R.dataflow():
            flat = R.flatten(x)
            twice = R.add(flat, flat)
            shaped = R.reshape(twice, R.shape([n, 4]))
            out = R.flatten(shaped)
            R.output(out)
        return out


def test_open_sizes_must_be_told_by_an_input() -> None:
    with pytest.raises(ValueError, match=r"reads the open sizes \['n'\], which none of its inputs"):
        cut_stages(Open, ["twice"])
    assert cut_stages(Open, ["shaped"]).stages[1].takes == ("shaped",)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (["nothing"], "no binding 'nothing' to cut after; there are 10"),
        ([0], "cut points must rise from 1 to 9"),
        ([10], "cut points must rise from 1 to 9"),
        ([3, 3], r"cut points must rise .* got \[3, 3\]"),
        (["out"], "cut points must rise"),
        ([1], "makes nothing that a later one or the model's outputs read: cut elsewhere"),
    ],
)
def test_what_is_no_cut(points: list[int | str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cut_stages(with_weights(), points)
