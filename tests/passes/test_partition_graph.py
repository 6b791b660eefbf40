"""A graph cut by device: regions, moves and weights, the same values, and refusals in words."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from burnish.compiler.placed import supports
from burnish.passes.params import get_params, weight_vars
from burnish.passes.partition_graph import PartitionGraph, regions
from burnish.passes.place import nodes
from burnish.targets.hetero import parse_hetero
from relax_support import apply, random_params

ONE, OTHER = "llvm -mcpu=x86-64-v3", "llvm -mcpu=x86-64-v3:1"
TARGET = parse_hetero(f"hetero:{ONE},{OTHER}").with_threads(1)
THREE = parse_hetero("hetero:opencl:0,cpu,cpu:1")


def cut(placement=None, target=TARGET):
    return PartitionGraph(target, supports(target), placement or {})


@I.ir_module
class Before:
    @R.function
    def main(x: R.Tensor((2, 3), "float32"), w: R.Tensor((4, 3), "float32")):
        with R.dataflow():
            turned = R.permute_dims(w)
            product = R.matmul(x, turned)
            active = R.nn.relu(product)
            both = R.add(active, product)
            out = (both, active)
            R.output(out)
        return out


@I.ir_module
class Expected:
    I.module_global_infos(
        {
            "vdevice": [
                I.vdevice({"kind": "llvm", "mcpu": "x86-64-v3", "num-cores": 1}, 0),
                I.vdevice({"kind": "llvm", "mcpu": "x86-64-v3", "num-cores": 1}, 1),
            ]
        }
    )

    @R.function(private=True)
    def region0(
        x: R.Tensor((2, 3), "float32", "llvm:1"), w: R.Tensor((4, 3), "float32", "llvm:1")
    ) -> R.Tensor((2, 4), "float32", "llvm:1"):
        R.func_attr({"burnish.device": "llvm -mcpu=x86-64-v3:1", "burnish.inputs": 1})
        turned = R.permute_dims(w)
        product = R.matmul(x, turned)
        return product

    @R.function(private=True)
    def region1(
        product: R.Tensor((2, 4), "float32", "llvm:0"),
    ) -> R.Tuple(R.Tensor((2, 4), "float32", "llvm:0"), R.Tensor((2, 4), "float32", "llvm:0")):
        R.func_attr({"burnish.device": "llvm -mcpu=x86-64-v3", "burnish.inputs": 1})
        active = R.nn.relu(product)
        both = R.add(active, product)
        return (active, both)

    @R.function
    def main(x: R.Tensor((2, 3), "float32", "llvm:0"), w: R.Tensor((4, 3), "float32", "llvm:1")):
        R.func_attr({"num_input": 1})
        cls = Expected
        x_there = R.to_vdevice(x, "llvm:1")
        product = cls.region0(x_there, w)
        product_back = R.to_vdevice(product, "llvm:0")
        pair = cls.region1(product_back)
        active = pair[0]
        both = pair[1]
        out = (both, active)
        return out


def test_regions_moves_and_weights_are_where_they_should_be():
    before = random_params(Before)
    after = apply(cut({"matmul": OTHER}), before)
    tvm.ir.assert_structural_equal(after.without_attr("params"), Expected)
    assert [str(f.attrs["burnish.device"]) for f in regions(after).values()] == [OTHER, ONE]
    assert cut({"matmul": OTHER})(after).same_as(after)
    x = np.random.default_rng(0).normal(size=(2, 3)).astype("float32")
    w = get_params(before)["w"].numpy()
    found = run_on(TARGET, after, x)
    np.testing.assert_allclose(found[0], np.maximum(x @ w.T, 0) + x @ w.T, rtol=1e-5)
    np.testing.assert_allclose(found[1], np.maximum(x @ w.T, 0), rtol=1e-5)


def run_on(target, mod, *inputs):
    """By TVM's own pipeline for CPUs, on the target's devices."""
    with tvm.transform.PassContext():
        executable = relax.build(mod.without_attr("params"), target.host.tvm())
    devices = [one.device() for one in target.memories]
    machine = relax.VirtualMachine(executable, list(devices))
    places = {one.memory: one.device() for one in target.memories}
    weights = [
        value.copyto(places[f"cpu:{int(var.ty.vdevice.vdevice_id)}"])
        for var, value in zip(weight_vars(mod), get_params(mod).values(), strict=True)
    ]
    return [one.numpy() for one in machine["main"](*map(tvm.runtime.tensor, inputs), *weights)]


def graph(lines, outputs):
    """``main`` of two inputs and a weight; each line is an operator and the places of operands."""
    builder = relax.BlockBuilder()
    values = [relax.Var(name, relax.TensorType((2,), "float32")) for name in "xyw"]
    with builder.function("main", list(values), {"num_input": 2}):
        with builder.dataflow():
            for name, first, second in lines:
                op = getattr(relax.op, name)
                values.append(builder.emit(op(values[first], values[second])))
            out = builder.emit_output(relax.Tuple(values[-outputs:]))
        builder.emit_func_output(out)
    return random_params(builder.finalize(), inputs=2)


lines = st.integers(1, 12).flatmap(
    lambda count: st.tuples(
        *(
            st.tuples(
                st.sampled_from(["add", "multiply", "subtract", "maximum"]),
                st.integers(0, place + 2),
                st.integers(0, place + 2),
            )
            for place in range(count)
        )
    )
)


def test_what_follows_from_a_returned_weight_comes_after_it():
    lines = [("add", 2, 2), ("add", 2, 3), ("add", 0, 4), ("add", 2, 3)]
    before = graph(lines, 2)
    after = apply(cut({"lv2": "opencl:0", "*": "cpu"}, THREE), before)
    assert {str(f.attrs["burnish.device"]) for f in regions(after).values()} == {"opencl:0", "cpu"}
    x, y = np.float32([1, 2]), np.float32([3, 4])
    w = get_params(before)["w"].numpy()
    on_cpus = apply(cut({"lv2": OTHER, "*": ONE}, TARGET), before)
    found = run_on(TARGET, on_cpus, x, y)
    np.testing.assert_allclose(found[0], x + 3 * w, rtol=1e-6)
    np.testing.assert_allclose(found[1], 3 * w, rtol=1e-6)


@given(lines, st.integers(1, 3), st.data())
def test_any_placement_of_any_graph_moves_each_value_once(given_lines, outputs, data):
    before = graph(list(given_lines), min(outputs, len(given_lines)))
    names = [node.name for node in nodes(before)]
    where = {name: data.draw(st.sampled_from(THREE.devices), name) for name in names}
    after = apply(cut(where, THREE), before)
    moves = [
        (binding.value.args[0], str(binding.var.ty.vdevice))
        for binding in after["main"].body.blocks[0].bindings
        if isinstance(binding.value, relax.Call) and "to_vdevice" in str(binding.value.op)
    ]
    assert len(set(moves)) == len(moves)
    said = {}
    for func in regions(after).values():
        for binding in func.body.blocks[0].bindings:
            said.setdefault(binding.var.name, str(func.attrs["burnish.device"]))
    assert {name: said[name] for name in names} == where
    _nothing_waits_that_could_go_before(after)
    memories = {one.name: one.memory for one in THREE.places}
    for var, func in regions(after).items():
        memory = memories[str(func.attrs["burnish.device"])]
        for param in [*func.params, func.body.body]:
            types = param.ty.fields if isinstance(param.ty, relax.TupleType) else [param.ty]
            for ty in types:
                kind = str(ty.vdevice.target.kind.name).replace("llvm", "cpu")
                assert f"{kind}:{int(ty.vdevice.vdevice_id)}" == memory, var.name_hint


def _nothing_waits_that_could_go_before(after):
    """Once the host waits for a queue, whatever is called follows from what it waited for."""
    waited: set[relax.Var] = set()
    for binding in after["main"].body.blocks[0].bindings:
        value = binding.value
        read = list(relax.analysis.free_vars(value))
        if any(var in waited for var in read):
            waited.add(binding.var)
        elif isinstance(value, relax.Call) and "to_vdevice" in str(value.op):
            if str(read[0].ty.vdevice.target.kind.name) == "opencl":
                waited.add(binding.var)
        elif isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.GlobalVar):
            assert not waited, f"{value.op} could have been called before the host waits"


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        ({"mathmul": "cpu"}, "'mathmul' names nothing in the model; near are .*matmul"),
        ({"matmul": "cuda:0"}, "no device 'cuda:0' in the target.*opencl:0, cpu, cpu:1"),
        ({"half": "opencl:0"}, "half, relax.astype, on opencl:0: float16 needs cl_khr_fp16"),
    ],
)
def test_a_placement_that_cannot_be_is_refused(placement, message):
    with pytest.raises(ValueError, match=message):
        cut(placement, THREE)(in_half())


def in_half():
    @I.ir_module
    class Half:
        @R.function
        def main(x: R.Tensor((2, 3), "float32"), w: R.Tensor((3, 4), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                product = R.matmul(x, w)
                half = R.astype(product, "float16")
                R.output(half)
            return half

    return random_params(Half)


def test_what_the_first_device_cannot_goes_to_the_next():
    after = cut(target=THREE)(in_half())
    assert [str(f.attrs["burnish.device"]) for f in regions(after).values()] == ["opencl:0", "cpu"]


def test_operators_that_no_device_runs_are_all_listed_with_the_reasons():
    alone = parse_hetero("hetero:opencl:0")
    with pytest.raises(
        ValueError, match=r"no device can run 1 operator: half, relax.astype .*fp16"
    ):
        cut(target=alone)(in_half())
