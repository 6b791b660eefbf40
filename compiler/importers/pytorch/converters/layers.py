"""Converters of ours for torch operators: kept whole, or right where TVM's are not.

Each takes (node, translator) and returns a Relax expression; the node's own recorded dtype and
shape are checked by the translator afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import tvm
from torch import fx
from tvm import relax

from burnish.compiler.importers.pytorch.arguments import arguments

if TYPE_CHECKING:
    from burnish.compiler.importers.pytorch.converters.kinds import Converter
    from burnish.compiler.importers.pytorch.translator import Translator

op = relax.op
_PERMUTE = tvm.ir.Op.get("relax.permute_dims")
_HEADS_INNER = [0, 2, 1, 3]


def filled(shape: Any, value: float, dtype: str) -> relax.Expr:
    """A constant tensor of one value."""
    return relax.const(np.full([int(n) for n in shape], value), dtype)


def linear(node: fx.Node, t: Translator) -> relax.Expr:
    """``x @ w^T + b``; in the dtype of ``x``, where TVM's converter makes half a float."""
    a = arguments(node, t)
    weight = t.emit(op.permute_dims(a["weight"]))
    out = t.emit(op.matmul(a["input"], weight))
    return out if a["bias"] is None else op.add(out, a["bias"])


def embedding(node: fx.Node, t: Translator) -> relax.Expr:
    """Rows of the table; an index out of range reads the last row, never other memory."""
    a = arguments(node, t)
    return op.take(a["weight"], a["indices"], axis=0, mode="clip")


def layer_norm(node: fx.Node, t: Translator) -> relax.Expr:
    a = arguments(node, t)
    shape, dtype = a["normalized_shape"], t.dtype_of(a["input"])
    gamma = a["weight"] if a["weight"] is not None else filled(shape, 1, dtype)
    beta = a["bias"] if a["bias"] is not None else filled(shape, 0, dtype)
    return op.nn.layer_norm(
        a["input"], gamma, beta, axes=list(range(-len(shape), 0)), epsilon=a["eps"]
    )


def rms_norm(node: fx.Node, t: Translator) -> relax.Expr:
    """Without ``eps``, torch adds the machine epsilon of the input's dtype."""
    a = arguments(node, t)
    shape, dtype = a["normalized_shape"], t.dtype_of(a["input"])
    weight = a["weight"] if a["weight"] is not None else filled(shape, 1, dtype)
    eps = a["eps"] if a["eps"] is not None else torch.finfo(getattr(torch, dtype)).eps
    return op.nn.rms_norm(a["input"], weight, axes=list(range(-len(shape), 0)), epsilon=eps)


def group_norm(node: fx.Node, t: Translator) -> relax.Expr:
    a = arguments(node, t)
    x, dtype = a["input"], t.dtype_of(a["input"])
    channels = [x.ty.shape[1]]
    gamma = a["weight"] if a["weight"] is not None else filled(channels, 1, dtype)
    beta = a["bias"] if a["bias"] is not None else filled(channels, 0, dtype)
    axes = list(range(2, x.ty.ndim))
    return op.nn.group_norm(
        x, gamma, beta, a["num_groups"], channel_axis=1, axes=axes, epsilon=a["eps"]
    )


def convolution(node: fx.Node, t: Translator) -> relax.Expr:
    """1, 2 or 3 spatial dimensions, plain or transposed, in the dtype of the input."""
    a = arguments(node, t)
    x, spatial = a["input"], a["input"].ty.ndim - 2
    every = {"strides": a["stride"], "dilation": a["dilation"], "groups": a["groups"]}
    every = {k: list(v) if isinstance(v, (list, tuple)) else v for k, v in every.items()}
    pads = [*a["padding"], *a["padding"]]
    if a["transposed"]:
        maker = {1: op.nn.conv1d_transpose, 2: op.nn.conv2d_transpose, 3: op.nn.conv3d_transpose}
        every["output_padding"] = list(a["output_padding"])
    else:
        maker = {1: op.nn.conv1d, 2: op.nn.conv2d, 3: op.nn.conv3d}
    out = t.emit(maker[spatial](x, a["weight"], padding=pads, **every))
    if a["bias"] is None:
        return out
    return op.add(out, t.emit(op.reshape(a["bias"], [1, -1] + [1] * spatial)))


def permute(node: fx.Node, t: Translator) -> relax.Expr:
    a = arguments(node, t)
    return permuted(t, a["self"], [int(axis) for axis in a["dims"]])


def permuted(t: Translator, x: relax.Expr, axes: list[int]) -> relax.Expr:
    """A transpose, as one with the transpose that ``x`` may be already."""
    axes = [axis % x.ty.ndim for axis in axes]
    inner = t.block_builder.lookup_binding(x) if isinstance(x, relax.Var) else None
    if isinstance(inner, relax.Call) and inner.op.same_as(_PERMUTE) and inner.attrs.axes:
        before = [int(axis) for axis in inner.attrs.axes]
        x, axes = inner.args[0], [before[axis] for axis in axes]
    if axes == list(range(len(axes))):
        return x
    return t.emit(op.permute_dims(x, axes))


def vector_norm(node: fx.Node, t: Translator) -> relax.Expr:
    """The Euclidean norm without TVM's ``power``; other orders as TVM writes them."""
    a = arguments(node, t)
    dims = a["dim"]
    if a["ord"] != 2 or t.dtype_of(a["self"]) != t.result_dtype(node):
        return t._norm(node)
    square = t.emit(op.multiply(a["self"], a["self"]))
    axes = None if dims is None else [int(axis) for axis in dims]
    return op.sqrt(t.emit(op.sum(square, axes, keepdims=bool(a["keepdim"]))))


def cumsum(node: fx.Node, t: Translator) -> relax.Expr:
    """torch sums integers and booleans in int64."""
    a = arguments(node, t)
    dtype = t.result_dtype(node)
    x = a["self"]
    if t.dtype_of(x) != dtype:
        x = t.emit(op.astype(x, dtype))
    return op.cumsum(x, a["dim"], dtype)


def power(node: fx.Node, t: Translator) -> relax.Expr:
    """Squares and cubes as products, which is what torch computes."""
    x, exponent = t.retrieve_args(node)
    if exponent in (2, 3) and t.dtype_of(x) == t.result_dtype(node):
        square = t.emit(op.multiply(x, x))
        return square if exponent == 2 else op.multiply(square, x)
    return t._binary_op(op.power, pow)(node)


def attention(node: fx.Node, t: Translator) -> relax.Expr:
    """One ``nn.attention``: [.., H, S, D] of torch -> [B, S, H, D] of Relax and back.

    Key heads are repeated to the query's (grouped queries). A boolean mask becomes an additive
    one; rows that may attend to nothing are zero afterwards, as in torch. Without a batch, the
    first axis counts heads, or where its size is open, the batch.
    """
    a = arguments(node, t)
    if a["dropout_p"]:
        raise ValueError("attention with dropout: call model.eval() before importing")
    first = a["query"].ty.shape[0]
    one_head = a["query"].ty.ndim == 3 and not isinstance(first, tvm.tirx.IntImm)
    q, k, v = (_four_dim(t, a[name], one_head) for name in ("query", "key", "value"))
    heads = int(q.ty.shape[2])
    k, v = (_repeat_heads(t, x, heads) for x in (k, v))
    bias, live = None, None
    if a["attn_mask"] is not None:
        bias, live = _mask(node, t, a["attn_mask"], t.dtype_of(q), one_head)
        bias = _named_lengths(t, bias, (2, 3))
        live = None if live is None else _named_lengths(t, live, (1,))
    q, k, v = (_named_lengths(t, x, (1,)) for x in (q, k, v))
    scale = a["scale"]
    out = t.emit(
        op.nn.attention(
            q,
            k,
            v,
            bias,
            scale=None if scale is None else float(scale),
            causal_mask="TopLeft" if a["is_causal"] else None,
        )
    )
    if live is not None:
        out = t.emit(op.where(live, out, relax.const(0, t.dtype_of(q))))
    out = permuted(t, out, _HEADS_INNER)
    return out if a["query"].ty.ndim == 4 else op.reshape(out, t.result_shape(node))


def _named_lengths(t: Translator, x: relax.Expr, axes: tuple[int, ...]) -> relax.Expr:
    """Lengths that are expressions (``samples // 20 - 1``) as variables of their own.

    TVM's product of batches takes two lengths for one only where they are the same variable.
    """
    shape = list(x.ty.shape)
    long = [n for n in axes if not isinstance(shape[n], (int, tvm.tirx.IntImm, tvm.tirx.Var))]
    for axis in long:
        known = [var for size, var in t.lengths if t.symbols.equal(size, shape[axis])]
        if not known:
            known = [tvm.tirx.Var(f"length{len(t.lengths)}", "int64")]
            t.lengths.append((shape[axis], known[0]))
        shape[axis] = known[0]
    if not long:
        return x
    return t.block_builder.match_cast(x, relax.TensorType(shape, t.dtype_of(x)))


def _four_dim(t: Translator, x: relax.Expr, one_head: bool) -> relax.Expr:
    """[.., H, S, D] -> [B, S, H, D]; with ``one_head`` [B, S, D] -> [B, S, 1, D]."""
    if one_head and x.ty.ndim == 3:
        return t.emit(op.expand_dims(x, 2))
    if x.ty.ndim < 4:
        x = t.emit(op.expand_dims(x, list(range(4 - x.ty.ndim))))
    elif x.ty.ndim > 4:
        shape = list(x.ty.shape)
        batch = shape[0]
        for size in shape[1:-3]:
            batch = batch * size
        x = t.emit(op.reshape(x, [batch, *shape[-3:]]))
    return permuted(t, x, _HEADS_INNER)


def _repeat_heads(t: Translator, x: relax.Expr, heads: int) -> relax.Expr:
    """[B, S, G, D] -> [B, S, H, D], each of the G heads H / G times in a row."""
    batch, length, groups, size = x.ty.shape
    if int(groups) == heads:
        return x
    x = t.emit(op.expand_dims(x, 3))
    x = t.emit(op.broadcast_to(x, [batch, length, groups, heads // int(groups), size]))
    return t.emit(op.reshape(x, [batch, length, heads, size]))


def _mask(
    node: fx.Node, t: Translator, mask: relax.Expr, dtype: str, one_head: bool
) -> tuple[relax.Expr, relax.Expr | None]:
    """The additive mask in 4 dimensions, and where rows attend to something (boolean masks).

    Masks are shared by a model's layers, so both are made once a mask.
    """
    key = (node.args[3] if len(node.args) > 3 else node.kwargs["attn_mask"], dtype, one_head)
    if key in t.masks:
        return t.masks[key]
    if mask.ty.ndim > 4:
        raise ValueError(f"an attention mask of {mask.ty.ndim} dimensions: reshape it to 4")
    if one_head and mask.ty.ndim == 3:
        mask = t.emit(op.expand_dims(mask, 1))
    if mask.ty.ndim < 4:
        mask = t.emit(op.expand_dims(mask, list(range(4 - mask.ty.ndim))))
    live = None
    if t.dtype_of(mask) == "bool":
        lowest = float(torch.finfo(getattr(torch, dtype)).min)
        rows = t.emit(op.max(t.emit(op.astype(mask, "int8")), axis=-1, keepdims=True))
        live = t.emit(op.permute_dims(t.emit(op.astype(rows, "bool")), [0, 2, 1, 3]))
        mask = t.emit(op.where(mask, relax.const(0, dtype), relax.const(lowest, dtype)))
    elif t.dtype_of(mask) != dtype:
        mask = t.emit(op.astype(mask, dtype))
    t.masks[key] = (mask, live)
    return mask, live


LAYERS: dict[str, Converter] = {
    "convolution.default": convolution,
    "cumsum.default": cumsum,
    "embedding.default": embedding,
    "group_norm.default": group_norm,
    "layer_norm.default": layer_norm,
    "linalg_vector_norm.default": vector_norm,
    "linear.default": linear,
    "permute.default": permute,
    "pow.Tensor_Scalar": power,
    "rms_norm.default": rms_norm,
    "scaled_dot_product_attention.default": attention,
}
