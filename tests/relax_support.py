"""Modules with named weights for the pass tests, and what to do with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from burnish.passes.params import get_params, num_inputs, weight_vars, with_main, with_params


def named(mod: tvm.IRModule, params: Mapping[str, np.ndarray], inputs: int = 1) -> tvm.IRModule:
    """A written module under the IR convention; ``params`` in the order of its parameters."""
    main = mod["main"].with_attr("num_input", inputs)
    return with_params(with_main(mod, main), params)


def random_params(mod: tvm.IRModule, inputs: int = 1, seed: int = 0) -> tvm.IRModule:
    """The module with normal values for every weight (positive where named ``var...``)."""
    rng = np.random.default_rng(seed)
    params = {}
    for var in list(mod["main"].params)[inputs:]:
        value = rng.standard_normal([int(n) for n in var.ty.shape])
        value = np.abs(value) + 0.5 if "var" in var.name else value
        params[var.name] = value.astype(str(var.ty.dtype))
    return named(mod, params, inputs)


def apply(transform: Callable[[tvm.IRModule], tvm.IRModule], mod: tvm.IRModule) -> tvm.IRModule:
    """``transform(mod)``, checking that ``mod`` is untouched and weights match parameters."""
    before = tvm_ffi.structural_hash(mod)
    after = transform(mod)
    assert tvm_ffi.structural_hash(mod) == before, "the caller's module was changed"
    relax.analysis.well_formed(after)
    values = get_params(after)
    assert [var.name for var in weight_vars(after)] == list(values)
    assert set(values) == {str(name) for name in after.attrs["params"]}
    for var in weight_vars(after):
        value = values[var.name]
        assert [int(n) for n in var.ty.shape] == list(value.shape), var.name
        assert str(var.ty.dtype) == str(value.dtype), var.name
    return after


def run(mod: tvm.IRModule, *inputs: np.ndarray) -> list[np.ndarray]:
    """Build with TVM's default CPU pipeline and run once; outputs as a flat list."""
    # TVM's own pipeline is not under test: no instruments.
    with tvm.transform.PassContext():
        ready = relax.transform.DecomposeOpsForInference()(mod.without_attr("params"))
        executable = relax.build(ready, "llvm")
    machine = relax.VirtualMachine(executable, tvm.cpu())
    arguments = [tvm.runtime.tensor(x) for x in inputs] + list(get_params(mod).values())
    out = machine["main"](*arguments)
    return [out.numpy()] if isinstance(out, tvm.runtime.Tensor) else [x.numpy() for x in out]


def random_inputs(mod: tvm.IRModule, seed: int = 1) -> list[np.ndarray]:
    """Normal values for each floating input, zeros for the others."""
    rng = np.random.default_rng(seed)
    made = []
    for var in list(mod["main"].params)[: num_inputs(mod)]:
        shape, dtype = [int(n) for n in var.ty.shape], str(var.ty.dtype)
        made.append(
            rng.standard_normal(shape).astype(dtype) if "float" in dtype else np.zeros(shape, dtype)
        )
    return made


def op_names(mod: tvm.IRModule) -> list[str]:
    """Names of the operators that ``main`` calls, in order, without the prefix ``relax.``."""
    names: list[str] = []

    def visit(node: relax.Expr) -> None:
        if isinstance(node, relax.Call) and isinstance(node.op, tvm.ir.Op):
            names.append(node.op.name.removeprefix("relax."))

    relax.analysis.post_order_visit(mod["main"], visit)
    return names


def from_torch(model: object, *examples: object) -> tvm.IRModule:
    """A PyTorch module under the IR convention, its weights under their state_dict keys."""
    import torch
    from tvm.relax.frontend.torch import from_exported_program

    exported = torch.export.export(model.eval(), examples)  # type: ignore[attr-defined]
    keys = exported.graph_signature.inputs_to_parameters
    names = [keys[s.arg.name] for s in exported.graph_signature.input_specs if s.arg.name in keys]
    mod, values = relax.frontend.detach_params(
        from_exported_program(exported, keep_params_as_input=True)
    )
    main = mod["main"]
    inputs = int(main.attrs["num_input"])
    fresh = [relax.Var(n, v.ty) for n, v in zip(names, main.params[inputs:], strict=True)]
    bound = main.bind_params(dict(zip(main.params[inputs:], fresh, strict=True)))
    renamed = relax.Function(
        [*main.params[:inputs], *fresh], bound.body, main.ret_ty, main.is_pure, main.attrs
    )
    return with_params(with_main(mod, renamed), dict(zip(names, values["main"], strict=True)))
