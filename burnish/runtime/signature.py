"""What a compiled model takes and returns: names, dtypes, shapes, symbolic sizes, nesting.

Plain data: it is written into the artifact as JSON and read back without running code.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import trees
from .errors import InvalidInputError
from .jsons import has_keys, listed, text, whole

Dim = int | str

_DTYPE = re.compile(r"bool|(u?int|b?float)\d{1,3}\w{0,16}")
_LONGEST_SIZE = 4096
"""Characters of an expression."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor: its source name, dtype (NumPy's word for it, or ``bfloat16``) and shape.

    A size is an ``int``, the name of a symbol (``"batch"``), or an expression of symbols
    (``"2*batch"``).
    """

    name: str
    shape: tuple[Dim, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a model.

    ``inputs`` and ``outputs`` are the tensors in the order in which the compiled function takes
    and returns them. ``symbols`` maps a symbolic size to its smallest and largest value (None:
    no limit). ``arguments`` is one (name, tree) pair per argument of the source model, in the
    order in which they may be passed by position; ``output_tree`` is the nesting of the outputs
    (the module ``trees``).
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    arguments: tuple[tuple[str, trees.Node], ...]
    output_tree: trees.Node
    symbols: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)

    @property
    def static(self) -> bool:
        """Whether every input has one shape only."""
        sizes = (dim for spec in self.inputs for dim in spec.shape)
        return not self.symbols and all(isinstance(dim, int) for dim in sizes)

    def flatten(self, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> list[Any]:
        """Arguments as the source model takes them -> tensors in the order of ``inputs``.

        Arguments that were imported as constants may be left out. Raises
        :class:`InvalidInputError` for a wrong number, name or nesting.
        """
        named = dict(kwargs or {})
        nodes = list(self.arguments)
        if len(args) + len(named) < len(nodes):
            nodes = [(name, n) for name, n in nodes if name in named or not trees.is_constant(n)]
        if len(args) > len(nodes):
            raise InvalidInputError(self._wrong_number(len(args) + len(named)))
        values = {name: value for (name, _), value in zip(nodes, args, strict=False)}
        for name in named:
            if name in values or name not in dict(nodes):
                why = "given twice" if name in values else "unknown"
                raise InvalidInputError(f"input {name!r} is {why}; {self._expected()}")
        values.update(named)
        missing = [name for name, _ in nodes if name not in values]
        if missing:
            raise InvalidInputError(self._wrong_number(len(args) + len(named)))
        leaves: list[Any] = [None] * len(self.inputs)
        try:
            for name, node in nodes:
                trees.flatten(node, values[name], leaves.__setitem__, f"input {name!r}")
        except ValueError as error:
            raise InvalidInputError(str(error)) from None
        return leaves

    def unflatten(self, leaves: Sequence[Any]) -> Any:
        """Output tensors in the order of ``outputs`` -> the nesting of the source model."""
        return trees.decode(self.output_tree, leaves)

    def check(self, inputs: Sequence[Any]) -> dict[str, int]:
        """The value of each symbol for these flat inputs (anything with shape and dtype).

        Raises :class:`InvalidInputError` for a wrong number, dtype, rank or size, for a symbol
        with two values, and for one outside its range.
        """
        if len(inputs) != len(self.inputs):
            raise InvalidInputError(self._wrong_number(len(inputs)))
        values: dict[str, int] = {}
        for spec, value in zip(self.inputs, inputs, strict=True):
            if not hasattr(value, "shape") or not hasattr(value, "dtype"):
                raise InvalidInputError(
                    f"input {spec.name!r} must be a tensor {spec}, got {type(value).__name__}"
                )
            dtype, shape = dtype_name(value.dtype), tuple(int(n) for n in value.shape)
            if dtype != spec.dtype:
                raise InvalidInputError(
                    f"input {spec.name!r} has dtype {dtype}, the model takes {spec.dtype}",
                    shape=shape,
                )
            if len(shape) != len(spec.shape):
                raise InvalidInputError(_wrong_shape(spec, shape), shape=shape)
            for size, dim in zip(shape, spec.shape, strict=True):
                if isinstance(dim, str) and dim.isidentifier():
                    self._bind(values, dim, size, spec, shape)
                elif isinstance(dim, int) and dim != size:
                    raise InvalidInputError(_wrong_shape(spec, shape), shape=shape)
        for spec, value in zip(self.inputs, inputs, strict=True):
            shape = tuple(int(n) for n in value.shape)
            for size, dim in zip(shape, spec.shape, strict=True):
                if isinstance(dim, str) and evaluate(dim, values) not in (size, None):
                    raise InvalidInputError(_wrong_shape(spec, shape), shape=shape)
        return values

    def _bind(
        self,
        values: dict[str, int],
        symbol: str,
        size: int,
        spec: TensorSpec,
        shape: tuple[int, ...],
    ) -> None:
        known = values.setdefault(symbol, size)
        if known != size:
            raise InvalidInputError(
                f"{_wrong_shape(spec, shape)}: {symbol} is {known} in another place", shape=shape
            )
        lower, upper = self.symbols.get(symbol, (0, None))
        if size < lower or (upper is not None and size > upper):
            limit = f"at least {lower}" if upper is None else f"{lower} to {upper}"
            raise InvalidInputError(
                f"{_wrong_shape(spec, shape)}: {symbol} must be {limit}", shape=shape
            )

    def _wrong_number(self, got: int) -> str:
        return f"got {got} inputs; {self._expected()}"

    def _expected(self) -> str:
        specs = ", ".join(map(str, self.inputs)) or "none"
        return f"the model takes {len(self.inputs)}: {specs}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; :meth:`from_dict` reads it back."""
        return {
            "inputs": [_spec_dict(spec) for spec in self.inputs],
            "outputs": [_spec_dict(spec) for spec in self.outputs],
            "arguments": [[name, node] for name, node in self.arguments],
            "output_tree": self.output_tree,
            "symbols": {name: list(limits) for name, limits in self.symbols.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Signature:
        """The signature that :meth:`to_dict` wrote; ``ValueError`` for anything else."""
        has_keys(
            data, "the signature", ("inputs", "outputs", "arguments", "output_tree", "symbols")
        )
        inputs = tuple(_spec(item) for item in listed(data["inputs"], "inputs"))
        outputs = tuple(_spec(item) for item in listed(data["outputs"], "outputs"))
        arguments = []
        for item in listed(data["arguments"], "arguments"):
            if not isinstance(item, list) or len(item) != 2:
                raise ValueError(f"an argument must be a name and its nesting, got {item!r:.80}")
            trees.check(item[1], len(inputs))
            arguments.append((text(item[0], "an argument's name"), item[1]))
        trees.check(data["output_tree"], len(outputs))
        if not isinstance(data["symbols"], dict):
            raise ValueError("symbols must be an object")
        symbols = {name: _limits(name, limits) for name, limits in data["symbols"].items()}
        return cls(inputs, outputs, tuple(arguments), data["output_tree"], symbols)


def dtype_name(dtype: object) -> str:
    """``torch.float32``, ``numpy.dtype``, ``numpy.float32`` or a TVM dtype -> ``float32``."""
    if isinstance(dtype, type):
        return dtype.__name__
    return str(dtype).rsplit(".", maxsplit=1)[-1]


def evaluate(size: str, values: Mapping[str, int]) -> int | None:
    """The value of a size expression, or None where a symbol has no value yet."""
    try:
        return _value(ast.parse(size, mode="eval").body, values)
    except KeyError:
        return None


def _value(node: ast.expr, values: Mapping[str, int]) -> int:
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Name(id=name):
            return values[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, values)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _value(left, values), _value(right, values)
            match op:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.FloorDiv():
                    return a // b
                case ast.Mod():
                    return a % b
    raise ValueError(f"a size expression has only + - * // % and names, got {ast.unparse(node)}")


def _wrong_shape(spec: TensorSpec, shape: tuple[int, ...]) -> str:
    want = f"({', '.join(map(str, spec.shape))}{',' if len(spec.shape) == 1 else ''})"
    return f"input {spec.name!r} has shape {shape}, the model takes {want}"


def _spec_dict(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}


def _spec(data: Any) -> TensorSpec:
    has_keys(data, "a tensor's description", ("name", "shape", "dtype"))
    shape = tuple(_dim(item) for item in listed(data["shape"], "a shape"))
    dtype = text(data["dtype"], "a dtype")
    if not _DTYPE.fullmatch(dtype):
        raise ValueError(f"unknown dtype {dtype!r:.80}")
    return TensorSpec(text(data["name"], "a tensor's name"), shape, dtype)


class _AllOne(dict[str, int]):
    def __missing__(self, name: str) -> int:
        return 1


def _dim(value: Any) -> Dim:
    if not isinstance(value, str):
        return whole(value, "a size", most=2**63 - 1)
    if len(value) > _LONGEST_SIZE:
        raise ValueError(f"a size is an expression of {len(value)} characters")
    try:
        evaluate(value, _AllOne())
    except ZeroDivisionError:
        pass
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"the size {value!r:.80} is no expression") from error
    return value


def _limits(name: str, value: Any) -> tuple[int, int | None]:
    if not name.isidentifier() or not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"the symbol {name!r:.80} must have two limits, got {value!r:.80}")
    low, high = value
    least = whole(low, "a symbol's limit", most=2**63 - 1)
    return least, None if high is None else whole(high, "a symbol's limit", most=2**63 - 1)
