"""Fixtures of the Relay importer: single operators and networks, as TVM 0.19 computed them."""

from __future__ import annotations

import functools
import io
import lzma
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.compiler.importers.relay.importer import import_relay
from burnish.compiler.importers.relay.read import parse_relay
from burnish.passes.params import get_params

HERE = Path(__file__).resolve().parent / "compiler" / "relay"
NETWORKS = sorted(path.stem for path in (HERE / "networks").glob("*.npz"))


@dataclass(frozen=True)
class Fixture:
    """A module in both forms, its inputs and outputs, and its parameters' bytes."""

    name: str
    forms: Mapping[str, bytes]
    inputs: Mapping[str, np.ndarray]
    outputs: tuple[np.ndarray, ...]
    params: bytes | None = None

    @property
    def json(self) -> bytes:
        return self.forms["json"]

    @property
    def text(self) -> bytes:
        return self.forms["relay"]


def _fixture(name: str, forms: Mapping[str, bytes], data: bytes, params: bytes | None) -> Fixture:
    with np.load(io.BytesIO(data)) as arrays:
        inputs = {key: arrays[key] for key in arrays.files if not key.startswith("out.")}
        outputs = tuple(arrays[f"out.{i}"] for i in range(len(arrays.files) - len(inputs)))
    return Fixture(name, forms, inputs, outputs, params)


def network(name: str) -> Fixture:
    folder = HERE / "networks"
    forms = {
        form: lzma.decompress((folder / f"{name}.{form}.xz").read_bytes())
        for form in ("json", "relay")
    }
    params = folder / f"{name}.params"
    data = (folder / f"{name}.npz").read_bytes()
    return _fixture(name, forms, data, params.read_bytes() if params.exists() else None)


@functools.cache
def operators() -> dict[str, Fixture]:
    """Name -> single-operator module."""
    with tarfile.open(HERE / "operators.tar.xz") as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    names = sorted({name.rpartition("/")[0] for name in files})
    return {
        name: _fixture(
            name,
            {form: files[f"{name}/module.{form}"] for form in ("json", "relay")},
            files[f"{name}/data.npz"],
            None,
        )
        for name in names
    }


def imported(fixture: Fixture, form: str) -> tvm.IRModule:
    model = parse_relay(fixture.forms[form], fixture.params, f"{fixture.name}.{form}")
    return import_relay(model, fixture.inputs, None)[0]


@mutator
class _Renamed(PyExprMutator):
    """Calls of kernels under other names."""

    def __init__(self, names: Mapping[str, tvm.ir.GlobalVar]) -> None:
        super().__init__()
        self.names = names

    def visit_global_var_(self, op: tvm.ir.GlobalVar) -> tvm.ir.GlobalVar:
        return self.names[op.name_hint]


def merged(mods: list[tvm.IRModule]) -> tvm.IRModule:
    """One module with ``f0``, ``f1``, ...: a build of many costs little more than one of one."""
    functions = {}
    for index, mod in enumerate(mods):
        names = {}
        for var in mod.functions:
            name = var.name_hint
            names[name] = tvm.ir.GlobalVar(f"f{index}" if name == "main" else f"k{index}_{name}")
            relax.expr._update_type(names[name], var.ty)
        for var, function in mod.functions.items():
            new = names[var.name_hint]
            if isinstance(function, relax.Function):
                function = _Renamed(names).visit_expr(function)
            functions[new] = function.with_attr("global_symbol", new.name_hint)
    return tvm.IRModule(functions)


def results(
    mods: list[tvm.IRModule], inputs: list[Mapping[str, np.ndarray]]
) -> list[list[np.ndarray]]:
    """Outputs of each module, from one build with TVM's default CPU pipeline."""
    with tvm.transform.PassContext(opt_level=0):
        ready = relax.transform.DecomposeOpsForInference()(merged(mods))
        machine = relax.VirtualMachine(relax.build(ready, "llvm"), tvm.cpu())
    found = []
    for index, (mod, given) in enumerate(zip(mods, inputs, strict=True)):
        arguments = [tvm.runtime.tensor(value) for value in given.values()]
        out = machine[f"f{index}"](*arguments, *get_params(mod).values())
        found.append(
            [out.numpy()] if isinstance(out, tvm.runtime.Tensor) else [x.numpy() for x in out]
        )
    return found
