"""Names and types of TFLite's schema, from the ``tflite`` package."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from burnish.compiler.errors import ImportModelError

DTYPES = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    8: "complex64",
    9: "int8",
    10: "float64",
    12: "uint64",
    15: "uint32",
    16: "uint16",
}
"""Tensor types that have a NumPy form; strings, 4-bit integers and handles have none."""


def require_schema() -> ModuleType:
    """The ``tflite`` package, or :class:`ImportModelError` that says how to get it."""
    try:
        import tflite
    except ImportError:
        raise ImportModelError(
            "reading .tflite files needs the tflite package: pip install 'burnish[tflite]'"
        ) from None
    return tflite


@functools.cache
def operator_names() -> dict[int, str]:
    """Builtin code -> its name."""
    codes = vars(require_schema().BuiltinOperator)
    return {value: name for name, value in codes.items() if isinstance(value, int)}


def operator_name(model: Any, operator: Any) -> tuple[str, int]:
    """An operator's name and version; a custom one is ``CUSTOM:name``.

    Old files hold the code in a field of 8 bits, new ones in both.
    """
    code = model.OperatorCodes(operator.OpcodeIndex())
    number = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
    name = operator_names().get(number, f"operator {number}")
    if name == "CUSTOM":
        name = f"CUSTOM:{(code.CustomCode() or b'').decode(errors='replace')}"
    return name, code.Version()


def tensor_name(graph: Any, index: int) -> str:
    """A tensor's name, as TVM's front end knows it."""
    name = graph.Tensors(index).Name()
    return name.decode(errors="replace") if name is not None else f"tvmgen_tensor_{index}"


def options(operator: Any, kind: str) -> Any:
    """The builtin options of an operator as the schema's class ``kind``."""
    table = operator.BuiltinOptions()
    found = getattr(require_schema(), kind)()
    if table is None:
        raise ValueError(f"it has no {kind}")
    found.Init(table.Bytes, table.Pos)
    return found
