"""Constants of a graph as weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import relax

from burnish.passes.params import get_params, with_params


@tvm.transform.module_pass(opt_level=0, name="StoreConstants")
@dataclass(frozen=True)
class StoreConstants:
    """Make weights of tensors that are constants of ``main``; one that several read is one.

    The virtual machine keeps constants on its first device, and weights where they are wanted.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        return constants_as_weights(mod)


def constants_as_weights(mod: tvm.IRModule) -> tvm.IRModule:
    """What :class:`StoreConstants` does; the argument is untouched."""
    main = mod["main"]
    found: dict[Any, tuple[relax.Var, tvm.runtime.Tensor]] = {}
    taken = {param.name for param in main.params}

    def lifted(const: tvm.ir.GenericConst) -> Any:
        if not isinstance(const.value, tvm.runtime.Tensor):
            return const
        value = const.value.numpy()
        key = (str(const.value.dtype), value.shape, value.tobytes())
        if key not in found:
            name = next(
                f"constant.{n}" for n in range(len(taken) + 1) if f"constant.{n}" not in taken
            )
            taken.add(name)
            shape = tuple(map(int, value.shape))
            var = relax.Var(name, relax.TensorType(shape, str(const.value.dtype)))
            found[key] = (var, const.value)
        return found[key][0]

    body = tvm_ffi.structural_map(main.body, [(tvm.ir.GenericConst, lifted)])
    if not found:
        return mod
    params = [*main.params, *(var for var, _ in found.values())]
    grown = relax.Function(params, body, main.ret_ty, main.is_pure, main.attrs)
    functions = {**dict(mod.functions.items()), mod.get_global_var("main"): grown}
    values = {**get_params(mod), **{var.name: value for var, value in found.values()}}
    new = tvm.IRModule(functions, attrs=mod.attrs, global_infos=mod.global_infos)
    return relax.transform.Normalize()(with_params(new, values))
