"""Convolutions and dense layers of TFLite, in the form that our passes know: NCHW, OIHW.

Each takes (importer, operator) and returns the float result; quantized tensors are read as the
numbers they stand for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax, tirx
from tvm.sym import Analyzer

from burnish.compiler.importers.tflite.schema import options

op = relax.op
SAME = 0
FIRST, LAST = [0, 3, 1, 2], [0, 2, 3, 1]


def conv2d(importer: Any, operator: Any) -> relax.Expr:
    """``[N, H, W, I]`` and weights ``[O, KH, KW, I / groups]`` -> ``[N, OH, OW, O]``."""
    found = options(operator, "Conv2DOptions")
    x, w, bias = _operands(importer, operator)
    groups = _size(x.ty.shape[3]) // _size(w.ty.shape[3])
    return _convolution(importer, found, x, op.permute_dims(w, FIRST), bias, groups)


def depthwise(importer: Any, operator: Any) -> relax.Expr:
    """``[N, H, W, C]`` and weights ``[1, KH, KW, C * M]`` -> ``[N, OH, OW, C * M]``."""
    found = options(operator, "DepthwiseConv2DOptions")
    x, w, bias = _operands(importer, operator)
    groups = _size(x.ty.shape[3])
    return _convolution(importer, found, x, op.permute_dims(w, [3, 0, 1, 2]), bias, groups)


def _convolution(
    importer: Any, found: Any, x: relax.Expr, w: relax.Expr, bias: Any, groups: int
) -> relax.Expr:
    w = importer.emit(w)
    strides = [found.StrideH(), found.StrideW()]
    dilation = [found.DilationHFactor(), found.DilationWFactor()]
    padding = [0, 0, 0, 0]
    if found.Padding() == SAME:
        for axis in range(2):
            reach = dilation[axis] * (_size(w.ty.shape[2 + axis]) - 1) + 1
            padding[axis], padding[axis + 2] = _same(
                _size(x.ty.shape[1 + axis]), reach, strides[axis]
            )
    x = importer.emit(op.permute_dims(x, FIRST))
    y = importer.emit(
        op.nn.conv2d(x, w, strides=strides, padding=padding, dilation=dilation, groups=groups)
    )
    y = importer.emit(op.permute_dims(y, LAST))
    return _finished(importer, y, bias, found.FusedActivationFunction())


def transpose_conv(importer: Any, operator: Any) -> relax.Expr:
    """The output's sizes, weights ``[O, KH, KW, I]``, ``[N, H, W, I]`` -> ``[N, OH, OW, O]``."""
    found = options(operator, "TransposeConvOptions")
    tensors = importer.get_input_tensors(operator)
    wanted = importer.known_value(tensors[0])
    if wanted is None:
        raise ValueError("the output's sizes are known only at run time: export with fixed sizes")
    w, x = importer.value(tensors[1]), importer.value(tensors[2])
    bias = importer.value(tensors[3]) if len(tensors) > 3 else None
    strides = [found.StrideH(), found.StrideW()]
    before, after, extra = [0, 0], [0, 0], [0, 0]
    for axis in range(2):
        reach, size = _size(w.ty.shape[1 + axis]), _size(x.ty.shape[1 + axis])
        full, want = (size - 1) * strides[axis] + reach, int(wanted.ravel()[1 + axis])
        cut = max(full - want, 0)
        before[axis] = cut // 2 if found.Padding() == SAME else 0
        after[axis] = cut - before[axis]
        extra[axis] = max(want - full, 0)
        if extra[axis] >= strides[axis]:
            raise ValueError(f"an output of {want} is beyond what an input of {size} reaches")
    w = importer.emit(op.permute_dims(w, [3, 0, 1, 2]))
    x = importer.emit(op.permute_dims(x, FIRST))
    y = importer.emit(
        op.nn.conv2d_transpose(
            x, w, strides=strides, padding=[*before, *after], output_padding=extra
        )
    )
    y = importer.emit(op.permute_dims(y, LAST))
    activation = getattr(found, "FusedActivationFunction", lambda: 0)()
    return _finished(importer, y, bias, activation)


def fully_connected(importer: Any, operator: Any) -> relax.Expr:
    """``[..., K]`` and weights ``[U, K]`` -> ``[rows, U]``, or ``[..., U]`` with keep_num_dims."""
    found = options(operator, "FullyConnectedOptions")
    if found.WeightsFormat():
        raise ValueError("shuffled weights: convert the model without them")
    x, w, bias = _operands(importer, operator)
    inner = _size(w.ty.shape[1])
    sizes = list(x.ty.shape)
    if not found.KeepNumDims() and len(sizes) != 2:
        x = importer.emit(op.reshape(x, _rows(sizes, inner)))
    w = importer.emit(op.permute_dims(w))
    y = importer.emit(op.matmul(x, w))
    return _finished(importer, y, bias, found.FusedActivationFunction())


def reshape(importer: Any, operator: Any) -> relax.Expr:
    """To sizes that are known, with symbols for open ones; -1 is what is left over."""
    tensors = importer.get_input_tensors(operator)
    x = importer.value(tensors[0])
    if len(tensors) > 1:
        sizes = importer.known_value(tensors[1])
        if sizes is None:
            raise ValueError("the target is computed from data: export with fixed sizes")
        target = sizes.ravel().tolist()
    else:
        target = [int(n) for n in options(operator, "ReshapeOptions").NewShapeAsNumpy()]
    return op.reshape(x, _target(target, list(x.ty.shape)))


def gather(importer: Any, operator: Any) -> relax.Expr:
    """Rows along an axis; at run time an index out of range reads the edge, not foreign memory."""
    found = options(operator, "GatherOptions")
    if found.BatchDims():
        raise ValueError("batch_dims: no converter; export it as gather_nd or one-hot product")
    data, index = (importer.value(t) for t in importer.get_input_tensors(operator)[:2])
    axis = found.Axis() % data.ty.ndim
    known = importer.known_value(importer.get_input_tensors(operator)[1])
    size = data.ty.shape[axis]
    if known is not None and isinstance(size, tirx.IntImm):
        rows = known.ravel().tolist()
        if all(isinstance(n, int) and 0 <= n < int(size) for n in rows):
            return op.take(data, index, axis=axis, mode="fast")
        raise ValueError(f"the index {rows} is out of range for axis {axis} of {int(size)}")
    return op.take(data, index, axis=axis, mode="clip")


def _target(target: list[Any], shape: list[Any]) -> list[Any]:
    """-1 written out; Relax divides only what it can prove."""
    unknown = [i for i, n in enumerate(target) if isinstance(n, int) and n == -1]
    if len(unknown) == 1:
        known = _product([n for i, n in enumerate(target) if i != unknown[0]])
        whole = tirx.floordiv(_product(shape), known)
        target[unknown[0]] = _ANALYZER.simplify(whole)
    return [tirx.IntImm("int64", n) if isinstance(n, int) else n for n in target]


def _rows(sizes: list[Any], inner: int) -> list[Any]:
    return _target([-1, inner], sizes)


def _product(sizes: list[Any]) -> Any:
    total: Any = tirx.IntImm("int64", 1)
    for size in sizes:
        total = total * size
    return _ANALYZER.simplify(total)


def _operands(importer: Any, operator: Any) -> tuple[relax.Expr, relax.Expr, relax.Expr | None]:
    tensors = importer.get_input_tensors(operator)
    bias = tensors[2] if len(tensors) > 2 and tensors[2].tensor_idx >= 0 else None
    return (
        importer.value(tensors[0]),
        importer.value(tensors[1]),
        None if bias is None else importer.value(bias),
    )


def _finished(importer: Any, y: relax.Expr, bias: Any, activation: int) -> relax.Expr:
    if bias is not None:
        y = importer.emit(op.add(y, bias))
    return importer.convert_fused_activation_function(y, activation)


def _same(size: int, reach: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME: the odd zero goes behind."""
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def _size(size: Any) -> int:
    if not isinstance(size, tirx.IntImm):
        raise ValueError(f"the size {size} is open, and this operator needs it fixed")
    return int(size)


_ANALYZER = Analyzer()
LAYERS: dict[str, Callable[[Any, Any], relax.Expr]] = {
    "CONV_2D": conv2d,
    "DEPTHWISE_CONV_2D": depthwise,
    "FULLY_CONNECTED": fully_connected,
    "GATHER": gather,
    "RESHAPE": reshape,
    "TRANSPOSE_CONV": transpose_conv,
}
