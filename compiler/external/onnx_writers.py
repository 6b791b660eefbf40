"""Relax operators as nodes of ONNX's opset 17: a function each, and what a call must be for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto
from tvm import relax, tirx

from burnish.compiler.external.onnx_graph import DTYPES, Graph
from burnish.passes.graph import op_name, static_shape

Writer = Callable[[Graph, relax.Call], str]
"""Writes a call; the name of its value."""
PLAIN = {
    "relax.add": "Add",
    "relax.subtract": "Sub",
    "relax.multiply": "Mul",
    "relax.divide": "Div",
    "relax.power": "Pow",
    "relax.maximum": "Max",
    "relax.minimum": "Min",
    "relax.negative": "Neg",
    "relax.abs": "Abs",
    "relax.exp": "Exp",
    "relax.log": "Log",
    "relax.sqrt": "Sqrt",
    "relax.tanh": "Tanh",
    "relax.erf": "Erf",
    "relax.sigmoid": "Sigmoid",
    "relax.nn.relu": "Relu",
    "relax.matmul": "MatMul",
    "relax.where": "Where",
    "relax.equal": "Equal",
    "relax.less": "Less",
    "relax.greater": "Greater",
}
"""Operators that ONNX has with the same operands and broadcasting."""
REDUCTIONS = {
    "relax.mean": "ReduceMean",
    "relax.max": "ReduceMax",
    "relax.min": "ReduceMin",
    "relax.sum": "ReduceSum",
}


def write(graph: Graph, call: relax.Call) -> str:
    """Write a call that :func:`can_write` says yes to; the name of its value."""
    name = op_name(call)
    if name in PLAIN:
        return graph.node(PLAIN[name], [graph.read(arg) for arg in call.args])
    if name in REDUCTIONS:
        return _reduction(graph, call)
    return WRITERS[name](graph, call)


def can_write(call: relax.Call) -> bool:
    """Whether there is a function for the operator, and the call is what that one takes."""
    name = op_name(call)
    if name in PLAIN or name in REDUCTIONS:
        return True
    check = CHECKS.get(name)
    return name in WRITERS and (check is None or check(call))


def _shape(expr: relax.Expr) -> tuple[int, ...]:
    found = static_shape(expr)
    if found is None:
        raise ValueError(f"its shape is open: {expr}")
    return found


def _axes(given: Any, rank: int) -> list[int]:
    if given is None:
        return list(range(rank))
    return [int(axis) % rank for axis in given]


def _reduction(graph: Graph, call: relax.Call) -> str:
    kind = REDUCTIONS[op_name(call)]
    axes = _axes(call.attrs.axis, len(_shape(call.args[0])))
    keep = int(bool(call.attrs.keepdims))
    read = graph.read(call.args[0])
    if kind == "ReduceSum":
        return graph.node(kind, [read, graph.integers(axes)], keepdims=keep)
    return graph.node(kind, [read], axes=axes, keepdims=keep)


def _conv(graph: Graph, call: relax.Call) -> str:
    attrs = call.attrs
    return graph.node(
        "Conv",
        [graph.read(arg) for arg in call.args],
        strides=list(map(int, attrs.strides)),
        pads=_pads(attrs.padding, len(attrs.strides)),
        dilations=list(map(int, attrs.dilation)),
        group=int(attrs.groups),
    )


def _pads(given: Sequence[Any], rank: int) -> list[int]:
    pads = list(map(int, given))
    return pads * 2 if len(pads) == rank else pads


def _plain_conv(call: relax.Call) -> bool:
    attrs = call.attrs
    layouts = {1: ("NCW", "OIW"), 2: ("NCHW", "OIHW")}[len(attrs.strides)]
    out = str(attrs.out_layout or "")
    return (str(attrs.data_layout), str(attrs.kernel_layout)) == layouts and out in ("", layouts[0])


def _pool(kind: str) -> Writer:
    def write(graph: Graph, call: relax.Call) -> str:
        attrs = call.attrs
        more: dict[str, Any] = {}
        if kind == "AveragePool":
            more["count_include_pad"] = int(bool(attrs.count_include_pad))
        elif any(int(one) != 1 for one in attrs.dilation):
            more["dilations"] = list(map(int, attrs.dilation))
        return graph.node(
            kind,
            [graph.read(call.args[0])],
            kernel_shape=list(map(int, attrs.pool_size)),
            strides=list(map(int, attrs.strides)),
            pads=_pads(attrs.padding, len(attrs.strides)),
            ceil_mode=int(bool(attrs.ceil_mode)),
            **more,
        )

    return write


def _plain_pool(call: relax.Call) -> bool:
    # Rounding up counts the windows beyond the border in its own way in each framework.
    return str(call.attrs.layout) == "NCHW" and not call.attrs.ceil_mode


def _global_pool(graph: Graph, call: relax.Call) -> str:
    return graph.node("GlobalAveragePool", [graph.read(call.args[0])])


def _is_global(call: relax.Call) -> bool:
    return str(call.attrs.layout) == "NCHW" and _shape(call)[2:] == (1, 1)


def _gelu(graph: Graph, call: relax.Call) -> str:
    x, dtype = graph.read(call.args[0]), str(call.ty.dtype)
    inner = graph.node("Erf", [graph.node("Mul", [x, graph.number(0.5**0.5, dtype)])])
    shifted = graph.node("Add", [inner, graph.number(1, dtype)])
    half = graph.node("Mul", [x, graph.number(0.5, dtype)])
    return graph.node("Mul", [half, shifted])


def _gelu_tanh(graph: Graph, call: relax.Call) -> str:
    x, dtype = graph.read(call.args[0]), str(call.ty.dtype)
    square = graph.node("Mul", [x, x])
    cubic = graph.node("Mul", [square, graph.number(0.044715, dtype)])
    factor = graph.node("Add", [cubic, graph.number(1, dtype)])
    scaled = graph.node("Mul", [graph.node("Mul", [x, factor]), graph.number(0.7978845608, dtype)])
    shifted = graph.node("Add", [graph.node("Tanh", [scaled]), graph.number(1, dtype)])
    return graph.node("Mul", [graph.node("Mul", [x, graph.number(0.5, dtype)]), shifted])


def _silu(graph: Graph, call: relax.Call) -> str:
    x = graph.read(call.args[0])
    return graph.node("Mul", [x, graph.node("Sigmoid", [x])])


def _rsqrt(graph: Graph, call: relax.Call) -> str:
    return graph.node("Reciprocal", [graph.node("Sqrt", [graph.read(call.args[0])])])


def _softmax(graph: Graph, call: relax.Call) -> str:
    axis = int(call.attrs.axis) % len(_shape(call))
    kind = "Softmax" if op_name(call) == "relax.nn.softmax" else "LogSoftmax"
    return graph.node(kind, [graph.read(call.args[0])], axis=axis)


def _layer_norm(graph: Graph, call: relax.Call) -> str:
    attrs, rank = call.attrs, len(_shape(call))
    axes = _axes(attrs.axes, rank)
    operands = [graph.read(arg) for arg in call.args]
    return graph.node("LayerNormalization", operands, axis=axes[0], epsilon=float(attrs.epsilon))


def _plain_norm(call: relax.Call) -> bool:
    rank = len(_shape(call))
    axes = _axes(call.attrs.axes, rank)
    return axes == list(range(rank - len(axes), rank)) and bool(
        call.attrs.center and call.attrs.scale
    )


def _rms_norm(graph: Graph, call: relax.Call) -> str:
    x, weight = (graph.read(arg) for arg in call.args)
    dtype, axes = str(call.ty.dtype), _axes(call.attrs.axes, len(_shape(call)))
    wide = x if dtype == "float32" else graph.node("Cast", [x], to=TensorProto.FLOAT)
    square = graph.node("ReduceMean", [graph.node("Mul", [wide, wide])], axes=axes, keepdims=1)
    size = graph.node(
        "Sqrt", [graph.node("Add", [square, graph.number(call.attrs.epsilon, "float32")])]
    )
    unit = graph.node("Div", [wide, size])
    if dtype != "float32":
        weight = graph.node("Cast", [weight], to=TensorProto.FLOAT)
    out = graph.node("Mul", [unit, weight])
    return out if dtype == "float32" else graph.node("Cast", [out], to=DTYPES[dtype])


def _reshape(graph: Graph, call: relax.Call) -> str:
    return graph.node(
        "Reshape", [graph.read(call.args[0]), graph.integers(_shape(call))], allowzero=1
    )


def _permute(graph: Graph, call: relax.Call) -> str:
    rank, axes = len(_shape(call)), call.attrs.axes
    order = list(range(rank))[::-1] if axes is None else _axes(axes, rank)
    return graph.node("Transpose", [graph.read(call.args[0])], perm=order)


def _concat(graph: Graph, call: relax.Call) -> str:
    (parts,) = call.args
    axis = int(call.attrs.axis or 0) % len(_shape(call))
    return graph.node("Concat", [graph.read(part) for part in parts.fields], axis=axis)


def _cast(graph: Graph, call: relax.Call) -> str:
    return graph.node("Cast", [graph.read(call.args[0])], to=DTYPES[str(call.ty.dtype)])


def _expand(graph: Graph, call: relax.Call) -> str:
    return graph.node("Expand", [graph.read(call.args[0]), graph.integers(_shape(call))])


def _take(graph: Graph, call: relax.Call) -> str:
    axis = int(call.attrs.axis)
    data, places = (graph.read(arg) for arg in call.args)
    if str(call.attrs.mode) == "clip":
        dtype = str(call.args[1].ty.dtype)
        last = _shape(call.args[0])[axis] - 1
        places = graph.node("Max", [places, graph.constant(np.zeros((), dtype))])
        places = graph.node("Min", [places, graph.constant(np.array(last, dtype))])
    return graph.node("Gather", [data, places], axis=axis)


def _plain_take(call: relax.Call) -> bool:
    # Places outside the data are an error in ONNX, and wrapped in another mode.
    known = str(call.args[1].ty.dtype) in ("int32", "int64")
    return known and call.attrs.axis is not None and str(call.attrs.mode) in ("fast", "clip")


def _slice(graph: Graph, call: relax.Call) -> str:
    axes, begin, end, strides = (graph.integers(_numbers(arg)) for arg in _slice_args(call))
    return graph.node("Slice", [graph.read(call.args[0]), begin, end, axes, strides])


def _slice_args(call: relax.Call) -> list[relax.Expr]:
    axes, begin, end, *strides = call.args[1:]
    return [axes, begin, end, strides[0] if strides else relax.Tuple([1] * len(axes.fields))]


def _numbers(arg: relax.Expr) -> list[int]:
    return [int(field.value) for field in arg.fields]


def _plain_slice(call: relax.Call) -> bool:
    return all(
        isinstance(arg, relax.Tuple) and all(isinstance(one, tirx.IntImm) for one in arg.fields)
        for arg in call.args[1:]
    )


def _clip(graph: Graph, call: relax.Call) -> str:
    dtype = str(call.ty.dtype)
    low, high = (float(arg.value) for arg in call.args[1:])
    x = graph.node("Max", [graph.read(call.args[0]), graph.number(low, dtype)])
    return graph.node("Min", [x, graph.number(high, dtype)])


def _is_clip(call: relax.Call) -> bool:
    return all(isinstance(arg, tirx.FloatImm | tirx.IntImm) for arg in call.args[1:])


def _attention(graph: Graph, call: relax.Call) -> str:
    attrs, dtype = call.attrs, str(call.ty.dtype)
    q, k, v, *bias = (graph.read(arg) for arg in call.args)
    scale = float(attrs.scale.value) if attrs.scale is not None else _shape(call.args[0])[3] ** -0.5
    rows = graph.node("Transpose", [q], perm=[0, 2, 1, 3])
    columns = graph.node("Transpose", [k], perm=[0, 2, 3, 1])
    scores = graph.node("MatMul", [rows, columns])
    scores = graph.node("Mul", [scores, graph.number(scale, dtype)])
    if bias:
        scores = graph.node("Add", [scores, bias[0]])
    if _causal(call):
        m, n = _shape(call.args[0])[1], _shape(call.args[1])[1]
        ahead = np.triu(np.ones((m, n), bool), 1 + (n - m if _causal(call) == "BottomRight" else 0))
        low = graph.number(-3e4 if dtype == "float16" else -1e30, dtype)
        scores = graph.node("Where", [graph.constant(ahead), low, scores])
    shares = graph.node("Softmax", [scores], axis=3)
    mixed = graph.node("MatMul", [shares, graph.node("Transpose", [v], perm=[0, 2, 1, 3])])
    return graph.node("Transpose", [mixed], perm=[0, 2, 1, 3])


def _causal(call: relax.Call) -> str:
    given = call.attrs.causal_mask
    return "" if given is None or str(given) == "None" else str(given)


def _plain_attention(call: relax.Call) -> bool:
    heads = {_shape(arg)[2] for arg in call.args[:3]}
    return call.attrs.window_size is None and len(heads) == 1


WRITERS: Mapping[str, Writer] = {
    "relax.nn.conv1d": _conv,
    "relax.nn.conv2d": _conv,
    "relax.nn.max_pool2d": _pool("MaxPool"),
    "relax.nn.avg_pool2d": _pool("AveragePool"),
    "relax.nn.adaptive_avg_pool2d": _global_pool,
    "relax.nn.gelu": _gelu,
    "relax.nn.gelu_tanh": _gelu_tanh,
    "relax.nn.silu": _silu,
    "relax.rsqrt": _rsqrt,
    "relax.nn.softmax": _softmax,
    "relax.nn.log_softmax": _softmax,
    "relax.nn.layer_norm": _layer_norm,
    "relax.nn.rms_norm": _rms_norm,
    "relax.reshape": _reshape,
    "relax.expand_dims": _reshape,
    "relax.squeeze": _reshape,
    "relax.flatten": _reshape,
    "relax.permute_dims": _permute,
    "relax.concat": _concat,
    "relax.astype": _cast,
    "relax.broadcast_to": _expand,
    "relax.take": _take,
    "relax.clip": _clip,
    "relax.strided_slice": _slice,
    "relax.nn.attention": _attention,
    "relax.nn.attention_bias": _attention,
}
CHECKS: Mapping[str, Callable[[relax.Call], bool]] = {
    "relax.nn.conv1d": _plain_conv,
    "relax.nn.conv2d": _plain_conv,
    "relax.nn.max_pool2d": _plain_pool,
    "relax.nn.avg_pool2d": _plain_pool,
    "relax.nn.adaptive_avg_pool2d": _is_global,
    "relax.nn.layer_norm": _plain_norm,
    "relax.take": _plain_take,
    "relax.clip": _is_clip,
    "relax.strided_slice": _plain_slice,
    "relax.nn.attention": _plain_attention,
    "relax.nn.attention_bias": _plain_attention,
}
"""What a call must be for its operator to be written."""
