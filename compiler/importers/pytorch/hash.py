"""The content hash of an exported program: the same in every process for the same model."""

from __future__ import annotations

import hashlib

import torch
from torch.export import ExportedProgram

from burnish.compiler.importers.tensors import to_numpy


def program_hash(program: ExportedProgram) -> str:
    """sha256 over what the program computes and how it is called, and over its tensors.

    The text covers the graph and those nested in it, the shapes and dtypes of the inputs, the
    limits of open sizes and the nesting of arguments and results; tensors count by name, dtype,
    shape and bytes.
    """
    digest = hashlib.sha256()
    for name, part in program.graph_module.named_modules():
        if isinstance(part, torch.fx.GraphModule):
            digest.update(f"{name}\n{part.graph}\n".encode())
    for node in program.graph.nodes:
        if node.op == "placeholder" and isinstance(node.meta.get("val"), torch.Tensor):
            value = node.meta["val"]
            digest.update(f"{node.name} {value.dtype} {tuple(value.shape)}\n".encode())
    called = program.call_spec
    for part in (program.graph_signature, program.range_constraints, called.in_spec):
        digest.update(f"{part}\n".encode())
    digest.update(f"{called.out_spec}\n".encode())
    for name, tensor in {**program.state_dict, **program.constants}.items():
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: torch.Tensor) -> memoryview:
    """The elements in row-major order, without a copy where they lie so."""
    plain = tensor.detach()
    if plain.device.type != "cpu" or plain.layout != torch.strided or plain.is_quantized:
        return memoryview(to_numpy(plain).tobytes())
    flat = plain.resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
