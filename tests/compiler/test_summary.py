"""Operators by count, parameters by size."""

from __future__ import annotations

import numpy as np
import tvm
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from burnish.compiler.summary import ParamRow, op_counts, param_rows


@I.ir_module
class Module:
    @T.prim_func(private=True, s_tir=True)
    def double(x: T.Buffer((4,), "float32"), y: T.Buffer((4,), "float32")):
        for i in range(4):
            with T.sblock("y"):
                v = T.axis.spatial(4, i)
                y[v] = x[v] * T.float32(2)

    @R.function
    def main(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        cls = Module
        with R.dataflow():
            a = R.add(x, x)
            b = R.add(a, x)
            c = R.call_tir(cls.double, (b,), out_ty=R.Tensor((4,), "float32"))
            R.output(c)
        return c


def test_kernels_count_under_their_own_name() -> None:
    assert op_counts(Module) == {"add": 2, "double": 1}


def test_params_are_counted_in_whole_bytes() -> None:
    params = {"w": tvm.runtime.tensor(np.zeros((3, 5), "float32"))}
    assert param_rows(params) == [ParamRow("w", (3, 5), "float32", 60)]
