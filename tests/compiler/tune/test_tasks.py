"""Which kernels a module has."""

from __future__ import annotations

import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import transform as T
from tvm.s_tir import Schedule
from tvm.script import relax as R

from burnish.compiler.tune.tasks import anonymous, copied, extract_tasks, task_key


def test_equal_kernels_are_one_task_with_its_calls_counted(three: tvm.IRModule) -> None:
    tasks = {task.name: task for task in extract_tasks(three)}
    assert {name: task.count for name, task in tasks.items()} == {
        "fused_matmul_relu": 2,
        "softmax": 1,
        "add": 1,
    }
    matmul = tasks["fused_matmul_relu"]
    assert matmul.arguments == (((128, 128), "float32"),) * 3
    assert (matmul.outputs, matmul.reason) == (1, "")


def test_a_name_does_not_change_the_key(matmul: tvm.IRModule) -> None:
    (task,) = extract_tasks(matmul)
    named = task.func.with_attr("global_symbol", "other")
    assert task_key(named) == task_key(task.func) == task.key
    assert "global_symbol" not in anonymous(named).attrs


def test_a_symbolic_shape_is_a_task_with_a_reason() -> None:
    builder = relax.BlockBuilder()
    n = tirx.Var("n", "int64")
    x = relax.Var("x", R.Tensor((n, 8), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit_output(relax.op.exp(x))
        builder.emit_func_output(y)
    mod = tvm.transform.Sequential([T.LegalizeOps(), T.AnnotateTIROpPattern()])(builder.get())
    (task,) = extract_tasks(mod)
    assert task.reason == "takes symbolic shapes"


def test_a_kernel_that_is_scheduled_already_is_left_alone(matmul: tvm.IRModule) -> None:
    functions = {
        var: func.with_attr("tirx.is_scheduled", True) if isinstance(func, tirx.PrimFunc) else func
        for var, func in matmul.functions.items()
    }
    (task,) = extract_tasks(tvm.IRModule(functions))
    assert task.reason == "already scheduled"


def test_scheduling_a_copy_leaves_the_original(matmul: tvm.IRModule) -> None:
    """Schedule(IRModule({...: func})) of apache-tvm 0.27 rewrites func in place."""
    (task,) = extract_tasks(matmul)
    sch = Schedule(tvm.IRModule({"main": copied(task.func)}))
    sch.parallel(sch.get_loops(sch.get_sblock("matmul"))[0])
    assert task_key(task.func) == task.key
    assert task_key(sch.mod["main"]) != task.key


@pytest.mark.parametrize("call", ["call_tir_inplace", "call_packed"])
def test_only_plain_calls_are_tasks(call: str) -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", R.Tensor((8,), "float32"))
    with builder.function("main", [x]):
        if call == "call_packed":
            y = builder.emit(relax.Call(relax.ExternFunc("f"), [x], ty_args=[x.ty]))
        else:
            y = builder.emit(relax.op.exp(x))
        builder.emit_func_output(y)
    assert extract_tasks(builder.get()) == []
