"""Which kernels need not check their arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import relax, te, topi

from burnish.compiler.kernel_arguments import settled_kernels

KIND = relax.TensorType((4, 5), "float32")


def kernel(shape: Sequence[Any], factor: float = 2) -> tvm.tirx.PrimFunc:
    x = te.placeholder(shape, "float32", name="x")
    y = te.compute(shape, lambda *i: x(*i) * factor, name="y")
    return te.create_prim_func([x, y])


def called(
    func: tvm.tirx.PrimFunc,
    given: relax.Type = KIND,
    result: relax.Type = KIND,
    *,
    inputs: int = 0,
) -> tvm.IRModule:
    """``main`` calls ``double`` on its one parameter, a weight or an input, and again on that."""
    builder = relax.BlockBuilder()
    first, second = builder.add_func(func, "double"), builder.add_func(kernel((4, 5), 3), "again")
    x = relax.Var("x", given)
    with builder.function("main", [x], attrs={"num_input": inputs}):
        y = builder.emit(relax.call_tir(first, relax.Tuple([x]), result))
        builder.emit_func_output(builder.emit(relax.call_tir(second, relax.Tuple([y]), KIND)))
    return builder.get()


def test_kernels_whose_calls_all_fit_are_settled():
    assert settled_kernels(called(kernel((4, 5)))) == {"double", "again"}


def test_what_reads_an_input_or_a_view_of_one_keeps_its_checks():
    assert settled_kernels(called(kernel((4, 5)), inputs=1)) == {"again"}
    x = te.placeholder((20,), "float32", name="x")
    view = te.create_prim_func([x, topi.reshape(x, (4, 5))])
    flat = relax.TensorType((20,), "float32")
    assert settled_kernels(called(view, flat, inputs=1)) == set()
    assert settled_kernels(called(view, flat)) == {"double", "again"}


def test_other_shapes_dtypes_and_open_sizes_keep_their_checks():
    n = tvm.tirx.Var("n", "int64")
    for other in (
        relax.TensorType((5, 4), "float32"),
        relax.TensorType((4, 5), "int32"),
        relax.TensorType(dtype="float32", ndim=2),
        relax.TensorType((n, 5), "float32"),
    ):
        assert settled_kernels(called(kernel((4, 5)), other)) == {"again"}
    other = relax.TensorType((5, 4), "float32")
    assert settled_kernels(called(kernel((4, 5)), result=other)) == set()
    open_size = relax.TensorType((n, 5), "float32")
    assert settled_kernels(called(kernel((n, 5)), open_size, open_size)) == set()


def test_a_call_of_another_form_is_not_settled():
    builder = relax.BlockBuilder()
    var = builder.add_func(kernel((4, 5)), "double")
    x = relax.Var("x", KIND)
    with builder.function("main", [x], attrs={"num_input": 0}):
        inside = relax.op.call_tir_inplace(var, relax.Tuple([x]), [0], KIND)
        builder.emit_func_output(builder.emit(inside))
    assert settled_kernels(builder.get()) == set()


def test_parameters_of_other_functions_may_be_inputs():
    mod = called(kernel((4, 5)))
    mod.update_func(tvm.ir.GlobalVar("branch"), mod["main"].without_attr("num_input"))
    assert settled_kernels(mod) == {"again"}


def test_a_kernel_of_plain_loops_is_no_view():
    x, y = (tvm.tirx.decl_buffer((4, 5), "float32", name) for name in "xy")
    i, j = tvm.tirx.Var("i", "int32"), tvm.tirx.Var("j", "int32")
    body = tvm.tirx.BufferStore(y, x[i, j] + x[i, j], [i, j])
    for var, extent in ((j, 5), (i, 4)):
        body = tvm.tirx.For(var, 0, extent, tvm.tirx.ForKind.SERIAL, body)
    func = tvm.tirx.PrimFunc([x, y], body)
    assert settled_kernels(called(func, inputs=1)) == {"again"}
