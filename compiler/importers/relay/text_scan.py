"""Relay's text, piece by piece: definitions, white space, literals and types.

Names are printed raw (``%onnx::Gemm_0``, ``%f.0.weight``), so that where a name ends depends on
which names are declared: the parser decides, this file has what does not depend on it.
"""

from __future__ import annotations

import bisect
import itertools
import re
from dataclasses import dataclass

import numpy as np

from burnish.compiler.importers.relay.graph import (
    FunctionType,
    RelayError,
    TensorType,
    TupleType,
    Type,
)

SPACE = re.compile(r"(?:\s|/\*.*?\*/)*", re.DOTALL)
DEFINITION = re.compile(r"^(?=def @|type |extern type |fn[ (]|#\[|@[^\s=]+ = )", re.MULTILINE)
GLOBAL = re.compile(r"@[^\s(),;{}=]+")
NUMBER = re.compile(
    r"(-?(?:\d+(?:\.\d*)?(?:e[+-]?\d+)?|inf|nan))(f64|f16|f|i64|i32|i16|i8|u8|)(?![\w.])"
)
DTYPES = {
    "f": "float32",
    "f16": "float16",
    "f64": "float64",
    "i8": "int8",
    "i16": "int16",
    "i64": "int64",
    "u8": "uint8",
}
DTYPE = re.compile(r"(?:bool|bfloat16|u?int\d+|float\d+)\b")
DIM = re.compile(r"(\d+)(?:i\d+)?|\?|[A-Za-z_]\w*")
RESULT = re.compile(r" /\* ty=Tensor\[\(((?:\d{1,18}(?:, )?)*)\), (\w+)\]")
MAX_DEPTH = 64
DIGITS_KEPT = 6


@dataclass(frozen=True)
class Sections:
    """A file cut at its definitions: name -> where it begins and ends; and the metadata."""

    functions: dict[str, tuple[int, int]]
    metadata: str | None
    omitted: bool


def sections(text: str, what: str) -> Sections:
    """Cut a file; definitions begin at the start of a line, as the printer writes them."""
    starts = [match.start() for match in DEFINITION.finditer(text)]
    functions: dict[str, tuple[int, int]] = {}
    metadata = None
    for start, end in itertools.pairwise([*starts, len(text)]):
        if text.startswith("def @", start):
            name = re.compile(r"[^\s(\[]+").match(text, start + 5)
            if name is None:
                raise RelayError(f"{what}: line {_line(text, start)}: a function has no name")
            functions[name[0]] = (start + 5 + len(name[0]), end)
        elif re.compile(r"fn[ (]").match(text, start) and not functions:
            functions["main"] = (start + 2, end)
        elif text.startswith("#[metadata]", start):
            metadata = text[start + len("#[metadata]") :]
            break
    return Sections(functions, metadata, "metadata section has been omitted" in text)


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


class Scanner:
    """A place in the text, moved forward."""

    def __init__(self, text: str, what: str) -> None:
        self.text, self.what, self.at, self.end = text, what, 0, len(text)
        self._lines = [match.start() for match in re.finditer("\n", text)]
        self.rounded = 0

    def line(self) -> int:
        return bisect.bisect_left(self._lines, self.at) + 1

    def place(self) -> str:
        return f"line {self.line()}"

    def error(self, message: str) -> RelayError:
        return RelayError(f"{self.what}: line {self.line()}: {message}")

    def unexpected(self, wanted: str) -> RelayError:
        rest = self.text[self.at : min(self.at + 30, self.end)].split("\n")[0]
        got = repr(rest) if rest else "the end of the text (it may be truncated)"
        return self.error(f"{wanted} is expected, got {got}")

    def skip(self) -> None:
        """Past white space and comments."""
        match = SPACE.match(self.text, self.at, self.end)
        self.at = match.end() if match else self.at

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """The pattern after white space, and past it; None where it is not there."""
        self.skip()
        found = pattern.match(self.text, self.at, self.end)
        if found:
            self.at = found.end()
        return found

    def sees(self, literal: str) -> bool:
        self.skip()
        return self.text.startswith(literal, self.at, self.end)

    def accept(self, literal: str) -> bool:
        if not self.sees(literal):
            return False
        self.at += len(literal)
        return True

    def expect(self, literal: str) -> None:
        if not self.accept(literal):
            raise self.unexpected(repr(literal))

    def result_type(self) -> Type:
        """The type in the comment that follows here, if one does and it is closed and fixed."""
        found = RESULT.match(self.text, self.at, self.end)
        if found is None:
            return None
        return TensorType(tuple(int(n) for n in re.findall(r"\d+", found[1])), found[2])

    def number(self) -> np.ndarray | None:
        """A number as the tensor it stands for; its dtype is its suffix."""
        found = self.match(NUMBER)
        return self._tensor(found) if found else None

    def setting(self) -> int | float | None:
        """A number in an attribute."""
        found = self.match(NUMBER)
        if not found:
            return None
        number = self._tensor(found)
        return float(found[1]) if number.dtype.kind == "f" else int(number)

    def _tensor(self, found: re.Match[str]) -> np.ndarray:
        digits, suffix = found[1], found[2]
        real = suffix.startswith("f") or not digits.lstrip("-").isdigit()
        if real and sum(c.isdigit() for c in digits.split("e")[0]) >= DIGITS_KEPT:
            self.rounded += 1
        dtype = DTYPES.get(suffix, "float32" if real else "int32")
        try:
            return np.asarray(float(digits) if real else int(digits[:24]), dtype)
        except (OverflowError, ValueError):
            raise self.error(f"the number {digits[:30]} is no {dtype}") from None

    def string(self) -> str | None:
        """A quoted text."""
        found = self.match(re.compile(r'"((?:[^"\\\n]|\\.)*)"'))
        if not found:
            return None
        return re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]), found[1])

    def type(self, depth: int = 0) -> Type:
        """A type; those that hold no tensors (functions, data types) are not kept."""
        if depth > MAX_DEPTH:
            raise self.error(f"types nest deeper than {MAX_DEPTH}")
        if self.accept("Tensor[("):
            shape = self._shape()
            self.expect(",")
            dtype = self.match(DTYPE)
            if dtype is None:
                raise self.unexpected("a dtype")
            self.expect("]")
            return TensorType(shape, dtype[0])
        if self.accept("("):
            return TupleType.of(self._types(")", depth))
        if found := self.match(DTYPE):
            return TensorType((), found[0])
        if self.match(re.compile(r"fn\b")):
            if self.accept("["):
                self._types("]", depth)
            self.expect("(")
            self._types(")", depth)
            self.expect("->")
            self.type(depth + 1)
            return FunctionType()
        if self.match(re.compile(r"meta\[\w+\]\[\d+\]")):
            return None
        if self.match(re.compile(r"[A-Za-z_]\w*")):
            if self.accept("["):
                self._types("]", depth)
            return None
        raise self.unexpected("a type")

    def _types(self, closing: str, depth: int) -> tuple[Type, ...]:
        found = []
        while not self.accept(closing):
            found.append(self.type(depth + 1))
            if not self.accept(","):
                self.expect(closing)
                break
        return tuple(found)

    def _shape(self) -> tuple[int | None, ...]:
        found: list[int | None] = []
        while not self.accept(")"):
            dim = self.match(DIM)
            if dim is None or len(dim[0]) > 24:
                raise self.unexpected("a size")
            found.append(int(dim[1]) if dim[1] else None)
            if not self.accept(","):
                self.expect(")")
                break
        return tuple(found)
