"""TVM's serialized modules, taken apart and put together: source out, machine code in.

All numbers are little endian; ``str`` is a 64-bit length and the bytes.

    library   u64 bytes that follow; u64 n + 1, that many u64 (where each module's imports start);
              u64 m, m x u64 (the imports); then a module after the other: str kind, and
              str content, which the library's own code (kind ``_lib``) has not
    content   of a CUDA module: str format ("cuda": source); table of kernels; str code
    kernels   u64 n; n x {str key; str name; u64 a, a x 4 bytes (types); u64 t, t x str (launch
              tags); u64 e, e x i32}
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

LIBRARY_CODE = b"_lib"


class Reader:
    """Reads numbers and strings one after the other."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def number(self) -> int:
        (value,) = struct.unpack_from("<Q", self.data, self.at)
        self.at += 8
        return int(value)

    def skip(self, count: int) -> None:
        self.at += count
        if self.at > len(self.data):
            raise ValueError("a serialized module ends early")

    def text(self) -> bytes:
        size = self.number()
        start = self.at
        self.skip(size)
        return self.data[start : self.at]


def text(value: bytes) -> bytes:
    """``str``."""
    return struct.pack("<Q", len(value)) + value


@dataclass(frozen=True)
class CudaModule:
    """A CUDA module's content: its ``code`` in ``form``, and its table of kernels as stored."""

    form: str
    table: bytes
    code: bytes

    @classmethod
    def read(cls, content: bytes) -> CudaModule:
        reader = Reader(content)
        form, start = reader.text().decode(), reader.at
        for _ in range(reader.number()):
            reader.text()
            reader.text()
            reader.skip(4 * reader.number())
            for _ in range(reader.number()):
                reader.text()
            reader.skip(4 * reader.number())
        table = content[start : reader.at]
        code = reader.text()
        if reader.at != len(content):
            raise ValueError("a CUDA module is followed by what it should not be")
        return cls(form, table, code)

    def write(self) -> bytes:
        return text(self.form.encode()) + self.table + text(self.code)

    def compiled(self, form: str, code: bytes) -> CudaModule:
        """The same kernels as ``code``."""
        return replace(self, form=form, code=code)


def replaced(library: bytes, change: Callable[[CudaModule], CudaModule]) -> bytes:
    """``library`` with each CUDA module changed; ``ValueError`` where the layout is another."""
    reader = Reader(library)
    if reader.number() != len(library) - 8:
        raise ValueError("a serialized library has another length than it says")
    for _ in range(2):
        reader.skip(8 * reader.number())
    parts = [library[8 : reader.at]]
    while reader.at < len(library):
        kind = reader.text()
        parts.append(text(kind))
        if kind == LIBRARY_CODE:
            continue
        content = reader.text()
        if kind == b"cuda":
            content = change(CudaModule.read(content)).write()
        parts.append(text(content))
    body = b"".join(parts)
    return struct.pack("<Q", len(body)) + body
