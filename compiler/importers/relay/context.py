"""What a converter works with: where it emits, and what is known of its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax, tirx

from burnish.compiler.importers.relay import sizes
from burnish.compiler.importers.relay.graph import Opaque, RelayError
from burnish.compiler.importers.relay.sizes import Sizes

WEIGHT_DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "uint8")

Value = Any  # a relax expression, a tuple of values, or a function to be called
Converter = Callable[["Context", Sequence[Value], "Attributes"], Value]


class Attributes:
    """Attributes of one call by name; one that is needed and absent is an error."""

    def __init__(self, operator: str, values: Mapping[str, Any]) -> None:
        self._operator, self._values = operator, values

    def __getattr__(self, name: str) -> Any:
        value = self._values.get(name)
        if value is None or isinstance(value, Opaque):
            raise RelayError(f"the attribute {name} is not given")
        return value

    def get(self, name: str, default: Any = None) -> Any:
        value = self._values.get(name)
        return default if value is None or isinstance(value, Opaque) else value

    def ints(self, name: str) -> tuple[int, ...]:
        """A list of integers; one integer is a list of one."""
        value = getattr(self, name)
        items = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(n, int) for n in items):
            raise RelayError(f"the attribute {name} must hold integers, got {items!r:.60}")
        return tuple(int(n) for n in items)


class Context:
    """One conversion: the block builder, the weights met so far, and sizes known at import."""

    def __init__(self, builder: relax.BlockBuilder) -> None:
        self.builder = builder
        self.weights: dict[str, np.ndarray] = {}
        self.weight_vars: list[relax.Var] = []
        # Expressions are kept alive beside what is known of them, so that ids stay their own.
        self._arrays: dict[int, tuple[relax.Expr, np.ndarray]] = {}
        self._sizes: dict[int, tuple[relax.Expr, Sizes]] = {}

    def emit(self, expr: relax.Expr) -> relax.Var:
        """Bind an expression; its type is known from here on."""
        return self.builder.emit(expr)

    def te(self, function: Callable[..., Any], *args: Any, name: str, **options: Any) -> relax.Var:
        """Bind a kernel written as a tensor expression."""
        return self.builder.emit_te(function, *args, primfunc_name_hint=name, **options)

    def const(self, value: Any, dtype: str | None = None) -> relax.Expr:
        """A constant; NumPy arrays keep their dtype."""
        array = np.asarray(value) if dtype is None else np.asarray(value).astype(_numpy(dtype))
        return relax.const(np.ascontiguousarray(array).reshape(array.shape), str(array.dtype))

    def scalar_like(self, value: float, expr: relax.Expr) -> relax.Expr:
        """A constant of rank 0 in the dtype of an expression."""
        return self.const(value, dtype_of(expr))

    def weight(self, name: str, array: np.ndarray) -> relax.Var:
        """A parameter of the module, under a name that is free."""
        free, count = name, 0
        while free in self.weights:
            count += 1
            free = f"{name}.{count}"
        self.weights[free] = array
        var = relax.Var(free, relax.TensorType(list(array.shape), str(array.dtype)))
        self.weight_vars.append(var)
        self._arrays[id(var)] = (var, array)
        return var

    def array(self, value: np.ndarray, name: str) -> relax.Expr:
        """A constant of the source: a weight where it is large, else written in place."""
        if str(value.dtype) in WEIGHT_DTYPES and value.size > 1:
            return self.weight(name, value)
        return self.const(value)

    def value(self, expr: Value) -> np.ndarray | None:
        """The numbers of an expression, where they are known at import."""
        if isinstance(expr, tvm.ir.GenericConst):
            return np.asarray(expr.value.numpy())
        if id(expr) in self._arrays:
            return self._arrays[id(expr)][1]
        known = self._sizes.get(id(expr))
        return None if known is None else sizes.numbers(known[1], dtype_of(expr))

    def needed(self, expr: Value, what: str) -> np.ndarray:
        """The numbers of an expression that must be known at import."""
        value = self.value(expr)
        if value is None:
            raise RelayError(f"{what} must be a constant; it is computed at run time here")
        return value

    def scalar(self, expr: Value, what: str) -> Any:
        """The one number of a constant."""
        value = self.needed(expr, what)
        if value.size != 1:
            raise RelayError(f"{what} must be one number, got shape {value.shape}")
        return value.item()

    def sizes(self, expr: Value) -> Sizes | None:
        """Integers that are sizes, as numbers and expressions of open sizes."""
        known = self._sizes.get(id(expr))
        if known is not None:
            return known[1]
        value = self.value(expr) if isinstance(expr, relax.Expr) else None
        return None if value is None else sizes.of_array(value)

    def needed_sizes(self, expr: Value, what: str) -> list[Any]:
        found = self.sizes(expr)
        if found is None:
            raise RelayError(
                f"{what} depends on the values of the inputs; only shapes that follow from the "
                "inputs' shapes can be imported"
            )
        return list(found.ravel().tolist())

    def know(self, expr: relax.Expr, known: Sizes) -> relax.Expr:
        """Remember the sizes that an expression holds."""
        self._sizes[id(expr)] = (expr, known)
        return expr

    def of_sizes(self, known: Sizes, dtype: str) -> relax.Expr:
        """Sizes as a tensor, remembered."""
        constant = sizes.numbers(known, dtype)
        if constant is not None:
            return self.know(self.const(constant), known)
        flat = relax.op.shape_to_tensor(relax.ShapeExpr([_size(n) for n in known.ravel()]))
        expr = self.emit(flat)
        if dtype != "int64":
            expr = self.emit(relax.op.astype(expr, dtype))
        if known.ndim != 1:
            expr = self.emit(relax.op.reshape(expr, list(known.shape)))
        return self.know(expr, known)

    def permute(self, expr: relax.Expr, axes: Sequence[int]) -> relax.Expr:
        """Axes in another order; weights are reordered here."""
        if list(axes) == list(range(len(axes))):
            return expr
        known = self._arrays.get(id(expr))
        if known is not None:
            array = np.ascontiguousarray(np.transpose(known[1], axes))
            return self.weight(f"{known[0].name}.permuted", array)
        return self.emit(relax.op.permute_dims(expr, list(axes)))

    def reshape(self, expr: relax.Expr, shape: Sequence[Any]) -> relax.Expr:
        return self.emit(relax.op.reshape(expr, list(shape)))


def dtype_of(expr: relax.Expr) -> str:
    """``float32``, ``bool``, ..."""
    return str(tensor(expr).ty.dtype)


def rank_of(expr: relax.Expr) -> int:
    rank = int(tensor(expr).ty.ndim)
    if rank < 0:
        raise RelayError("an argument's rank depends on the values of the inputs")
    return rank


def shape_of(expr: relax.Expr) -> list[Any]:
    """Sizes: ints, and TVM expressions for open ones."""
    shape = tensor(expr).ty.shape
    if not isinstance(shape, relax.ShapeExpr):
        raise RelayError("the shape of an argument depends on the values of the inputs")
    return [int(n) if isinstance(n, tirx.IntImm) else n for n in shape]


def fixed_shape(expr: relax.Expr) -> list[int]:
    """Sizes that must be numbers."""
    shape = shape_of(expr)
    if not all(isinstance(n, int) for n in shape):
        raise RelayError(f"open sizes are not supported here, got {shape}: give fixed sizes")
    return shape


def tensor(value: Value) -> relax.Expr:
    """An argument that must be a tensor."""
    if not isinstance(value, relax.Expr) or not isinstance(value.ty, relax.TensorType):
        kind = "a tuple" if isinstance(value, tuple) else type(value).__name__
        raise RelayError(f"a tensor is expected as argument, got {kind}")
    return value


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    if not -rank <= axis < rank:
        raise RelayError(f"axis {axis} is outside a tensor of rank {rank}")
    return axis % rank


def _size(n: Any) -> Any:
    return tirx.IntImm("int64", int(n)) if isinstance(n, (int, float)) else n


def _numpy(dtype: str) -> Any:
    if dtype == "bfloat16":
        import ml_dtypes

        return ml_dtypes.bfloat16
    return np.dtype(dtype)
