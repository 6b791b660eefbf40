"""The zip of an artifact: members stored in a fixed order, and not one byte more.

Writing a list of members has one result, and reading accepts nothing else: every header is
compared with the one that would have been written. So there is no compression to expand, no name
but the expected ones, no second member of a name, no link or attribute, no overlap, no gap, no
comment, and nothing before or after. Any zip program reads the file (APPNOTE.TXT 6.3.3, with the
64-bit fields where a size or place needs them).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Part = bytes | memoryview

_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_END64, _LOCATOR = b"PK\x06\x06", b"PK\x06\x07"
_DATE = (2020 - 1980) << 9 | 1 << 5 | 1
"""2020-01-01 00:00, in the format of MS-DOS; the time is 0."""
_WIDE = 0xFFFFFFFF
"""From here on sizes and places are in the 64-bit fields."""
_CHUNK = 1 << 24


class DamagedError(ValueError):
    """The content is not what was written; the message says where."""


@dataclass(frozen=True)
class _Entry:
    name: bytes
    size: int
    crc: int
    place: int

    def _extra(self, *, central: bool) -> bytes:
        fields = [self.size, self.size] if self.size >= _WIDE else []
        if central and self.place >= _WIDE:
            fields.append(self.place)
        if not fields:
            return b""
        return struct.pack(f"<HH{len(fields)}Q", 1, 8 * len(fields), *fields)

    def _common(self, extra: bytes, *, wide: bool) -> bytes:
        size = min(self.size, _WIDE)
        version = 45 if wide else 20
        return struct.pack(
            "<HHHHHIIIHH",
            *(version, 0, 0, 0, _DATE, self.crc, size, size, len(self.name), len(extra)),
        )

    def local(self) -> bytes:
        extra = self._extra(central=False)
        return _LOCAL + self._common(extra, wide=bool(extra)) + self.name + extra

    def central(self) -> bytes:
        extra = self._extra(central=True)
        made_by = struct.pack("<H", 3 << 8 | 20)
        rest = struct.pack("<HHHII", 0, 0, 0, 0o100644 << 16, min(self.place, _WIDE))
        head = _CENTRAL + made_by + self._common(extra, wide=bool(extra))
        return head + rest + self.name + extra


def _end(count: int, size: int, start: int) -> bytes:
    wide = size >= _WIDE or start >= _WIDE
    tail = b""
    if wide:
        fields = (44, 3 << 8 | 45, 45, 0, 0, count, count, size, start)
        tail = _END64 + struct.pack("<QHHIIQQQQ", *fields)
        tail += _LOCATOR + struct.pack("<IQI", 0, start + size, 1)
    fields32 = (0, 0, count, count, min(size, _WIDE), min(start, _WIDE), 0)
    return tail + _END + struct.pack("<HHHHIIH", *fields32)


def written(members: Iterable[tuple[str, Sequence[Part]]]) -> Iterator[Part]:
    """The bytes of the file, in order; each member is given as the parts of its content."""
    place, entries = 0, []
    for name, parts in members:
        crc = 0
        for part in parts:
            crc = zlib.crc32(part, crc)
        entry = _Entry(name.encode("ascii"), sum(len(part) for part in parts), crc, place)
        head = entry.local()
        yield head
        yield from parts
        place += len(head) + entry.size
        entries.append(entry)
    directory = b"".join(entry.central() for entry in entries)
    yield directory + _end(len(entries), len(directory), place)


def members_in(content: memoryview, names: Sequence[str]) -> dict[str, memoryview]:
    """The members of a file that must hold exactly ``names``, in that order, as views of it.

    Raises :class:`DamagedError` for anything that :func:`written` would not have written.
    """
    found, sums = placed(content, names)
    check_sums(found, sums)
    return found


def placed(
    content: memoryview, names: Sequence[str]
) -> tuple[dict[str, memoryview], dict[str, int]]:
    """:func:`members_in` by the headers alone, and the checksums that they say."""
    count, size, start = _ending(content)
    if count != len(names):
        raise DamagedError(_other_members(names))
    entries, at = [], start
    for name in names:
        entry, length = _entry(content[at : start + size], name, names)
        entries.append(entry)
        at += length
    if at != start + size:
        raise DamagedError("its directory is longer than its members need")
    found: dict[str, memoryview] = {}
    sums: dict[str, int] = {}
    place = 0
    for name, entry in zip(names, entries, strict=True):
        if entry.place != place:
            raise DamagedError(f"{name} lies where another member is, or something is before it")
        head = entry.local()
        if content[place : place + len(head)] != head:
            raise DamagedError(f"the header of {name} is not as it was written")
        data = content[place + len(head) : place + len(head) + entry.size]
        if len(data) != entry.size or place + len(head) + entry.size > start:
            raise DamagedError(f"{name} has a false size")
        found[name], sums[name] = data, entry.crc
        place += len(head) + entry.size
    if place != start:
        raise DamagedError("there is something between its members and its directory")
    return found, sums


def check_sums(members: Mapping[str, memoryview], sums: Mapping[str, int]) -> None:
    """Raise :class:`DamagedError` where a member has another checksum than its headers say."""
    for name, data in members.items():
        if _crc(data) != sums[name]:
            raise DamagedError(f"the checksum of {name} does not match")


def _ending(content: memoryview) -> tuple[int, int, int]:
    """Members, and size and place of the directory."""
    if len(content) < 22 or content[-22:-18] != _END:
        raise DamagedError("it does not end as such a file does: cut off, added to, or no zip")
    count, size, start = struct.unpack("<10xHII2x", content[-22:])
    if size == _WIDE or start == _WIDE:
        if len(content) < 98 or content[-98:-94] != _END64:
            raise DamagedError("its end lacks the sizes of a large file")
        size, start = struct.unpack("<40xQQ", content[-98:-42])
    tail = _end(count, size, start)
    if start + size + len(tail) != len(content) or content[start + size :] != tail:
        raise DamagedError("its end is not as it was written")
    return count, size, start


def _entry(rest: memoryview, name: str, names: Sequence[str]) -> tuple[_Entry, int]:
    """The entry at the start of ``rest``, which must be ``name``'s, and its length."""
    if len(rest) < 46 or rest[:4] != _CENTRAL:
        raise DamagedError("its directory is damaged")
    method, crc, packed, size, length, extra = struct.unpack_from("<10xH4xIIIHH", rest)
    (place,) = struct.unpack_from("<42xI", rest)
    if rest[46 : 46 + length] != name.encode("ascii"):
        raise DamagedError(_other_members(names))
    if method != 0 or packed != size:
        raise DamagedError(f"{name} is compressed")
    values = rest[46 + length + 4 : 46 + length + extra]
    if len(values) % 8 or len(values) > 24:
        raise DamagedError(f"the directory's entry of {name} is not as it was written")
    wide = list(struct.unpack(f"<{len(values) // 8}Q", values))
    if size == _WIDE and len(wide) >= 2:
        size = wide.pop(0)
        wide.pop(0)
    if place == _WIDE and wide:
        place = wide.pop(0)
    entry = _Entry(name.encode("ascii"), size, crc, place)
    central = entry.central()
    if rest[: len(central)] != central:
        raise DamagedError(f"the directory's entry of {name} is not as it was written")
    return entry, len(central)


def _crc(data: memoryview) -> int:
    crc = 0
    for start in range(0, len(data), _CHUNK):
        crc = zlib.crc32(data[start : start + _CHUNK], crc)
    return crc


def _other_members(names: Sequence[str]) -> str:
    return f"it must hold exactly {', '.join(names)}, in this order"
