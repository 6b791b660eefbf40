"""Element types and constants between ONNX, NumPy and Relax."""

from __future__ import annotations

import numpy as np
import tvm
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from tvm import relax

from burnish.compiler.importers.onnx import external

# TVM has no layout for elements below a byte: the smallest type that holds all their values.
CARRIED = {
    TensorProto.INT4: "int8",
    TensorProto.INT2: "int8",
    TensorProto.UINT4: "uint8",
    TensorProto.UINT2: "uint8",
    TensorProto.FLOAT4E2M1: "float8_e4m3fn",
}


def numpy_dtype(elem_type: int) -> str:
    """``TensorProto.FLOAT`` -> ``float32``; elements below a byte are carried in a byte."""
    if elem_type in CARRIED:
        return CARRIED[elem_type]
    if elem_type == TensorProto.BFLOAT16:
        return "bfloat16"
    return str(np.dtype(helper.tensor_dtype_to_np_dtype(elem_type)))


def elem_type(dtype: str) -> int:
    """``float32`` -> ``TensorProto.FLOAT``."""
    if dtype == "bfloat16":
        return int(TensorProto.BFLOAT16)
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def to_array(tensor: TensorProto) -> np.ndarray:
    """The values of a tensor, in its shape."""
    if external.stays_outside(tensor):
        return external.values(tensor)
    return np.asarray(numpy_helper.to_array(tensor)).reshape(tuple(tensor.dims))


def carried(array: np.ndarray, elem_type: int) -> np.ndarray:
    """An array of this type in the type that carries it."""
    return array.astype(np.dtype(CARRIED[elem_type])) if elem_type in CARRIED else array


def value_of(expr: relax.Expr | None) -> np.ndarray | None:
    """The array of a constant, else None."""
    return expr.value.numpy() if isinstance(expr, tvm.ir.GenericConst) else None


def constant_of(attribute: AttributeProto) -> np.ndarray | None:
    """What a Constant node with this attribute gives; None for strings and sparse tensors."""
    match attribute.name:
        case "value" if attribute.type == AttributeProto.TENSOR:
            if attribute.t.data_type == TensorProto.STRING:
                return None
            return to_array(attribute.t)
        case "value_float":
            return np.array(attribute.f, np.float32)
        case "value_floats":
            return np.array(attribute.floats, np.float32)
        case "value_int":
            return np.array(attribute.i, np.int64)
        case "value_ints":
            return np.array(attribute.ints, np.int64)
        case "sparse_value":
            return _dense(attribute)
    return None


def _dense(attribute: AttributeProto) -> np.ndarray:
    sparse = attribute.sparse_tensor
    values, index = to_array(sparse.values), to_array(sparse.indices)
    result = np.zeros(tuple(sparse.dims), values.dtype)
    if index.ndim == 1:
        result.reshape(-1)[index] = values
    else:
        result[tuple(index.T)] = values
    return result
