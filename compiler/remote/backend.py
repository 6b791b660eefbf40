"""Another machine's device as a code generator: each region becomes a model of its own."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from burnish.compiler.config import CompileConfig
from burnish.compiler.signature import Signature, TensorSpec
from burnish.passes.backends import Code
from burnish.passes.graph import static_shape
from burnish.passes.params import NUM_INPUT, with_params
from burnish.passes.regions import Region
from burnish.passes.support import DeviceSupport, dtypes
from burnish.targets.hetero import Place

SYMBOL = "burnish_remote"
"""The function of this process that sends a region and calls it."""


@dataclass(frozen=True)
class Remote:
    """A device of another machine, through the interface of other code generators.

    A region is compiled by our own pipeline for the machine there, and saved as an artifact, with
    its weights, which is a weight of the model here. ``config`` is that of the whole model,
    ``mod`` where the kernels are that a region calls by name.
    """

    place: Place
    config: CompileConfig = field(default_factory=CompileConfig)
    mod: tvm.IRModule | None = None
    name = "remote"
    memory = "cpu"

    def within(self, mod: tvm.IRModule) -> Remote:
        """The same, for regions that call kernels of ``mod``."""
        return replace(self, mod=mod)

    def why_not(self, call: relax.Expr) -> str:
        """What that device's own support says, and that sizes are known and types are NumPy's."""
        there = Place(self.place.name, self.place.runs, 1)
        why = DeviceSupport(there).why_not(call)
        if why:
            return why
        if not isinstance(call, relax.Call):
            return "it takes operators alone"
        if call.args and any(_open(one) for one in (*call.args, call)):
            return "its sizes are open, and what goes to another machine has known ones"
        strange = next((one for one in dtypes(call) if not _sent(one)), "")
        return f"{strange} is not sent to another machine" if strange else ""

    def why_not_region(self, region: Region) -> str:
        return ""

    def seconds(self, region: Region) -> float | None:
        """Its kernels are timed, as those of our own devices are."""
        return None

    def compile(self, region: Region, weights: Mapping[str, np.ndarray], name: str) -> Code:
        """An artifact; the function gets the device, its digest, the region and its inputs."""
        name = name.removeprefix(f"{self.name}_").rpartition("_")[0] or name
        module, signature = region_program(region, weights, self.mod)
        content = region_artifact(module, signature, name, self.place, self.config)
        digest = hashlib.sha256(content).hexdigest()
        count = sum(var.name not in weights for var in region.inputs)
        said = (self.place.name, digest, name, count)
        stored = (np.frombuffer(content, np.uint8),)
        return Code(SYMBOL, stored=stored, said=said, holds_weights=True)


def region_artifact(
    module: tvm.IRModule,
    signature: Signature,
    name: str,
    place: Place,
    config: CompileConfig,
) -> bytes:
    """What :func:`region_program` gave as a saved model for the device there."""
    from burnish.compiler import artifact
    from burnish.compiler.build import build_library
    from burnish.compiler.compiled import Compiled
    from burnish.compiler.optimizer import lowered
    from burnish.compiler.pipeline import graph_phases, narrowing
    from burnish.compiler.stages import Source, ir_text
    from burnish.compiler.tensors import aligned
    from burnish.compiler.waterfall import Report
    from burnish.passes.params import get_params

    target = place.runs
    own = CompileConfig(
        exact_conv=config.exact_conv, opt_level=config.opt_level, precision=config.precision
    )
    for step in narrowing(target, own.precision):
        module = step(module)
    fused = lowered(module, target, graph_phases(target, own))
    text = ir_text(fused)
    with tempfile.TemporaryDirectory(prefix="burnish-remote-") as folder:
        built = build_library(fused, target, Path(folder), opt_level=own.opt_level)
        values = get_params(fused)
        compiled = Compiled(
            built.path,
            {one: aligned(values[one].numpy()) for one in built.weights},
            signature,
            target,
            own,
            Report(),
            Source(hashlib.sha256(text.encode()).hexdigest(), "region"),
            text,
            kernels=built.kernels,
        )
        return artifact.save(compiled, Path(folder) / f"{name}.burnish").read_bytes()


def region_program(
    region: Region, weights: Mapping[str, np.ndarray], whole: tvm.IRModule | None = None
) -> tuple[tvm.IRModule, Signature]:
    """A region of ``whole`` as ``main`` of a module with its weights, and what it takes and gives.

    Kernels that it calls by name come with it.
    """
    inputs = [var for var in region.inputs if var.name not in weights]
    held = [var for var in region.inputs if var.name in weights]
    out = region.outputs[0] if len(region.outputs) == 1 else relax.Tuple(list(region.outputs))
    block = relax.DataflowBlock(list(region.calls))
    params = [*inputs, *held]
    attrs = tvm.ir.make_node("ir.DictAttrs", global_symbol="main", **{NUM_INPUT: len(inputs)})
    types = [var.ty for var in region.outputs]
    ty = types[0] if len(types) == 1 else relax.TupleType(types)
    main = relax.utils.copy_with_new_vars(
        relax.Function(params, relax.SeqExpr([block], out), ty, True, attrs)
    )
    functions = {tvm.ir.GlobalVar("main"): main, **_kernels(region, whole)}
    mod = with_params(tvm.IRModule(functions), {var.name: weights[var.name] for var in held})
    specs = [_spec(var, f"in{place}") for place, var in enumerate(inputs)]
    made = [_spec(var, f"out{place}") for place, var in enumerate(region.outputs)]
    signature = Signature(
        tuple(specs),
        tuple(made),
        tuple((spec.name, place) for place, spec in enumerate(specs)),
        {"list": list(range(len(made)))},
    )
    return relax.transform.Normalize()(mod), signature


def _kernels(
    region: Region, whole: tvm.IRModule | None
) -> dict[tvm.ir.GlobalVar, tvm.tirx.PrimFunc]:
    found: dict[tvm.ir.GlobalVar, tvm.tirx.PrimFunc] = {}

    def visit(var: tvm.ir.GlobalVar) -> None:
        if whole is not None:
            found[var] = whole[var]

    for binding in region.calls:
        tvm_ffi.structural_walk(binding.value, [(tvm.ir.GlobalVar, visit)], order="post")
    return found


def _spec(var: relax.Var, name: str) -> TensorSpec:
    shape = static_shape(var)
    if shape is None:
        raise ValueError(f"{var.name} has open sizes: it does not go to another machine")
    return TensorSpec(name, shape, str(var.ty.dtype))


def _open(expr: relax.Expr) -> bool:
    types = [expr.ty]
    while types:
        ty = types.pop()
        if isinstance(ty, relax.TupleType):
            types.extend(ty.fields)
        elif isinstance(ty, relax.ShapeType):
            if ty.values is None or any(not isinstance(n, tvm.tirx.IntImm) for n in ty.values):
                return True
        elif isinstance(ty, relax.TensorType) and (
            not isinstance(ty.shape, relax.ShapeExpr)
            or any(not isinstance(n, tvm.tirx.IntImm) for n in ty.shape)
        ):
            return True
    return False


def _sent(dtype: str) -> bool:
    try:
        np.dtype(dtype)
    except TypeError:
        return False
    return True
