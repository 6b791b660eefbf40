"""Weights of a module: named parameters of ``main`` and their values.

The convention every pass keeps:

1. ``main`` takes ``num_input`` (its function attribute) run-time inputs first, then one
   parameter a weight. A weight's ``Var.name`` is its source name: the state_dict key or the
   ONNX initializer name, dots and all.
2. The module attribute ``params`` maps each weight's name to its value (a TVM tensor on the
   CPU), in the order of ``main``'s parameters.

So a module is whole in itself, and a weight keeps its name through every pass.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tvm
from tvm import relax

PARAMS = "params"
NUM_INPUT = "num_input"


def get_params(mod: tvm.IRModule) -> dict[str, tvm.runtime.Tensor]:
    """Name -> value of every weight, in the order of ``main``'s parameters."""
    attrs = mod.attrs
    if attrs is None or PARAMS not in attrs:
        return {}
    values = {str(name): value for name, value in attrs[PARAMS].items()}
    return {var.name: values[var.name] for var in weight_vars(mod) if var.name in values}


def num_inputs(mod: tvm.IRModule) -> int:
    """How many of ``main``'s parameters are run-time inputs."""
    main = mod["main"]
    if main.attrs is not None and NUM_INPUT in main.attrs:
        return int(main.attrs[NUM_INPUT])
    return len(main.params)


def input_vars(mod: tvm.IRModule) -> list[relax.Var]:
    """The run-time inputs of ``main``."""
    return list(mod["main"].params)[: num_inputs(mod)]


def weight_vars(mod: tvm.IRModule) -> list[relax.Var]:
    """The weights of ``main``."""
    return list(mod["main"].params)[num_inputs(mod) :]


def with_params(
    mod: tvm.IRModule, params: Mapping[str, tvm.runtime.Tensor | np.ndarray]
) -> tvm.IRModule:
    """A module with the same functions and these weight values; the argument is untouched."""
    tensors = {
        name: value if isinstance(value, tvm.runtime.Tensor) else tvm.runtime.tensor(value)
        for name, value in params.items()
    }
    attrs = dict(mod.attrs.items()) if mod.attrs is not None else {}
    attrs[PARAMS] = tensors
    return tvm.IRModule(
        dict(mod.functions.items()), attrs=attrs, global_infos=dict(mod.global_infos.items())
    )


def with_main(mod: tvm.IRModule, main: relax.Function) -> tvm.IRModule:
    """A module with ``main`` replaced; the argument is untouched."""
    functions = dict(mod.functions.items())
    functions[mod.get_global_var("main")] = main
    return tvm.IRModule(
        functions,
        attrs=dict(mod.attrs.items()) if mod.attrs is not None else None,
        global_infos=dict(mod.global_infos.items()),
    )


def param_bytes(mod: tvm.IRModule) -> int:
    """Bytes of all weights as stored."""
    return sum(value.numpy().nbytes for value in get_params(mod).values())


def without_params(mod: tvm.IRModule) -> tvm.IRModule:
    """The module without its values, for printing: the text of large tensors is huge."""
    return mod.without_attr(PARAMS) if mod.attrs is not None and PARAMS in mod.attrs else mod
