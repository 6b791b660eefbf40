"""A kernel refuses arguments that do not fit it, in few branches; a settled one has none."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import te

from burnish.targets.cpu.argument_checks import SETTLED
from burnish.targets.cpu.lowering import PIPELINE, cpu_pipeline
from burnish.targets.cpu.stages import walk
from burnish.targets.target import parse_target

TARGET = parse_target("llvm -mcpu=x86-64-v3 -num-cores=1").tvm()


def kernel() -> tvm.tirx.PrimFunc:
    """``x: [n, 4], y: [n, 4] -> [n, 4]``, ``s: []``."""
    n = tvm.tirx.Var("n", "int64")
    x, y = (te.placeholder((n, 4), "float32", name=name) for name in "xy")
    s = te.placeholder((), "float32", name="s")
    z = te.compute((n, 4), lambda i, j: x[i, j] * s() + y[i, j], name="z")
    func = te.create_prim_func([x, y, s, z])
    return func.with_attr({"global_symbol": "scaled", "tirx.noalias": True})


@pytest.fixture(scope="module")
def scaled() -> tvm.runtime.Module:
    return tvm.tirx.build(tvm.IRModule({"scaled": kernel()}), TARGET, pipeline=PIPELINE)["scaled"]


def arrays(**shapes: tuple[int, ...]) -> list[np.ndarray]:
    given = {"x": (3, 4), "y": (3, 4), "s": (), "z": (3, 4)} | shapes
    random = np.random.default_rng(7)
    return [random.standard_normal(shape).astype("float32") for shape in given.values()]


def test_what_fits_is_computed_and_what_does_not_is_refused(scaled):
    given = arrays()
    tensors = [tvm.runtime.tensor(value) for value in given]
    scaled(*tensors)
    want = given[0] * given[2] + given[1]
    np.testing.assert_allclose(tensors[3].numpy(), want, rtol=1e-6, atol=1e-6)
    for changed, said in (
        ({"x": (12,)}, "rank"),
        ({"s": (1,)}, "rank"),
        ({"y": (2, 4)}, "shape"),
        ({"y": (3, 5)}, "shape"),
        ({"z": (4, 4)}, "shape"),
    ):
        with pytest.raises(Exception, match=said):
            scaled(*map(tvm.runtime.tensor, arrays(**changed)))
    wrong = [value.astype("float64") for value in given[:1]] + given[1:]
    with pytest.raises(TypeError, match=r"(?s)dtype.*scaled\("):
        scaled(*map(tvm.runtime.tensor, wrong))
    with pytest.raises(TypeError, match="no tensor"):
        scaled(*tensors[:3], 3)
    with pytest.raises(TypeError, match="no tensor"):
        scaled(*tensors[:3], None)
    with pytest.raises(TypeError, match="Expected 4 arguments"):
        scaled(*tensors[:3])


def test_strides_and_offsets_are_refused(scaled):
    import torch

    given = [torch.as_tensor(value) for value in arrays()]
    across = torch.zeros(4, 3).T
    for wrong in (across, torch.zeros(3, 8)[:, :4]):
        with pytest.raises(ValueError, match="strides"):
            scaled(wrong, *given[1:])


def test_few_branches_are_left_and_none_in_a_settled_kernel():
    def checks(func: tvm.tirx.PrimFunc) -> int:
        with TARGET:
            mod = tvm.IRModule({"scaled": func})
            mod = tvm.tirx.transform.BindTarget(TARGET.with_host(TARGET))(mod)
            return len(walk(cpu_pipeline()[0](mod)["scaled"].body, tvm.tirx.AssertStmt))

    assert checks(kernel()) <= 5
    assert checks(kernel().with_attr(SETTLED, True)) == 0
