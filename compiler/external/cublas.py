"""cuBLAS as a device: products, computed by the library's function, on a GPU of CUDA."""

from __future__ import annotations

from tvm import relax

from burnish.passes.graph import op_name, static_shape
from burnish.targets.cuda.blas import Product

NAME = "cublas"


class CublasSupport:
    """What :class:`~burnish.passes.call_library.CallLibrary` hands to cuBLAS.

    Products of two floats of one type and static shape, a transpose of a matrix, and what goes into
    the same call: a bias, relu, and gelu in its tanh form.
    """

    def why_not(self, call: relax.Expr) -> str:
        name = op_name(call)
        if name in ("relax.add", "relax.nn.relu", "relax.nn.gelu_tanh", "relax.permute_dims"):
            return ""
        if name != "relax.matmul":
            return f"{name or 'this'} is no product"
        shapes = [static_shape(arg) for arg in call.args]
        dtypes = {str(arg.ty.dtype) for arg in (*call.args, call)}
        if len(dtypes) != 1:
            return f"it multiplies {' with '.join(sorted(dtypes))}"
        a, b = shapes
        if a is None or b is None or min(len(a), len(b)) < 2:
            return "its sizes are open, or it is no product of matrices"
        (m, k), n = a[-2:], b[-1]
        return Product(dtypes.pop(), m, n, k, a[:-2], b[:-2], False, False).why_not()
