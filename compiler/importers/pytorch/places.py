"""Where a traced call comes from: the module, the line of the user's code, and what it takes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import fx

from burnish.compiler.errors import UnsupportedOperator
from burnish.compiler.importers.advice import nearest
from burnish.compiler.importers.tensors import torch_dtype
from burnish.compiler.importers.unsupported import NO_CONVERTER

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\w+)\n\s*(.*)')


def where(node: fx.Node) -> str:
    """The node's name, after the path of the module that made it."""
    stack = node.meta.get("nn_module_stack") or {}
    path = list(stack.values())[-1][0] if stack else ""
    return f"{path}:{node.name}" if path else node.name


def source_line(node: fx.Node) -> str:
    """``model.py:12 in forward: return f(x)``; empty where torch recorded none."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    if not frames:
        return ""
    file, line, function, text = frames[-1]
    return f"{Path(file).name}:{line} in {function}: {text.strip()}"


def shapes(node: fx.Node) -> str:
    """``(float32[2, s0], int64[3])`` of the tensors that a call takes."""
    given = [a.meta.get("val") for a in node.all_input_nodes]
    return f"({', '.join(_shape(v) for v in given if isinstance(v, torch.Tensor))})"


def _shape(value: torch.Tensor) -> str:
    return f"{torch_dtype(value.dtype)}[{', '.join(map(str, value.shape))}]"


def unsupported(
    name: str, nodes: list[fx.Node], known: Iterable[str], reason: str = NO_CONVERTER
) -> UnsupportedOperator:
    """All calls of one operator that has no converter, or none for this form of it.

    ``known`` holds the names of the converters, ``add.Tensor`` and so on.
    """
    return UnsupportedOperator(
        name,
        len(nodes),
        tuple(map(where, nodes)),
        reason,
        tuple(map(shapes, nodes)),
        tuple(source_line(node) or "(torch recorded no source line)" for node in nodes),
        _remedy(nodes[0].target),
        _nearest(nodes[0].target, known) if reason == NO_CONVERTER else "",
        str(getattr(nodes[0].target, "namespace", "")),
    )


def _nearest(target: Any, known: Iterable[str]) -> str:
    """Another form of the same operator that has a converter, else one of a similar name."""
    name = str(getattr(target, "_opname", ""))
    plain = {key.partition(".")[0] for key in known}
    if getattr(target, "namespace", "") == "aten" and name in plain:
        return ", ".join(sorted(key for key in known if key.partition(".")[0] == name))
    return nearest(name, plain) if name else ""


def _remedy(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        name = target._schema.name
        return (
            "write it with operators that have a converter, or register one: "
            f"burnish.register_converter({name!r}, fn)"
        )
    return "write it with operators that have a converter"
