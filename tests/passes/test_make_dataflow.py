"""Blocks that fusion looks at, but where the order of bindings counts."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from burnish.passes.make_dataflow import MakeDataflow


@I.ir_module
class Plain:
    @R.function
    def main(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        y = R.exp(x)
        z = R.negative(y)
        return z


@I.ir_module
class Reading:
    @R.function
    def main(x: R.Tensor(ndim=1, dtype="float32")) -> R.Tensor(ndim=1, dtype="float32"):
        n = T.int64()
        y: R.Tensor((n,), "float32") = R.match_cast(x, R.Tensor((n,), "float32"))
        z = R.exp(y)
        w = R.add(z, R.zeros(R.shape([n]), "float32"))
        return w


def test_bindings_become_a_block():
    (block,) = MakeDataflow()(Plain)["main"].body.blocks
    assert isinstance(block, relax.DataflowBlock)


def test_a_function_that_reads_a_size_stays_in_order():
    assert isinstance(
        relax.transform.ConvertToDataflow()(Reading)["main"].body.blocks[0], relax.DataflowBlock
    )
    tvm.ir.assert_structural_equal(MakeDataflow()(Reading), Reading)
