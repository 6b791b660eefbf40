# ruff: noqa: E501
"""The single-operator cases of ``make_operators.py``: name -> module and inputs.

A case is ``(function of expressions, input, ...)``. An input made by :func:`f`, :func:`i` or
:func:`b` is a parameter of the module; one wrapped in :func:`k` is a constant in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relay
from tvm.relay.op.dyn import _make as dyn

nn, image, vision, qnn, op = relay.nn, relay.image, relay.vision, relay.qnn.op, relay.op


@dataclass(frozen=True)
class Draw:
    make: Callable[[np.random.Generator], np.ndarray]
    constant: bool = False
    open_axes: tuple[int, ...] = ()


def f(*shape: int, low: float = -2, high: float = 2, dtype: str = "float32") -> Draw:
    return Draw(lambda rng: rng.uniform(low, high, shape).astype(dtype))


def i(*shape: int, low: int = 0, high: int = 4, dtype: str = "int32") -> Draw:
    return Draw(lambda rng: rng.integers(low, high, shape).astype(dtype))


def b(*shape: int) -> Draw:
    return Draw(lambda rng: rng.integers(0, 2, shape).astype(bool))


def k(value: Any, dtype: str | None = None) -> Draw:
    """A constant: an array, or a draw."""
    if isinstance(value, Draw):
        return Draw(value.make, True)
    return Draw(lambda rng: np.asarray(value, dtype), True)


def given(value: Any, dtype: str) -> Draw:
    return Draw(lambda rng: np.asarray(value, dtype))


def opened(draw: Draw, *axes: int) -> Draw:
    """A parameter with open sizes."""
    return Draw(draw.make, False, axes)


def raw(name: str) -> Callable[..., Any]:
    """An operator without attributes, as a Python function."""
    return getattr(relay, name, None) or (lambda *args: relay.Call(op.get(name), args))


CASES: dict[str, Callable[[np.random.Generator], Any]] = {}


def case(name: str, body: Callable[..., Any], *draws: Draw) -> None:
    def make(rng: np.random.Generator) -> tuple[tvm.IRModule, dict[str, np.ndarray]]:
        params, args, inputs = [], [], {}
        for index, draw in enumerate(draws):
            value = draw.make(rng)
            if draw.constant:
                args.append(relay.const(value, str(value.dtype)))
                continue
            shape = [relay.Any() if a in draw.open_axes else n for a, n in enumerate(value.shape)]
            var = relay.var(f"p{index}", shape=shape, dtype=str(value.dtype))
            params.append(var)
            args.append(var)
            inputs[f"p{index}"] = value
        result = body(*args)
        if isinstance(result, relay.TupleWrapper):
            result = result.astuple()
        return tvm.IRModule.from_expr(relay.Function(params, result)), inputs

    assert name not in CASES, name
    CASES[name] = make


# elementwise
for _name in [
    "abs",
    "atan",
    "ceil",
    "cos",
    "cosh",
    "erf",
    "exp",
    "fast_erf",
    "fast_exp",
    "fast_tanh",
    "floor",
    "negative",
    "round",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "tan",
    "tanh",
    "trunc",
    "copy",
]:
    case(_name, raw(_name), f(3, 5))
for _name in ["acos", "asin", "atanh"]:
    case(_name, raw(_name), f(3, 5, low=-0.9, high=0.9))
for _name in ["log", "log2", "log10", "sqrt", "rsqrt"]:
    case(_name, raw(_name), f(3, 5, low=0.1, high=4))
case("acosh", relay.acosh, f(3, 5, low=1.1, high=4))
case("asinh", relay.asinh, f(3, 5))
case("round/halves", relay.round, given([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.2], "float32"))
case("abs/int", relay.abs, i(7, low=-9, high=9))
case("negative/int64", relay.negative, i(7, low=-9, high=9, dtype="int64"))
case("sign/int", relay.sign, i(9, low=-2, high=3))
_odd = given([1.0, np.nan, np.inf, -np.inf, 0.0], "float32")
for _name in ["isnan", "isinf", "isfinite"]:
    case(_name, raw(_name), _odd)
case("logical_not", relay.logical_not, b(3, 5))
case("bitwise_not", relay.bitwise_not, i(9, low=-9, high=9))
case("clip", lambda x: relay.clip(x, -0.5, 1.25), f(3, 5))
case("clip/int", lambda x: relay.clip(x, -3, 4), i(3, 5, low=-9, high=9))
case("cast", lambda x: relay.cast(x, "int32"), f(3, 5, low=-5, high=5))
case("cast/bool", lambda x: relay.cast(x, "bool"), i(9, low=-1, high=2))
case("cast/half", lambda x: relay.cast(x, "float16"), f(3, 5))
case("reinterpret", lambda x: relay.reinterpret(x, "int32"), f(3, 5))
case("cast_like", relay.cast_like, f(3, 5), i(2))
for _name in ["add", "subtract", "multiply", "divide", "maximum", "minimum"]:
    case(_name, raw(_name), f(2, 3, 5), f(3, 1))
case("add/scalar", lambda x: x + relay.const(1.5), f(2, 3))
case("power", relay.power, f(3, 5, low=0.1), f(5))
case("power/square", lambda x: relay.power(x, relay.const(2.0)), f(3, 5))
_ints = (given([7, -7, 7, -7, 6, 0, 1] * 5, "int32"), given([3, 3, -3, -3, 3, 5, 9] * 5, "int32"))
for _name in [
    "floor_divide",
    "trunc_divide",
    "floor_mod",
    "trunc_mod",
    "mod",
    "divide",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
]:
    case(f"{_name}/int", raw(_name), *_ints)
_reals = (given([7.5, -7.5, 7.5, -7.5, 6], "float32"), given([2, 2, -2, -2, 3], "float32"))
for _name in ["floor_divide", "trunc_divide", "floor_mod", "trunc_mod", "mod"]:
    case(f"{_name}/float", raw(_name), *_reals)
for _name in ["left_shift", "right_shift"]:
    case(_name, raw(_name), i(9, low=-64, high=64), i(9, low=0, high=5))
for _name in ["logical_and", "logical_or", "logical_xor"]:
    case(_name, raw(_name), b(3, 5), b(5))
for _name in ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"]:
    case(_name, raw(_name), i(3, 7), i(7))
case("where", relay.where, b(3, 5), f(3, 5), f(5))
case("fixed_point_multiply", lambda x: op.tensor.fixed_point_multiply(x, 1500000000, 1),
     i(9, low=-99999, high=99999))  # fmt: skip
case("zeros_like", relay.zeros_like, f(3, 5))
case("ones_like", relay.ones_like, i(3, 5))
case("full_like", lambda x: relay.full_like(x, relay.const(2.5)), f(3, 5))
case("zeros", lambda x: x + relay.zeros((3, 5), "float32"), f(3, 5))
case("ones", lambda x: x + relay.ones((3, 5), "float32"), f(3, 5))
case("full", lambda x: x + relay.full(relay.const(7), (5,), "int32"), i(3, 5))
case("full/run time", lambda x, v: x + relay.full(v, (5,)), f(3, 5), f())
case(
    "arange",
    lambda x: x * relay.arange(relay.const(2), relay.const(17), relay.const(3), "int32"),
    i(5),
)
case("arange/float", lambda x: x * relay.arange(relay.const(0.5), relay.const(2.0),
     relay.const(0.25), "float32"), f(6))  # fmt: skip
for _name in ["annotation.stop_fusion", "annotation.checkpoint"]:
    case(_name, getattr(relay.annotation, _name.split(".")[1]), f(3, 5))

# reduce
for _name in ["sum", "mean", "max", "min", "prod", "variance"]:
    case(_name, lambda x, n=_name: getattr(relay, n)(x, axis=1), f(2, 3, 5))
    case(f"{_name}/all", lambda x, n=_name: getattr(relay, n)(x), f(2, 3))
    case(f"{_name}/exclude", lambda x, n=_name: getattr(relay, n)(
        x, axis=[0, -1], keepdims=True, exclude=True), f(2, 3, 5))  # fmt: skip
case("variance/unbiased", lambda x: relay.variance(x, axis=1, unbiased=True), f(2, 7))
for _name in ["all", "any"]:
    case(_name, lambda x, n=_name: getattr(relay, n)(x, axis=-1), b(5, 3))
for _name in ["argmax", "argmin"]:
    case(_name, lambda x, n=_name: getattr(relay, n)(x, axis=1), f(2, 5, 3))
    case(f"{_name}/all", lambda x, n=_name: getattr(relay, n)(x), f(2, 5))
    case(f"{_name}/keep", lambda x, n=_name: getattr(relay, n)(
        x, axis=[-1], keepdims=True), f(2, 5))  # fmt: skip
    case(f"{_name}/last", lambda x, n=_name: getattr(relay, n)(
        x, axis=1, select_last_index=True), i(3, 9, high=3))  # fmt: skip
case("cumsum", lambda x: relay.cumsum(x, axis=1), f(2, 5))
case("cumsum/exclusive", lambda x: relay.cumsum(x, axis=0, exclusive=True), f(4, 3))
case("cumsum/flat", lambda x: relay.cumsum(x, dtype="int64"), i(2, 3))
case("cumprod", lambda x: relay.cumprod(x, axis=1, exclusive=False), f(2, 5))
case("cumprod/exclusive", lambda x: relay.cumprod(x, axis=1, exclusive=True), f(2, 5))
case("nn.softmax", lambda x: nn.softmax(x, axis=1), f(2, 5, 3))
case("nn.fast_softmax", lambda x: nn.fast_softmax(x, axis=-1), f(2, 5))
case("nn.log_softmax", lambda x: nn.log_softmax(x, axis=-1), f(2, 5))
case("nn.l2_normalize", lambda x: nn.l2_normalize(x, 1e-3, axis=[1]), f(2, 5, 3))

# shape
case("reshape", lambda x: relay.reshape(x, (3, -1)), f(2, 3, 4))
case("reshape/zero", lambda x: relay.reshape(x, (0, -1)), f(2, 3, 4))
case("reshape/rest", lambda x: relay.reshape(x, (0, -2)), f(2, 3, 4))
case("reshape/merge", lambda x: relay.reshape(x, (-3, 0)), f(2, 3, 4))
case("reshape/split", lambda x: relay.reshape(x, (0, -4, -1, 2, -2)), f(3, 4, 5))
case("contrib_reverse_reshape", lambda x: relay.reverse_reshape(x, (-1, 0)),
     f(2, 3, 4))  # fmt: skip
case("reshape_like", relay.reshape_like, f(2, 6), f(3, 4))
case("reshape_like/part", lambda x, y: relay.reshape_like(
    x, y, lhs_begin=1, lhs_end=2, rhs_begin=1, rhs_end=3), f(2, 12, 2), f(9, 3, 4))  # fmt: skip
case("transpose", lambda x: relay.transpose(x, (2, 0, 1)), f(2, 3, 4))
case("transpose/reverse", lambda x: relay.transpose(x), f(2, 3, 4))
case("squeeze", lambda x: relay.squeeze(x), f(1, 3, 1))
case("squeeze/axis", lambda x: relay.squeeze(x, axis=[-1]), f(1, 3, 1))
case("expand_dims", lambda x: relay.expand_dims(x, 1, 2), f(2, 3))
case("expand_dims/end", lambda x: relay.expand_dims(x, -1), f(2, 3))
case("split", lambda x: relay.split(x, 3, axis=1), f(2, 6))
case("split/one", lambda x: relay.split(x, 1, axis=1), f(2, 6))
case("split/at", lambda x: relay.split(x, (1, 4), axis=-1), f(2, 6))
case("concatenate", lambda x, y: relay.concatenate([x, y], axis=-1), f(2, 3), f(2, 4))
case("stack", lambda x, y: relay.stack([x, y], axis=1), f(2, 3), f(2, 3))
case("stack/end", lambda x, y: relay.stack([x, y], axis=-1), f(2, 3), f(2, 3))
case("tile", lambda x: relay.tile(x, (2, 1, 3)), f(2, 3))
case("repeat", lambda x: relay.repeat(x, 3, axis=1), f(2, 3))
case("reverse", lambda x: relay.reverse(x, axis=1), f(2, 3))
case("reverse_sequence", lambda x, n: relay.reverse_sequence(x, n, seq_axis=0, batch_axis=1),
     f(4, 3), given([1, 3, 4], "int32"))  # fmt: skip
case("strided_slice", lambda x: relay.strided_slice(x, [1, 0], [3, 4], [1, 2]), f(4, 5))
case("strided_slice/back", lambda x: relay.strided_slice(x, [3, -1], [0, -6], [-2, -1]), f(4, 5))
case("strided_slice/short", lambda x: relay.strided_slice(x, [-3], [2**31 - 1]), f(4, 5))
case("strided_slice/size", lambda x: relay.strided_slice(
    x, [1, 2], [2, -1], slice_mode="size"), f(4, 5))  # fmt: skip
case("strided_slice/axes", lambda x: relay.strided_slice(x, [1], [3], axes=[1]), f(4, 5))
case("strided_set", lambda x, v: relay.strided_set(
    x, v, relay.const([1, 0]), relay.const([3, 4]), relay.const([1, 2])), f(4, 5), f(2, 2))  # fmt: skip
case("slice_like", relay.slice_like, f(4, 5), f(2, 3))
case("slice_like/axes", lambda x, y: relay.slice_like(x, y, axes=[-1]), f(4, 5), f(2, 3))
case("take", lambda x, n: relay.take(x, n, axis=0), f(4, 3), i(2, 5))
case("take/flat", lambda x, n: relay.take(x, n), f(4, 3), i(5, low=-20, high=20))
case("take/clip", lambda x, n: relay.take(x, n, axis=1), f(2, 4), i(7, low=-9, high=9))
case("take/wrap", lambda x, n: relay.take(x, n, axis=1, mode="wrap"), f(2, 4),
     i(7, low=-9, high=9, dtype="int64"))  # fmt: skip
case("take/fast", lambda x, n: relay.take(x, n, axis=-1, mode="fast"), f(2, 4), i(3))
case("take/batch", lambda x, n: relay.take(x, n, batch_dims=1, axis=1), f(2, 4, 3), i(2, 5))
case("take/scalar", lambda x: relay.take(x, relay.const(2), axis=0), f(4, 3))
case("gather", lambda x, n: relay.gather(x, 1, n), f(2, 4), i(2, 3))
case("gather_nd", relay.gather_nd, f(3, 4, 5), i(2, 6, high=3))
case("gather_nd/batch", lambda x, n: relay.gather_nd(x, n, batch_dims=1), f(3, 4, 5),
     i(1, 3, high=3))  # fmt: skip
for _how in ["update", "add", "mul", "min", "max"]:
    case(f"scatter_elements/{_how}", lambda x, n, v, how=_how: relay.scatter_elements(
        x, n, v, axis=1, reduction=how), f(2, 5), given([[0, 3, 1], [4, 1, 2]], "int64"),
        f(2, 3))  # fmt: skip
for _how in ["update", "add"]:
    case(f"scatter_nd/{_how}", lambda x, n, v, how=_how: relay.scatter_nd(x, n, v, how),
         f(4, 5), given([[0, 3, 1], [4, 1, 2]], "int64"), f(3))  # fmt: skip
case("adv_index", lambda x, n, m: relay.adv_index([x, n, m]), f(4, 5, 3),
     i(2, 3, dtype="int64"), i(3, dtype="int64"))  # fmt: skip
case("meshgrid", lambda x, y: relay.meshgrid([x, y], indexing="ij"), f(3), f(4))
case("meshgrid/xy", lambda x, y: relay.meshgrid([x, y], indexing="xy"), f(3), f(4))
case("broadcast_to", lambda x: relay.broadcast_to(x, (2, 3, 4)), f(3, 1))
case("broadcast_to_like", relay.broadcast_to_like, f(3, 1), f(2, 3, 4))
case("collapse_sum_like", relay.collapse_sum_like, f(2, 3, 4), f(3, 1))
case("collapse_sum_to", lambda x: relay.collapse_sum_to(x, (3, 1)), f(2, 3, 4))
case("layout_transform", lambda x: relay.layout_transform(x, "NCHW", "NHWC"), f(2, 3, 4, 5))
case("layout_transform/block", lambda x: relay.layout_transform(x, "NCHW", "NCHW4c"),
     f(2, 8, 3, 5))  # fmt: skip
case("layout_transform/unblock", lambda x: relay.layout_transform(x, "NCHW4c", "NCHW"),
     f(2, 2, 3, 5, 4))  # fmt: skip
case("sequence_mask", lambda x, n: relay.sequence_mask(x, n, mask_value=-1.0), f(4, 3, 2),
     given([1, 4, 2], "int32"))  # fmt: skip
case("sequence_mask/axis", lambda x, n: relay.sequence_mask(x, n, axis=1), f(3, 4),
     given([1, 4, 2], "int32"))  # fmt: skip
case("unravel_index", lambda n: relay.unravel_index(n, relay.const([3, 4, 5])), i(17, high=60))
case("matrix_set_diag", relay.matrix_set_diag, f(2, 3, 4), f(2, 3))
case("matrix_set_diag/band", lambda x, d: relay.matrix_set_diag(x, d, k=(-1, 1)), f(3, 4),
     f(3, 3))  # fmt: skip
case("sliding_window", lambda x: relay.sliding_window(x, 1, (2, 3), (1, 2)), f(2, 5, 7))
case("trilu", lambda x: relay.trilu(x, relay.const(1), upper=True), f(2, 4, 5))
case("trilu/lower", lambda x: relay.trilu(x, relay.const(0), upper=False), f(4, 5))
case("invert_permutation", lambda n: op.transform.invert_permutation(n),
     given([2, 0, 3, 1], "int32"))  # fmt: skip
case("searchsorted", relay.searchsorted, given([[1, 3, 5], [2, 4, 4]], "float32"),
     f(2, 4, low=0, high=6))  # fmt: skip
case("searchsorted/right", lambda s, v: relay.searchsorted(s, v, right=True, dtype="int64"),
     given([1, 3, 3, 5], "int32"), i(2, 5, high=7))  # fmt: skip
case("einsum", lambda x, y: relay.einsum([x, y], "bij,bjk->bki"), f(2, 3, 4), f(2, 4, 5))
case("sparse_to_dense", lambda v: relay.sparse_to_dense(
    relay.const([[0, 1], [2, 3]]), (3, 4), v, relay.const(-1.0)), f(2))  # fmt: skip
case("shape_of", lambda x: relay.shape_of(x, "int64"), f(2, 3, 4))
case("ndarray_size", lambda x: relay.ndarray_size(x, "int32"), f(2, 3))
case("one_hot", lambda n: relay.one_hot(n, relay.const(2.0), relay.const(-1.0), 4, -1, "float32"),
     i(2, 3))  # fmt: skip
case("one_hot/axis", lambda n: relay.one_hot(n, relay.const(1), relay.const(0), 5, 1, "int32"),
     i(2, 3, low=-1, high=7))  # fmt: skip
case("sort", lambda x: relay.sort(x, axis=0), f(5, 3))
case("sort/down", lambda x: relay.sort(x, axis=-1, is_ascend=False), f(3, 5))
case("argsort", lambda x: relay.argsort(x, axis=-1), f(3, 5))
case("argsort/down", lambda x: relay.argsort(x, axis=0, is_ascend=False, dtype="int64"), f(5, 3))
for _what in ["both", "values", "indices"]:
    case(f"topk/{_what}", lambda x, w=_what: relay.topk(x, 3, axis=-1, ret_type=w), f(2, 7))
case("topk/up", lambda x: relay.topk(x, 2, axis=0, is_ascend=True, dtype="int64"), f(5, 3))
case("nn.space_to_depth", lambda x: nn.space_to_depth(x, 2), f(1, 3, 4, 6))
case("nn.space_to_depth/nhwc", lambda x: nn.space_to_depth(x, 2, "NHWC"), f(1, 4, 6, 3))
for _mode in ["DCR", "CRD"]:
    case(f"nn.depth_to_space/{_mode}", lambda x, m=_mode: nn.depth_to_space(x, 2, mode=m),
         f(1, 8, 2, 3))  # fmt: skip
case("nn.batch_to_space_nd", lambda x: nn.batch_to_space_nd(x, [2, 2], [[0, 1], [0, 0]]),
     f(4, 2, 3, 2))  # fmt: skip
case("nn.space_to_batch_nd", lambda x: nn.space_to_batch_nd(x, [2, 2], [[0, 1], [1, 1]], 0.5),
     f(1, 3, 4, 2))  # fmt: skip
case("nn.batch_flatten", nn.batch_flatten, f(2, 3, 4))
case("nn.pad", lambda x: nn.pad(x, ((0, 0), (1, 2)), pad_value=1.5), f(2, 3))
case("nn.pad/edge", lambda x: nn.pad(x, ((0, 0), (0, 0), (1, 2), (2, 1)), pad_mode="edge"),
     f(1, 2, 3, 4))  # fmt: skip
case("nn.pad/reflect", lambda x: nn.pad(x, ((0, 0), (1, 2)), pad_mode="reflect"), f(2, 5))
case("nn.pad/value", lambda x, v: nn.pad(x, ((0, 0), (1, 2)), pad_value=v), f(2, 3), f())
case("nn.mirror_pad", lambda x: nn.mirror_pad(x, ((1, 1), (1, 2)), "SYMMETRIC"), f(3, 4))
case("nn.mirror_pad/reflect", lambda x: nn.mirror_pad(x, ((1, 1), (1, 2)), "REFLECT"), f(3, 4))
case("nn.dilate", lambda x: relay.nn.dilate(x, (1, 2, 3), 0.5), f(2, 3, 2))

# nn
case("nn.dense", lambda x, w: nn.dense(x, w), f(3, 5), f(7, 5))
case("nn.dense/wide", lambda x, w: nn.dense(x, w, out_dtype="int32"),
     i(3, 5, low=-9, high=9, dtype="int8"), i(7, 5, low=-9, high=9, dtype="int8"))  # fmt: skip
case("nn.matmul", lambda x, w: nn.matmul(x, w), f(3, 5), f(5, 7))
case("nn.matmul/transposed", lambda x, w: nn.matmul(x, w, transpose_a=True, transpose_b=True),
     f(5, 3), f(7, 5))  # fmt: skip
case("nn.batch_matmul", nn.batch_matmul, f(2, 3, 5), f(2, 7, 5))
case("nn.batch_matmul/plain", lambda x, y: nn.batch_matmul(x, y, transpose_b=False), f(2, 3, 5),
     f(1, 5, 7))  # fmt: skip
case("nn.batch_matmul/a", lambda x, y: nn.batch_matmul(x, y, transpose_a=True, transpose_b=False),
     f(2, 5, 3), f(2, 5, 7))  # fmt: skip
case("nn.bias_add", nn.bias_add, f(2, 3, 4), f(3))
case("nn.bias_add/end", lambda x, v: nn.bias_add(x, v, axis=-1), f(2, 3), f(3))
case("nn.relu", nn.relu, f(3, 5))
case("nn.leaky_relu", lambda x: nn.leaky_relu(x, 0.2), f(3, 5))
case("nn.prelu", lambda x, s: nn.prelu(x, s), f(2, 3, 4), f(3))
case("nn.prelu/end", lambda x, s: nn.prelu(x, s, axis=2), f(1, 2, 3), f(3))
case("nn.dropout", lambda x: nn.dropout(x, 0.3), f(3, 5))
case("nn.conv1d", lambda x, w: nn.conv1d(x, w, strides=2, padding=(1, 2)), f(2, 3, 9), f(4, 3, 3))
case("nn.conv1d/nwc", lambda x, w: nn.conv1d(x, w, data_layout="NWC", kernel_layout="WIO"),
     f(2, 9, 3), f(3, 3, 4))  # fmt: skip
case("nn.conv2d", lambda x, w: nn.conv2d(x, w, padding=(1, 1)), f(1, 3, 6, 7), f(4, 3, 3, 3))
case("nn.conv2d/strided", lambda x, w: nn.conv2d(
    x, w, strides=(2, 1), padding=(0, 1, 2, 1), dilation=(1, 2)), f(2, 3, 8, 9),
    f(4, 3, 3, 2))  # fmt: skip
case("nn.conv2d/depthwise", lambda x, w: nn.conv2d(x, w, padding=1, groups=4), f(1, 4, 6, 6),
     f(4, 1, 3, 3))  # fmt: skip
case("nn.conv2d/groups", lambda x, w: nn.conv2d(x, w, groups=2), f(1, 4, 6, 6), f(6, 2, 3, 3))
case("nn.conv2d/nhwc", lambda x, w: nn.conv2d(
    x, w, padding=1, data_layout="NHWC", kernel_layout="HWIO", channels=4, kernel_size=(3, 3)),
    f(1, 6, 7, 3), f(3, 3, 3, 4))  # fmt: skip
case("nn.conv2d/nhwc depthwise", lambda x, w: nn.conv2d(
    x, w, padding=1, data_layout="NHWC", kernel_layout="HWOI", channels=3, kernel_size=(3, 3),
    groups=3), f(1, 6, 7, 3), f(3, 3, 3, 1))  # fmt: skip
case("nn.conv2d/wide", lambda x, w: nn.conv2d(x, w, out_dtype="int32"),
     i(1, 3, 5, 5, low=-9, high=9, dtype="int8"),
     i(4, 3, 3, 3, low=-9, high=9, dtype="int8"))  # fmt: skip
case("nn.conv3d", lambda x, w: nn.conv3d(x, w, strides=(1, 2, 1), padding=1), f(1, 2, 4, 5, 4),
     f(3, 2, 3, 3, 3))  # fmt: skip
case("nn.conv1d_transpose", lambda x, w: nn.conv1d_transpose(
    x, w, strides=(2,), padding=(1,), output_padding=(1,), channels=4, kernel_size=(3,)), f(2, 3, 5),
    f(3, 4, 3))  # fmt: skip
case("nn.conv2d_transpose", lambda x, w: nn.conv2d_transpose(
    x, w, strides=(2, 2), padding=(1, 1), output_padding=(1, 0), channels=4, kernel_size=(3, 3)),
    f(1, 3, 4, 5), f(3, 4, 3, 3))  # fmt: skip
case("nn.conv2d_transpose/groups", lambda x, w: nn.conv2d_transpose(
    x, w, strides=(2, 2), groups=2, channels=4, kernel_size=(2, 2)), f(1, 4, 3, 3),
    f(4, 2, 2, 2))  # fmt: skip
case("nn.conv3d_transpose", lambda x, w: nn.conv3d_transpose(
    x, w, strides=(1, 2, 2), padding=(0, 1, 1), channels=2, kernel_size=(2, 3, 3)),
    f(1, 3, 2, 3, 3), f(3, 2, 2, 3, 3))  # fmt: skip
for _kind in ["max", "avg"]:
    for _n, _size in ((1, (9,)), (2, (7, 8)), (3, (5, 6, 5))):
        _pool = getattr(nn, f"{_kind}_pool{_n}d")
        case(f"nn.{_kind}_pool{_n}d", lambda x, p=_pool, n=_n: p(
            x, pool_size=(3,) * n, strides=(2,) * n, padding=(1,) * n), f(1, 2, *_size))  # fmt: skip
    _pool = getattr(nn, f"{_kind}_pool2d")
    case(f"nn.{_kind}_pool2d/ceil", lambda x, p=_pool: p(
        x, pool_size=(3, 2), strides=(2, 2), ceil_mode=True, layout="NHWC"), f(1, 8, 9, 2))  # fmt: skip
    case(f"nn.{_kind}_pool2d/dilated", lambda x, p=_pool: p(
        x, pool_size=(2, 2), strides=(1, 2), dilation=(2, 1)), f(1, 2, 7, 7))  # fmt: skip
    case(f"nn.global_{_kind}_pool2d", getattr(nn, f"global_{_kind}_pool2d"), f(2, 3, 4, 5))
    for _n, _size in ((1, (9,)), (2, (7, 8)), (3, (5, 6, 5))):
        _pool = getattr(nn, f"adaptive_{_kind}_pool{_n}d")
        case(f"nn.adaptive_{_kind}_pool{_n}d", lambda x, p=_pool, n=_n: p(
            x, output_size=(3, 2, 2)[:n]), f(1, 2, *_size))  # fmt: skip
case("nn.avg_pool2d/count", lambda x: nn.avg_pool2d(
    x, pool_size=(3, 3), strides=(2, 2), padding=(1, 0, 1, 2), count_include_pad=True),
    f(1, 2, 7, 8))  # fmt: skip
case("nn.global_avg_pool2d/nhwc", lambda x: nn.global_avg_pool2d(x, "NHWC"), f(2, 4, 5, 3))
_norm = (f(3), f(3), f(3), f(3, low=0.5))
case("nn.batch_norm", lambda x, g, b_, m, v: nn.batch_norm(x, g, b_, m, v, epsilon=1e-3)[0],
     f(2, 3, 4, 5), *_norm)  # fmt: skip
case("nn.batch_norm/end", lambda x, g, b_, m, v: nn.batch_norm(
    x, g, b_, m, v, axis=-1, scale=False)[0], f(2, 4, 3), *_norm)  # fmt: skip
case("nn.batch_norm/bare", lambda x, g, b_, m, v: nn.batch_norm(
    x, g, b_, m, v, center=False)[0], f(2, 3), *_norm)  # fmt: skip
case("nn.layer_norm", lambda x, g, b_: nn.layer_norm(x, g, b_), f(2, 4, 3), f(3), f(3))
case("nn.layer_norm/axis", lambda x, g, b_: nn.layer_norm(x, g, b_, axis=1, epsilon=0.1),
     f(2, 3, 4), f(3), f(3))  # fmt: skip
case("nn.instance_norm", lambda x, g, b_: nn.instance_norm(x, g, b_), f(2, 3, 4, 5), f(3), f(3))
case("nn.group_norm", lambda x, g, b_: nn.group_norm(x, g, b_, 2), f(2, 6, 3, 2), f(6), f(6))
case("nn.lrn", lambda x: nn.lrn(x, size=3, alpha=0.1), f(1, 7, 3, 2))
case("nn.upsampling", lambda x: nn.upsampling(x, 2, 3), f(1, 2, 3, 4))
case("nn.upsampling/bilinear", lambda x: nn.upsampling(
    x, 2, 2, layout="NHWC", method="bilinear", align_corners=True), f(1, 3, 4, 2))  # fmt: skip
case("nn.upsampling/half", lambda x: nn.upsampling(x, 2, 1.5, method="bilinear"), f(1, 2, 4, 4))
case("nn.upsampling3d", lambda x: nn.upsampling3d(x, 2, 1, 2), f(1, 2, 3, 2, 2))
case("nn.cross_entropy", nn.cross_entropy, f(3, 5, low=0.1), f(3, 5, low=0))
case("nn.cross_entropy_with_logits", nn.cross_entropy_with_logits, f(3, 5), f(3, 5))
for _how in ["mean", "sum", "none"]:
    case(f"nn.nll_loss/{_how}", lambda x, t, w, how=_how: nn.nll_loss(x, t, w, how, 2), f(4, 5),
         i(4, high=5), f(5, low=0.1))  # fmt: skip
case("nn.fifo_buffer", lambda x, y: nn.fifo_buffer(x, y, axis=1), f(2, 2), f(2, 5))
case("nn.deformable_conv2d", lambda x, o, w: nn.deformable_conv2d(
    x, o, w, padding=(1, 1), channels=4, kernel_size=(3, 3)), f(1, 3, 5, 6),
    f(1, 18, 5, 6, low=-1, high=1), f(4, 3, 3, 3))  # fmt: skip

# image
for _method in ["nearest_neighbor", "linear", "cubic"]:
    for _mode in ["half_pixel", "align_corners", "asymmetric"]:
        if _method == "cubic" and _mode == "align_corners":
            continue
        case(f"image.resize2d/{_method} {_mode}", lambda x, m=_method, c=_mode: image.resize2d(
            x, (7, 5), method=m, coordinate_transformation_mode=c), f(1, 2, 4, 4))  # fmt: skip
case("image.resize2d/floor", lambda x: image.resize2d(
    x, (7, 5), method="nearest_neighbor", coordinate_transformation_mode="asymmetric",
    rounding_method="floor"), f(1, 2, 4, 4))  # fmt: skip
case("image.resize2d/nhwc", lambda x: image.resize2d(x, (3, 9), layout="NHWC"), f(1, 6, 4, 2))
case("image.resize2d/exclude", lambda x: image.resize2d(
    x, (7, 5), method="cubic", cubic_alpha=-0.75, cubic_exclude=1), f(1, 2, 4, 4))  # fmt: skip
case("image.resize2d/pytorch", lambda x: image.resize2d(
    x, (7, 1), coordinate_transformation_mode="pytorch_half_pixel"), f(1, 2, 4, 4))  # fmt: skip
case("image.resize1d", lambda x: image.resize1d(x, (7,)), f(1, 2, 4))
case("image.resize3d", lambda x: image.resize3d(x, (3, 5, 4)), f(1, 2, 2, 3, 4))
case("image.crop_and_resize", lambda x, r, n: image.crop_and_resize(
    x, r, n, (3, 4), layout="NHWC", method="bilinear", extrapolation_value=0.5), f(2, 5, 6, 2),
    given([[0.1, 0.2, 0.8, 0.9], [0.0, 0.0, 1.2, 1.0]], "float32"),
    given([0, 1], "int32"))  # fmt: skip
case("image.dilation2d", lambda x, w: image.dilation2d(
    x, w, strides=[1, 2], padding=[1, 1], dilations=[1, 1]), f(1, 2, 5, 6), f(2, 3, 3))  # fmt: skip
case("image.affine_grid", lambda x: image.affine_grid(x, (4, 5)), f(2, 2, 3))
for _pad in ["zeros", "border", "reflection"]:
    case(f"image.grid_sample/{_pad}", lambda x, g, p=_pad: image.grid_sample(
        x, g, padding_mode=p), f(1, 2, 4, 5), f(1, 2, 3, 6, low=-1.4, high=1.4))  # fmt: skip
case("image.grid_sample/nearest", lambda x, g: image.grid_sample(
    x, g, method="nearest", align_corners=False), f(1, 2, 4, 5),
    f(1, 2, 3, 6, low=-0.9, high=0.9))  # fmt: skip


# vision
def counted(x: Any, threshold: float) -> tuple[Any, Any, Any]:
    """Boxes above a threshold, as non_max_suppression takes them."""
    count, data, indices = vision.get_valid_counts(x, threshold, 0, 1)
    return data, count, indices


case("vision.yolo_reorg", lambda x: vision.yolo_reorg(x, 2), f(1, 4, 4, 6))
case("vision.multibox_prior", lambda x: vision.multibox_prior(
    x, sizes=(0.5, 0.3), ratios=(1.0, 2.0)), f(1, 3, 4, 5))  # fmt: skip
case("vision.multibox_transform_loc", lambda c, moves: vision.multibox_transform_loc(
    c, moves, relay.const(np.array([[[0.1, 0.1, 0.5, 0.6], [0.2, 0.3, 0.9, 0.8],
    [0, 0, 1, 1]]], "float32")), threshold=0.3).astuple(), f(1, 3, 3, low=0, high=1),
    f(1, 12))  # fmt: skip
_boxes = given([[[0, 0.9, 0, 0, 4, 4], [0, 0.8, 0.5, 0, 4, 4], [1, 0.7, 0, 0, 4, 4],
                 [0, 0.3, 5, 5, 9, 9], [0, 0.05, 7, 7, 8, 8]]], "float32")  # fmt: skip
case("vision.get_valid_counts", lambda x: vision.get_valid_counts(x, 0.2, 0, 1).astuple(), _boxes)
case("vision.non_max_suppression", lambda x: vision.non_max_suppression(
    *counted(x, 0.2), iou_threshold=0.5, return_indices=False,
    max_output_size=-1), _boxes)  # fmt: skip
case("vision.non_max_suppression/top", lambda x: vision.non_max_suppression(
    *counted(x, 0.1), iou_threshold=0.5, return_indices=False,
    max_output_size=2, force_suppress=True, invalid_to_bottom=True), _boxes)  # fmt: skip
case("vision.non_max_suppression/indices", lambda x: vision.non_max_suppression(
    *counted(x, 0.2), iou_threshold=0.5, return_indices=True,
    max_output_size=-1), _boxes)  # fmt: skip
_rois = given([[0, 0, 0, 3, 3], [1, 1.2, 0.5, 4.1, 3.7]], "float32")
for _mode in ["avg", "max"]:
    case(f"vision.roi_align/{_mode}", lambda x, r, m=_mode: vision.roi_align(
        x, r, (2, 3), 1.0, 2, mode=m), f(2, 3, 6, 7), _rois)  # fmt: skip
case("vision.roi_align/adaptive", lambda x, r: vision.roi_align(x, r, (2, 2), 0.5, -1),
     f(2, 3, 6, 7), _rois)  # fmt: skip
case("vision.roi_pool", lambda x, r: vision.roi_pool(x, r, (2, 2), 1.0), f(2, 3, 6, 7), _rois)

# qnn
_s, _z = relay.const, lambda value: relay.const(value, "int32")
_q8 = i(2, 9, low=-128, high=128, dtype="int8")
_u8 = i(2, 9, low=0, high=256, dtype="uint8")
case("qnn.quantize", lambda x: qnn.quantize(x, _s(0.031), _z(3), out_dtype="uint8"),
     f(4, 9, low=-4, high=6))  # fmt: skip
case("qnn.quantize/channels", lambda x: qnn.quantize(
    x, _s(np.array([0.1, 0.02, 0.5], "float32")), _s(np.array([0, 1, -2], "int32")), axis=1,
    out_dtype="int8"), f(2, 3, 5, low=-4, high=4))  # fmt: skip
case("qnn.dequantize", lambda x: qnn.dequantize(x, _s(0.031), _z(3)), _u8)
case("qnn.dequantize/channels", lambda x: qnn.dequantize(
    x, _s(np.array([0.1, 0.02], "float32")), _z(0), axis=0), _q8)  # fmt: skip
for _round in ["UPWARD", "TONEAREST"]:
    for _compute in ["int64", "float32", "float64"]:
        case(f"qnn.requantize/{_round} {_compute}", lambda x, r=_round, c=_compute: qnn.requantize(
            x, _s(0.0173), _z(2), _s(0.31), _z(-5), rounding=r, compute_dtype=c,
            out_dtype="int8"), i(20, 9, low=-3000, high=3000))  # fmt: skip
case("qnn.requantize/channels", lambda x: qnn.requantize(
    x, _s(np.array([0.01, 0.02, 0.003], "float32")), _z(0), _s(0.31), _z(7), axis=1,
    out_dtype="uint8"), i(4, 3, 5, low=-9000, high=9000))  # fmt: skip
case("qnn.requantize/up", lambda x: qnn.requantize(
    x, _s(0.7), _z(0), _s(0.1), _z(0), out_dtype="int32"), i(9, 9, low=-999, high=999))  # fmt: skip
case("qnn.conv2d", lambda x, w: qnn.conv2d(
    x, w, _z(3), _z(0), _s(0.1), _s(0.2), (3, 3), 4, padding=(1, 1)),
    i(1, 3, 5, 6, high=256, dtype="uint8"),
    k(i(4, 3, 3, 3, low=-128, high=128, dtype="int8")))  # fmt: skip
case("qnn.conv2d/kernel zero", lambda x, w: qnn.conv2d(
    x, w, _z(-3), _z(7), _s(0.1), _s(0.2), (3, 2), 4, strides=(2, 1), data_layout="NHWC",
    kernel_layout="HWIO"), i(1, 6, 6, 3, low=-128, high=128, dtype="int8"),
    k(i(3, 2, 3, 4, low=-128, high=128, dtype="int8")))  # fmt: skip
case("qnn.conv2d/depthwise", lambda x, w: qnn.conv2d(
    x, w, _z(5), _z(0), _s(0.1), _s(np.array([0.1, 0.2, 0.3], "float32")), (3, 3), 3, groups=3,
    padding=(1, 1)), i(1, 3, 5, 6, high=256, dtype="uint8"),
    k(i(3, 1, 3, 3, low=-128, high=128, dtype="int8")))  # fmt: skip
case("qnn.conv2d_transpose", lambda x, w: qnn.conv2d_transpose(
    x, w, _z(3), _z(0), _s(0.1), _s(0.2), strides=(2, 2), kernel_size=(2, 2), channels=4),
    i(1, 3, 3, 4, low=-128, high=128, dtype="int8"),
    k(i(3, 4, 2, 2, low=-128, high=128, dtype="int8")))  # fmt: skip
case("qnn.dense", lambda x, w: qnn.dense(x, w, _z(3), _z(-2), _s(0.1), _s(0.2), 7),
     i(3, 5, low=-128, high=128, dtype="int8"),
     k(i(7, 5, low=-128, high=128, dtype="int8")))  # fmt: skip
case("qnn.batch_matmul", lambda x, y: qnn.batch_matmul(x, y, _z(3), _z(-2), _s(0.1), _s(0.2)),
     i(2, 3, 5, low=-128, high=128, dtype="int8"),
     i(2, 4, 5, low=-128, high=128, dtype="int8"))  # fmt: skip
for _name in ["add", "subtract", "mul"]:
    case(f"qnn.{_name}", lambda x, y, n=_name: getattr(qnn, n)(
        x, y, _s(0.1), _z(3), _s(0.05), _z(-2), _s(0.2), _z(1)), _q8,
        i(1, 9, low=-128, high=128, dtype="int8"))  # fmt: skip
    case(f"qnn.{_name}/unsigned", lambda x, y, n=_name: getattr(qnn, n)(
        x, y, _s(0.1), _z(30), _s(0.1), _z(100), _s(0.1), _z(9)), _u8, _u8)  # fmt: skip
case("qnn.concatenate", lambda x, y: qnn.concatenate(
    relay.Tuple([x, y]), (_s(0.1), _s(0.3)), (_z(3), _z(-2)), _s(0.2), _z(1), 1), _q8, _q8)  # fmt: skip
for _name in ["abs", "erf", "exp", "hardswish", "log", "rsqrt", "sigmoid", "sqrt", "tanh"]:
    if hasattr(qnn, _name):
        case(f"qnn.{_name}", lambda x, n=_name: getattr(qnn, n)(
            x, _s(0.02), _z(-128), _s(0.03), _z(-100)), _q8)  # fmt: skip
case("qnn.leaky_relu", lambda x: qnn.leaky_relu(x, 0.1, _s(0.02), _z(3), _s(0.03), _z(-10)), _q8)
case("qnn.softmax", lambda x: qnn.softmax(x, _s(0.03), _z(3), _s(1 / 256), _z(-128)), _q8)
case("qnn.avg_pool2d", lambda x: qnn.avg_pool2d(
    x, _s(0.1), _z(3), _s(0.1), _z(3), pool_size=(2, 2), strides=(2, 2), padding=(0, 0, 0, 0),
    dilation=(1, 1)), i(1, 2, 6, 6, low=-128, high=128, dtype="int8"))  # fmt: skip
case("qnn.avg_pool2d/scales", lambda x: qnn.avg_pool2d(
    x, _s(0.1), _z(3), _s(0.07), _z(-5), pool_size=(3, 3), strides=(2, 2), padding=(1, 1, 1, 1),
    dilation=(1, 1)), i(1, 2, 6, 6, high=256, dtype="uint8"))  # fmt: skip
case(
    "qnn.softmax/wide",
    lambda x: qnn.softmax(x, _s(0.02), _z(-3), _s(1 / 256), _z(-128)),
    i(3, 40, low=-128, high=128, dtype="int8"),
)
case("qnn.leaky_relu/unsigned", lambda x: qnn.leaky_relu(
    x, 0.3, _s(0.02), _z(100), _s(0.015), _z(120)), i(3, 40, high=256, dtype="uint8"))  # fmt: skip
case("qnn.simulated_quantize", lambda x: qnn.simulated_quantize(
    x, _s(0.1), _z(3), out_dtype="int8"), f(2, 9, low=-20, high=20))  # fmt: skip
case("qnn.simulated_dequantize", lambda x: qnn.simulated_dequantize(
    x, _s(0.1), _z(3), in_dtype="int8"), f(2, 9, low=-20, high=20))  # fmt: skip

# dyn
_x = opened(f(2, 3, 4), 0)
_m = opened(f(2, 6), 0)
case("dyn.reshape", lambda x: relay.reshape(x, relay.shape_of(x)), _x)
case("dyn.reshape/computed", lambda x: relay.reshape(x, relay.concatenate([
    relay.strided_slice(relay.shape_of(x, "int64"), [0], [1]), relay.const([12], "int64")], 0)),
    _x)  # fmt: skip
case("dyn.reshape/heads", lambda x: relay.reshape(x, relay.stack([
    relay.take(relay.shape_of(x, "int64"), relay.const(0, "int64")), relay.const(3, "int64"),
    relay.const(-1, "int64")], 0)), _m)  # fmt: skip
case("dyn.broadcast_to", lambda x, y: relay.broadcast_to(x, relay.shape_of(y)), f(1, 6), _m)
case("dyn.zeros", lambda x: x + relay.zeros(relay.shape_of(x), "float32"), _m)
case("dyn.ones", lambda x: x + relay.ones(relay.shape_of(x), "float32"), _m)
case("dyn.full", lambda x: x + relay.full(relay.const(2.5), relay.shape_of(x), "float32"), _m)
case("dyn.tile", lambda x: relay.tile(x, relay.const([2, 3], "int64") * relay.const([1, 1], "int64")), _m)  # fmt: skip
case("dyn.strided_slice", lambda x: relay.strided_slice(x, relay.shape_of(x, "int64")
     - relay.const([1, 6], "int64"), relay.shape_of(x, "int64"),
     relay.const([1, 2], "int64")), _m)  # fmt: skip
case("dyn.topk", lambda x: relay.topk(x, relay.const(2) + relay.const(1)).astuple(), _m)
case("dyn.one_hot", lambda n: relay.one_hot(n, relay.const(1.0), relay.const(0.0),
     relay.const(2) + relay.const(3), -1, "float32"), i(4))  # fmt: skip
case("dyn.nn.pad", lambda x: nn.pad(x, relay.const([[0, 0], [1, 2]]) + relay.const([[0, 0], [0, 1]]),
     relay.const(1.5)), _m)  # fmt: skip
case("dyn.image.resize2d", lambda x: image.resize2d(x, relay.const([2, 3], "int64")
     * relay.const([3, 2], "int64")), f(1, 2, 4, 4))  # fmt: skip
case("dyn.nn.upsampling", lambda x: nn.upsampling(x, relay.const(1.0) + relay.const(1.0),
     relay.const(3.0), method="nearest_neighbor"), opened(f(1, 2, 3, 4), 0))  # fmt: skip
case("dyn.squeeze", lambda x: dyn.squeeze(x, relay.const([1], "int64")),
     f(2, 1, 3))  # fmt: skip
case("dyn.expand_dims", lambda x: dyn.expand_dims(x, relay.const(1, "int64"), 1),
     f(2, 3))  # fmt: skip
case("open/reshape", lambda x: relay.reshape(x, (-1, 4)), _x)
case("open/reshape zero", lambda x: relay.reshape(x, (0, 12)), _x)
case("open/dense", lambda x, w: nn.dense(x, w), _m, f(5, 6))
case("open/conv2d", lambda x, w: nn.conv2d(x, w, padding=1), opened(f(2, 3, 5, 6), 0, 2, 3),
     f(4, 3, 3, 3))  # fmt: skip
case("open/softmax", lambda x: nn.softmax(x), _m)
case("open/mean", lambda x: relay.mean(x, axis=[0]), _m)
case("open/concatenate", lambda x: relay.concatenate([x, x], 0), _m)
case("open/slice", lambda x: relay.strided_slice(x, [0, 1], [2**31 - 1, 5], [1, 2]), _m)
case("open/squeeze", lambda x: relay.squeeze(relay.expand_dims(x, 1), [1]), _m)
case(
    "open/arange",
    lambda x: relay.arange(relay.take(relay.shape_of(x), relay.const(0)), dtype="int32"),
    _m,
)
case("dft", lambda re, im: op.transform.dft(re, im).astuple(), f(2, 3, 7), f(2, 3, 7))
case("dft/inverse", lambda re, im: op.transform.dft(re, im, True).astuple(), f(2, 6), f(2, 6))
case("stft", lambda x, w: op.transform.stft(x, 6, 2, 5, w), f(2, 17), f(6))
case("stft/all", lambda x, w: op.transform.stft(x, 8, 3, 8, w, True, False), f(1, 20), f(8))
case("nn.correlation", lambda x, y: nn.correlation(x, y, 1, 2, 1, 1, 2, True, "NCHW"),
     f(1, 3, 6, 7), f(1, 3, 6, 7))  # fmt: skip
case("nn.correlation/differences", lambda x, y: nn.correlation(x, y, 3, 4, 2, 2, [3, 2, 4, 5],
     False, "NCHW"), f(2, 2, 9, 8), f(2, 2, 9, 8))  # fmt: skip
