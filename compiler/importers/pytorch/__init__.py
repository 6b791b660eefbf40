"""PyTorch models: nn.Module or ExportedProgram -> module, signature."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
import tvm
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, SymIntArgument, TensorArgument
from torch.utils import _pytree as pytree

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.memory import check_memory
from burnish.compiler.importers.pytorch.caches import nested
from burnish.compiler.importers.pytorch.dynamic import by_argument, label, open_axes
from burnish.compiler.importers.pytorch.export import decompose, export
from burnish.compiler.importers.pytorch.limits import broadcast_limits
from burnish.compiler.importers.pytorch.read_sizes import read_sizes
from burnish.compiler.importers.pytorch.symbols import SymbolTable
from burnish.compiler.importers.pytorch.translator import Translator
from burnish.compiler.importers.tensors import to_tvm, torch_dtype
from burnish.compiler.importers.tidy import drop_unused
from burnish.compiler.signature import Signature, TensorSpec
from burnish.passes.params import with_params
from burnish.runtime import trees


def trace(
    model: torch.nn.Module | ExportedProgram,
    example_inputs: Any,
    dynamic: Mapping[str, Any] | None,
) -> tuple[ExportedProgram, list[str] | None]:
    """The program of a torch model, and the names of the arguments of a module.

    Raises :class:`ImportModelError` with what is wrong and what to do.
    """
    if isinstance(model, ExportedProgram):
        if dynamic:
            raise ImportModelError(
                "an ExportedProgram has its dynamic sizes fixed: pass dynamic_shapes to "
                "torch.export.export, or import the nn.Module with dynamic=..."
            )
        return model, None
    held = {id(t): t.nbytes for t in [*model.parameters(), *model.buffers()]}
    check_memory(sum(held.values()), copies=2)
    return export(model, example_inputs, dynamic)


def import_program(
    program: ExportedProgram, names: list[str] | None, dynamic: Mapping[str, Any] | None
) -> tuple[tvm.IRModule, Signature]:
    """Module under the IR convention, and signature, of what :func:`trace` gave.

    Raises :class:`ImportModelError` with what is wrong and what to do.
    """
    program = decompose(program)
    _refuse_state(program)
    symbols = _symbols(program, names, dynamic)
    mod, weights = Translator(program, symbols).translate()
    signature = _signature(program, names, symbols)
    mod = with_params(mod, {name: to_tvm(tensor) for name, tensor in weights.items()})
    return drop_unused(mod), signature


def _refuse_state(program: ExportedProgram) -> None:
    """A model that writes to its buffers or inputs has state that a compiled one has not."""
    for spec in program.graph_signature.output_specs:
        if spec.kind in (OutputKind.BUFFER_MUTATION, OutputKind.USER_INPUT_MUTATION):
            what = "buffer" if spec.kind is OutputKind.BUFFER_MUTATION else "input"
            raise ImportModelError(
                f"the model writes to its {what} {spec.target!r} in forward, and a compiled model "
                "keeps no state: return the new value as an output instead"
                + (", and call model.eval() if it is in training mode" * (what == "buffer"))
            )


def _argument_nodes(
    program: ExportedProgram, names: list[str] | None
) -> list[tuple[str, Any, list[Any]]]:
    """(name, structure of :class:`trees.Leaf` and constants, its input specs) per argument."""
    specs = [s for s in program.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]
    leaves: list[Any] = []
    count = 0
    for spec in specs:
        if isinstance(spec.arg, TensorArgument):
            leaves.append(trees.Leaf(count))
            count += 1
        elif hasattr(spec.arg, "value"):
            leaves.append(spec.arg.value)
        else:
            raise ImportModelError(
                f"input {spec.arg.name!r} is a symbolic number: give it as a tensor or a constant"
            )
    args, kwargs = nested(program.call_spec.in_spec, leaves)
    values = [*args, *kwargs.values()]
    if names is None:
        names = [_top_name(value, specs, leaves) for value in args] + list(kwargs)
    return [(name, value, []) for name, value in zip(names, values, strict=True)]


def _top_name(value: Any, specs: list[Any], leaves: list[Any]) -> str:
    """The forward() name of an argument of a ready-made program, from its first placeholder."""
    first = next((leaf for leaf in pytree.tree_leaves(value)), value)
    for spec, leaf in zip(specs, leaves, strict=True):
        if leaf is first or leaf == first:
            return str(spec.arg.name)
    return "input"


def _signature(
    program: ExportedProgram, names: list[str] | None, symbols: SymbolTable
) -> Signature:
    nodes = {node.name: node for node in program.graph.nodes}

    def spec_of(name: str, shown: str) -> TensorSpec:
        value = nodes[name].meta["val"]
        shape = tuple(symbols.text(n) for n in value.shape)
        return TensorSpec(shown, shape, torch_dtype(value.dtype))

    inputs = [
        spec_of(s.arg.name, s.arg.name)
        for s in program.graph_signature.input_specs
        if s.kind is InputKind.USER_INPUT and isinstance(s.arg, TensorArgument)
    ]
    leaves: list[Any] = []
    outputs: list[TensorSpec] = []
    for spec in program.graph_signature.output_specs:
        if isinstance(spec.arg, TensorArgument):
            leaves.append(trees.Leaf(len(outputs)))
            outputs.append(spec_of(spec.arg.name, spec.arg.name))
        elif isinstance(spec.arg, SymIntArgument):
            leaves.append(trees.Leaf(len(outputs)))
            outputs.append(TensorSpec(spec.arg.name, (), "int64"))
        elif hasattr(spec.arg, "value"):
            leaves.append(spec.arg.value)
        else:
            raise ImportModelError(
                f"output {spec.arg.name!r} is a symbolic number that is no integer: return a tensor"
            )
    try:
        arguments = tuple(
            (name, trees.encode(value)) for name, value, _ in _argument_nodes(program, names)
        )
        tree = trees.encode(nested(program.call_spec.out_spec, leaves))
    except TypeError as error:
        raise ImportModelError(f"inputs or outputs cannot be described: {error}") from error
    for index, path in trees.paths(tree):
        outputs[index] = dataclasses.replace(outputs[index], name=path or "output")
    return Signature(tuple(inputs), tuple(outputs), arguments, tree, symbols.limits())


def _symbols(program: ExportedProgram, names: list[str] | None, dynamic: Any) -> SymbolTable:
    """The table under the names that ``dynamic`` gives to open sizes.

    A smallest size of 2 becomes 1: it is where torch.export starts to trace, not a limit of the
    model; torch itself widens it for a named ``Dim``.
    """
    ranges: dict[str, tuple[int, int | None]] = {}
    for symbol, limits in program.range_constraints.items():
        lower, upper = str(limits.lower), str(limits.upper)
        low = int(lower) if lower.isdigit() else 0  # torch writes "-oo" where it knows no limit
        ranges[str(symbol)] = (1 if low <= 2 else low, int(upper) if upper.isdigit() else None)
    chosen: dict[str, str] = {}
    specs = by_argument(dynamic, names) if names else {}
    held = {node.name: node.meta.get("val") for node in program.graph.nodes}
    tensors: list[Any] = [
        held[spec.arg.name]
        for spec in program.graph_signature.input_specs
        if spec.kind is InputKind.USER_INPUT and isinstance(spec.arg, TensorArgument)
    ]
    for name, node, _ in _argument_nodes(program, names) if specs else []:
        for leaf, axes in open_axes(node, specs.get(name), name, _is_leaf):
            for axis, size in axes.items():
                found, named = tensors[leaf.index].shape[axis], label(size)
                if named and isinstance(found, torch.SymInt) and found.node.expr.is_symbol:
                    symbol = str(found.node.expr)
                    chosen[symbol] = named
                    ranges[symbol] = _narrower(ranges.get(symbol, (1, None)), size)
    for symbol, high in broadcast_limits(program.graph).items():
        low, found = ranges.get(symbol, (1, None))
        ranges[symbol] = (low, high if found is None else min(found, high))
    shapes = [size.node.expr for t in tensors for size in t.shape if isinstance(size, torch.SymInt)]
    used = {str(symbol) for expr in shapes for symbol in expr.free_symbols}
    limits = {symbol: limit for symbol, limit in ranges.items() if symbol in used}
    return SymbolTable(chosen, limits, read_sizes(program.graph))


def _is_leaf(value: Any) -> bool:
    return isinstance(value, trees.Leaf)


def _narrower(found: tuple[int, int | None], size: Any) -> tuple[int, int | None]:
    """torch's range of a size, within the limits that the user's ``Dim`` gives."""
    low, high = max(found[0], int(getattr(size, "min", 1) or 1)), found[1]
    upper = str(getattr(size, "max", ""))
    if upper.isdigit():
        high = int(upper) if high is None else min(high, int(upper))
    return low, high
