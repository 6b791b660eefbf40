"""What each kernel of a cubin takes of the GPU, read from the file.

A cubin is an ELF file. A kernel ``k`` has its code in ``.text.k``, its shared memory in
``.nv.shared.k``, and attributes in ``.nv.info`` as entries of format (1 byte), attribute (1 byte),
size (2 bytes) and value. Two of them are pairs (symbol, number): the registers a thread takes, and
its frame, which is what it keeps in local memory, spills included.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_FRAME_SIZE, _REGISTERS = 0x11, 0x2F
_HAS_SIZED_VALUE = 4


@dataclass(frozen=True)
class Resources:
    """Of one kernel: ``registers`` and ``local`` bytes a thread, ``shared`` static bytes a block,
    bytes of ``code``. From sm_90 on, ``shared`` has 1 KiB that the system takes of each block."""

    name: str
    registers: int
    local: int
    shared: int
    code: int


@dataclass(frozen=True)
class _Section:
    name: str
    link: int
    data: bytes
    size: int


def resources(cubin: bytes) -> tuple[Resources, ...]:
    """One entry a kernel; ``ValueError`` for a file that is no cubin."""
    sections = _sections(cubin)
    by_name = {section.name: section for section in sections}
    frames = _numbers(by_name, sections, _FRAME_SIZE)
    registers = _numbers(by_name, sections, _REGISTERS)
    found = []
    for section in sections:
        if not section.name.startswith(".text."):
            continue
        name = section.name.removeprefix(".text.")
        shared = by_name.get(f".nv.shared.{name}")
        found.append(
            Resources(
                name,
                registers=registers[name],
                local=frames.get(name, 0),
                shared=shared.size if shared else 0,
                code=section.size,
            )
        )
    return tuple(found)


def _sections(cubin: bytes) -> list[_Section]:
    if cubin[:5] != b"\x7fELF\x02" or len(cubin) < 64:
        raise ValueError("no cubin: not a 64-bit ELF file")
    (offset,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3A)
    heads = [struct.unpack_from("<IIQQQQIIQQ", cubin, offset + i * size) for i in range(count)]
    table = heads[names]
    strings = cubin[table[4] : table[4] + table[5]]
    nobits = 8
    return [
        _Section(
            _text(strings, head[0]),
            link=head[6],
            data=b"" if head[1] == nobits else cubin[head[4] : head[4] + head[5]],
            size=head[5],
        )
        for head in heads
    ]


def _text(strings: bytes, at: int) -> str:
    return strings[at : strings.index(b"\0", at)].decode()


def _numbers(by_name: dict[str, _Section], sections: list[_Section], wanted: int) -> dict[str, int]:
    """Symbol -> its number under an attribute."""
    info, symbols = by_name.get(".nv.info"), by_name.get(".symtab")
    if info is None or symbols is None:
        return {}
    strings = sections[symbols.link].data
    found, at = {}, 0
    while at + 4 <= len(info.data):
        form, attribute, size = struct.unpack_from("<BBH", info.data, at)
        at += 4
        if form != _HAS_SIZED_VALUE:
            continue
        if attribute == wanted:
            symbol, count = struct.unpack_from("<II", info.data, at)
            (name,) = struct.unpack_from("<I", symbols.data, symbol * 24)
            found[_text(strings, name)] = count
        at += size
    return found
