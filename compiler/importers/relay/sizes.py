"""Sizes computed inside a model: ``shape_of -> take -> stack -> dyn.reshape``.

Integers that follow from shapes are carried as arrays of numbers and TVM expressions, so that a
target shape is known at import though some sizes are open. Small constants take part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tvm
from tvm import tirx
from tvm.sym import Analyzer

if TYPE_CHECKING:
    from burnish.compiler.importers.relay.context import Attributes

Sizes = np.ndarray  # of numbers and tirx expressions, dtype object
LARGEST = 64
_ANALYZER = Analyzer()


def of_array(array: np.ndarray) -> Sizes | None:
    """A short constant of numbers as sizes."""
    if array.dtype.kind not in "iufb" or array.size > LARGEST:
        return None
    result = np.empty(array.shape, object)
    for index, value in np.ndenumerate(array):
        result[index] = value.item()
    return result


def of_list(items: Sequence[Any]) -> Sizes:
    """A shape as sizes."""
    result = np.empty(len(items), object)
    for index, value in enumerate(items):
        result[index] = value
    return result


def numbers(sizes: Sizes, dtype: str) -> np.ndarray | None:
    """Sizes that are all numbers, as an array."""
    if any(not isinstance(n, (int, float)) for n in sizes.ravel()):
        return None
    return np.asarray(sizes.tolist()).reshape(sizes.shape).astype(dtype)


def simplified(value: Any) -> Any:
    """An expression in its short form; a constant one as a number."""
    if isinstance(value, tvm.ir.Expr):
        value = _ANALYZER.simplify(value)
        return int(value) if isinstance(value, tirx.IntImm) else value
    return value


def product(items: Sequence[Any]) -> Any:
    total: Any = 1
    for item in items:
        total = total * item
    return simplified(total)


def quotient(a: Any, b: Any) -> Any:
    """``a / b`` of sizes that divide."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b else 0
    return simplified(tirx.floordiv(a, b))


def equal(a: Any, b: Any) -> bool:
    """Whether two sizes are provably one."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return bool(_ANALYZER.can_prove_equal(a, b))


def evaluate(operator: str, args: Sequence[Sizes | None], attrs: Attributes) -> Sizes | None:
    """A call over sizes, or None where it is none that sizes go through."""
    rule = _RULES.get(operator)
    if rule is None or not args or any(arg is None for arg in args):
        return None
    try:
        result = rule(args, attrs)
    except (IndexError, ValueError, TypeError, ZeroDivisionError):
        return None
    return result if result is None or result.size <= LARGEST else None


def _arithmetic(apply: Callable[[Any, Any], Any]) -> Callable[..., Sizes]:
    def rule(args: Sequence[Sizes], attrs: Attributes) -> Sizes:
        left, right = np.broadcast_arrays(args[0], args[1])
        result = np.empty(left.shape, object)
        for index in np.ndindex(left.shape):
            result[index] = simplified(apply(left[index], right[index]))
        return result

    return rule


def _divide(a: Any, b: Any) -> Any:
    if isinstance(a, float) or isinstance(b, float):
        return a / b
    if isinstance(a, int) and isinstance(b, int):
        return int(a / b) if abs(a) < 2**52 else a // b
    return tirx.floordiv(a, b)


def _pick(python: Callable[[Any, Any], Any], symbolic: Any) -> Callable[[Any, Any], Any]:
    def apply(a: Any, b: Any) -> Any:
        if isinstance(a, (int, float)) and isinstance(b, (int, float)):
            return python(a, b)
        return symbolic(a, b)

    return apply


def _compare(python: Callable[[Any, Any], bool], largest: bool, strict: bool) -> Callable[..., Any]:
    """``a - b`` against 0; sizes are 1 or more. Undecided comparisons raise ValueError."""

    def apply(a: Any, b: Any) -> bool:
        if isinstance(a, (int, float)) and isinstance(b, (int, float)):
            return python(a, b)
        less, more = (a, b) if largest else (b, a)
        low, high = _bounds(more - less)
        if low > 0 or (low == 0 and not strict):
            return True
        if high < 0 or (high == 0 and strict):
            return False
        raise ValueError("undecided")

    return apply


def _bounds(difference: Any) -> tuple[int, int]:
    analyzer = Analyzer()

    def bind(node: Any) -> None:
        if isinstance(node, tirx.Var):
            analyzer.bind(node, tvm.ir.Range.from_min_extent(1, 2**31))

    tirx.stmt_functor.post_order_visit(difference, bind)
    bound = analyzer.const_int_bound(analyzer.simplify(difference))
    return int(bound.min_value), int(bound.max_value)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return a == b
    low, high = _bounds(a - b)
    if low > 0 or high < 0:
        return False
    if low == high == 0:
        return True
    raise ValueError("undecided")


def _where(args: Sequence[Sizes], attrs: Attributes) -> Sizes | None:
    condition, yes, no = np.broadcast_arrays(*args)
    if any(not isinstance(c, (bool, int)) for c in condition.ravel()):
        return None
    result = np.empty(condition.shape, object)
    for index in np.ndindex(condition.shape):
        result[index] = yes[index] if condition[index] else no[index]
    return result


def _slice_like(args: Sequence[Sizes], attrs: Attributes) -> Sizes | None:
    if args[0].ndim != 1 or args[1].ndim != 1:
        return None
    return args[0][: len(args[1])]


def _take(args: Sequence[Sizes], attrs: Attributes) -> Sizes | None:
    index = numbers(args[1], "int64")
    if index is None:
        return None
    axis = attrs.get("axis")
    data = args[0].ravel() if axis is None else args[0]
    return _wrapped(np.take(data, index, axis or 0))


def _strided_slice(args: Sequence[Sizes], attrs: Attributes) -> Sizes | None:
    data = args[0]
    if data.ndim != 1 or attrs.get("slice_mode", "end") not in ("end", "size"):
        return None
    begin, end = int(attrs.ints("begin")[0]), int(attrs.ints("end")[0])
    step = int((attrs.get("strides") or (1,))[0])
    if attrs.slice_mode == "size":
        end = len(data) if end < 0 else begin + end
        return data[begin:end]
    return data[begin:end:step]


def _reshape(args: Sequence[Sizes], attrs: Attributes) -> Sizes | None:
    target = attrs.ints("newshape")
    if any(n == 0 or n < -1 for n in target):
        return None
    return args[0].reshape(target)


def _expand_dims(args: Sequence[Sizes], attrs: Attributes) -> Sizes:
    data = args[0]
    axis = attrs.axis % (data.ndim + 1)
    shape = [*data.shape[:axis], *[1] * attrs.num_newaxis, *data.shape[axis:]]
    return data.reshape(shape)


def _squeeze(args: Sequence[Sizes], attrs: Attributes) -> Sizes:
    axes = attrs.get("axis")
    return np.squeeze(args[0], None if axis_free(axes) else tuple(int(a) for a in axes))


def axis_free(axes: Any) -> bool:
    """Whether an axis list is not given; an empty one counts as not given."""
    return axes is None or axes == ()


def _cast(args: Sequence[Sizes], attrs: Attributes) -> Sizes | None:
    if str(attrs.dtype).startswith(("int", "uint")):
        result = np.empty(args[0].shape, object)
        for index, n in np.ndenumerate(args[0]):
            result[index] = int(n) if isinstance(n, (int, float)) else n
        return result
    constant = numbers(args[0], "float64")
    return None if constant is None else of_array(constant)


def _reduce(start: int, apply: Callable[[Any, Any], Any]) -> Callable[..., Sizes | None]:
    def rule(args: Sequence[Sizes], attrs: Attributes) -> Sizes | None:
        if attrs.get("exclude") or attrs.get("keepdims") or args[0].ndim != 1:
            return None
        total: Any = start
        for n in args[0]:
            total = apply(total, n)
        return _wrapped(simplified(total))

    return rule


def _wrapped(value: Any) -> Sizes:
    if isinstance(value, np.ndarray):
        return value
    result = np.empty((), object)
    result[()] = value
    return result


_RULES: dict[str, Callable[..., Sizes | None]] = {
    "add": _arithmetic(lambda a, b: a + b),
    "subtract": _arithmetic(lambda a, b: a - b),
    "multiply": _arithmetic(lambda a, b: a * b),
    "divide": _arithmetic(_divide),
    "floor_divide": _arithmetic(_pick(lambda a, b: a // b, tirx.floordiv)),
    "mod": _arithmetic(_pick(lambda a, b: a % b, tirx.floormod)),
    "floor_mod": _arithmetic(_pick(lambda a, b: a % b, tirx.floormod)),
    "maximum": _arithmetic(_pick(max, tirx.max)),
    "minimum": _arithmetic(_pick(min, tirx.min)),
    "take": _take,
    "strided_slice": _strided_slice,
    "reshape": _reshape,
    "expand_dims": _expand_dims,
    "squeeze": _squeeze,
    "cast": _cast,
    "cast_like": lambda args, attrs: args[0],
    "equal": _arithmetic(_same),
    "greater": _arithmetic(_compare(lambda a, b: a > b, False, True)),
    "greater_equal": _arithmetic(_compare(lambda a, b: a >= b, False, False)),
    "less": _arithmetic(_compare(lambda a, b: a < b, True, True)),
    "less_equal": _arithmetic(_compare(lambda a, b: a <= b, True, False)),
    "slice_like": _slice_like,
    "where": _where,
    "copy": lambda args, attrs: args[0],
    "concatenate": lambda args, attrs: np.concatenate(args, attrs.axis),
    "stack": lambda args, attrs: np.stack(args, attrs.axis),
    "prod": _reduce(1, lambda a, b: a * b),
    "sum": _reduce(0, lambda a, b: a + b),
}
COMPARISONS = ("equal", "greater", "greater_equal", "less", "less_equal")
TAKES_TUPLE = ("concatenate", "stack")
