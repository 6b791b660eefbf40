"""Products and convolutions as kernels, before any schedule."""

from __future__ import annotations

from tvm import te, tirx, topi

from burnish.passes.lower_contractions import matmul


def product(
    m: int, n: int, k: int, *, turned: bool = True, dtype: str = "float16"
) -> tirx.PrimFunc:
    """``a [m, k] b [n, k]`` (or ``b [k, n]``) plus a bias."""
    a = te.placeholder((m, k), dtype, name="a")
    b = te.placeholder((n, k) if turned else (k, n), dtype, name="b")
    sums = "int32" if dtype == "int8" else "float32"
    bias = te.placeholder((n,), sums, name="bias")
    if dtype == "int8":
        y = topi.nn.matmul(a, b, transpose_b=turned, out_dtype=sums)
    else:
        y = matmul(False, turned, "float32")(a, b)
    out = te.compute(y.shape, lambda i, j: y[i, j] + bias[j], name="out")
    return te.create_prim_func([a, b, bias, out]).with_attr("global_symbol", "product")


def convolution(
    channels: int, outputs: int, size: int, window: int, stride: int, dtype: str
) -> tirx.PrimFunc:
    """``a [1, size, size, channels] w [window, window, channels, outputs]``, padded."""
    a = te.placeholder((1, size, size, channels), dtype, name="a")
    w = te.placeholder((window, window, channels, outputs), dtype, name="w")
    sums = "int32" if dtype == "int8" else "float32"
    out = topi.nn.conv2d_nhwc(a, w, stride, window // 2, 1, out_dtype=sums)
    return te.create_prim_func([a, w, out]).with_attr("global_symbol", "product")
