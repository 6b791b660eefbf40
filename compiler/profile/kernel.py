"""What one kernel does in a call: operations, bytes and where it came from, as plain data."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

Amount = int | str
"""A number, or an expression of the kernel's symbolic sizes (``"n*64"``)."""


@dataclass(frozen=True)
class Work:
    """Of one call, at the least: ``flops`` of multiply-adds, each counted as two; ``elementwise``
    arithmetic; ``transcendental`` functions (exp, tanh, ...); bytes ``read`` and ``written``,
    each buffer once. Operations are None where the kernel's loops cannot be read.
    """

    flops: int | None
    elementwise: int | None
    transcendental: int | None
    read: int
    written: int

    @property
    def operations(self) -> int | None:
        """Multiply-adds as two, and elementwise arithmetic."""
        if self.flops is None or self.elementwise is None:
            return None
        return self.flops + self.elementwise

    @property
    def bytes(self) -> int:
        return self.read + self.written


@dataclass(frozen=True)
class Kernel:
    """A kernel's record, made when it is built.

    ``operators`` are the graph's that were fused into it, ``rule`` the schedule rules that wrote
    it. ``dtype`` is what its multiply-adds multiply, else what it stores. ``arguments`` has, for
    each argument, the sizes of a tensor or the name of a scalar; symbols are bound by them.
    """

    name: str
    operators: tuple[str, ...]
    rule: str
    dtype: str
    arguments: tuple[tuple[Amount, ...] | str, ...]
    flops: Amount | None
    elementwise: Amount | None
    transcendental: Amount | None
    reads: tuple[Amount, ...]
    written: Amount

    def work(self, arguments: Sequence[Sequence[int] | int]) -> Work:
        """What a call with these tensor shapes and scalars does.

        ValueError for another number of them, or where they leave a size unknown.
        """
        sizes = self._sizes(arguments)
        return Work(
            flops=_optional(self.flops, sizes),
            elementwise=_optional(self.elementwise, sizes),
            transcendental=_optional(self.transcendental, sizes),
            read=sum(value_of(amount, sizes) for amount in self.reads),
            written=value_of(self.written, sizes),
        )

    def read_of(self, arguments: Sequence[Sequence[int] | int]) -> tuple[int, ...]:
        """Bytes read of each argument; as for :meth:`work`."""
        sizes = self._sizes(arguments)
        return tuple(value_of(amount, sizes) for amount in self.reads)

    def _sizes(self, arguments: Sequence[Sequence[int] | int]) -> dict[str, int]:
        sizes: dict[str, int] = {}
        if len(arguments) != len(self.arguments):
            raise ValueError(
                f"kernel {self.name} takes {len(self.arguments)} arguments, got {len(arguments)}"
            )
        for declared, given in zip(self.arguments, arguments, strict=True):
            if isinstance(declared, str):
                if isinstance(given, int):
                    sizes[declared] = given
                continue
            shape = () if isinstance(given, int) else given
            for size, extent in zip(declared, shape, strict=False):
                if isinstance(size, str) and size.isidentifier():
                    sizes[size] = int(extent)
        return sizes

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Kernel:
        values = {field.name: data[field.name] for field in fields(cls)}
        values["operators"], values["reads"] = tuple(values["operators"]), tuple(values["reads"])
        values["arguments"] = tuple(
            item if isinstance(item, str) else tuple(item) for item in values["arguments"]
        )
        return cls(**values)


def external(name: str, arguments: Sequence[Sequence[int] | int]) -> Kernel:
    """The record of a function that is none of the model's kernels: nothing is known of it."""
    shapes = tuple("scalar" if isinstance(a, int) else tuple(a) for a in arguments)
    return Kernel(name, (name,), "external", "", shapes, None, None, None, (0,) * len(shapes), 0)


MOVES = "move"


def move(name: str, arguments: Sequence[Sequence[int] | int]) -> Kernel:
    """The record of a move of a tensor (its shape and bytes) from one memory to another."""
    shape, size = arguments
    if isinstance(shape, int) or not isinstance(size, int):
        raise ValueError(f"{name}: a move is of a shape and bytes, got {arguments!r}")
    return Kernel(
        name, (MOVES,), MOVES, "", (tuple(shape), "bytes"), None, None, None, (size, 0), 0
    )


def _optional(amount: Amount | None, sizes: Mapping[str, int]) -> int | None:
    return None if amount is None else value_of(amount, sizes)


def value_of(amount: Amount, sizes: Mapping[str, int]) -> int:
    """The value of an amount; ValueError where a symbol has none, or for another expression."""
    if isinstance(amount, int):
        return amount
    return _value(ast.parse(amount, mode="eval").body, sizes)


def _value(node: ast.expr, sizes: Mapping[str, int]) -> int:
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Name(id=name) if name in sizes:
            return sizes[name]
        case ast.Name(id=name):
            raise ValueError(f"the size {name} is not known from the arguments")
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, sizes)
        case ast.Call(func=ast.Name(id="min"), args=values):
            return min(_value(value, sizes) for value in values)
        case ast.Call(func=ast.Name(id="max"), args=values):
            return max(_value(value, sizes) for value in values)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _value(left, sizes), _value(right, sizes)
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
    raise ValueError(f"an amount has only + - * // % min max and names: {ast.unparse(node)}")
