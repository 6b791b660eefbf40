"""The zip of an artifact: what any zip program reads, and the one form that is taken."""

from __future__ import annotations

import io
import zipfile

import pytest
from artifact_support import packed
from hypothesis import given
from hypothesis import strategies as st

from burnish.runtime import archive
from burnish.runtime.archive import DamagedError, members_in

NAMES = ("a.json", "lib.so", "c")
CONTENT = {"a.json": b"{}", "lib.so": b"\x7fELF" * 30, "c": b""}
WHOLE = packed(CONTENT)


def taken(data: bytes, names=NAMES) -> dict[str, bytes]:
    return {name: bytes(part) for name, part in members_in(memoryview(data), names).items()}


def refused(data: bytes, message: str) -> None:
    with pytest.raises(DamagedError, match=message):
        taken(data)


def of_zipfile(change=lambda info: None, content=CONTENT, **options) -> bytes:
    """The same members by Python's own hand, each header changed by ``change``."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **options) as file:
        for name, data in content.items():
            info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            info.external_attr = 0o100644 << 16
            info.compress_type = file.compression
            change(info)
            file.writestr(info, data)
    return out.getvalue()


def test_any_zip_program_reads_it():
    with zipfile.ZipFile(io.BytesIO(WHOLE)) as file:
        assert file.testzip() is None
        assert {name: file.read(name) for name in file.namelist()} == CONTENT
    assert taken(WHOLE) == CONTENT
    assert of_zipfile() == WHOLE


def test_sizes_beyond_32_bits(monkeypatch):
    monkeypatch.setattr(archive, "_WIDE", 100)
    wide = packed(CONTENT)
    assert len(wide) > len(WHOLE)
    assert taken(wide) == CONTENT
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    for place in range(len(wide)):
        damaged = bytearray(wide)
        damaged[place] ^= 0x10
        with pytest.raises(DamagedError):
            taken(bytes(damaged))


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.binary(max_size=50)))
def test_what_is_written_is_read(content):
    assert taken(packed(content), tuple(content)) == content


def test_every_changed_byte_is_refused():
    for place in range(len(WHOLE)):
        for change in (1, 0x80, 0xFF):
            damaged = bytearray(WHOLE)
            damaged[place] ^= change
            with pytest.raises(DamagedError):
                taken(bytes(damaged))


def test_every_cut_and_every_addition_is_refused():
    for cut in range(len(WHOLE)):
        with pytest.raises(DamagedError):
            taken(WHOLE[:cut])
        with pytest.raises(DamagedError):
            taken(WHOLE[:cut] + b"\0" + WHOLE[cut:])
    refused(WHOLE + b"\n", "it does not end as such a file does")
    refused(b"#!/bin/sh\n" + WHOLE, "its end is not as it was written")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"a.json": b"{}"},
        {**CONTENT, "more": b""},
        {"lib.so": b"", "a.json": b"{}", "c": b""},
        {"a.json": b"{}", "../lib.so": b"", "c": b""},
        {"a.json": b"{}", "/lib.so": b"", "c": b""},
        {"a.json": b"{}", "lib.s\xc3": b"", "c": b""},
        {"a.json": b"{}", "LIB.SO": b"", "c": b""},
    ],
    ids=["none", "less", "more", "order", "escape", "absolute", "not ASCII", "case"],
)
def test_other_members(content):
    refused(of_zipfile(content=content), "it must hold exactly a.json, lib.so, c, in this order")


def test_a_member_twice():
    twice = archive.written([(name, [b""]) for name in ("a.json", "lib.so", "lib.so")])
    refused(b"".join(twice), "it must hold exactly")


def test_compression_and_bombs():
    bomb = {**CONTENT, "lib.so": bytes(10_000_000)}
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        refused(of_zipfile(content=bomb, compression=method), r"lib.so|a.json is compressed")


def patched(data: bytes, member: int, offset: int, value: bytes) -> bytes:
    """The central header of one member with other bytes at an offset."""
    start = 0
    for _ in range(member + 1):
        start = data.index(b"PK\x01\x02", start + 1)
    return data[: start + offset] + value + data[start + offset + len(value) :]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (of_zipfile(lambda i: setattr(i, "external_attr", 0o120777 << 16)), "entry of a.json is"),
        (of_zipfile(lambda i: setattr(i, "extra", b"\x99\x99\x04\0four")), "entry of a.json is"),
        (of_zipfile(lambda i: setattr(i, "comment", b"x")), "entry of a.json is"),
        (of_zipfile(lambda i: setattr(i, "date_time", (1999, 1, 1, 0, 0, 0))), "entry of a.json"),
        (patched(WHOLE, 1, 20, b"\xff\xff\xff\x7f" * 2), "lib.so has a false size|header of lib"),
        (patched(WHOLE, 1, 20, b"\xff\xff\xff\xff" * 2), "header of lib.so|entry of lib.so"),
        (patched(WHOLE, 1, 16, b"\0\0\0\0"), "the header of lib.so is not as it was written"),
        (patched(WHOLE, 1, 42, b"\0\0\0\0"), "lib.so lies where another member is"),
        (patched(WHOLE, 0, 8, b"\x01\0"), "entry of a.json is not as it was written"),
    ],
    ids=["link", "extra", "comment", "date", "large", "wide", "crc", "overlap", "encrypted"],
)
def test_headers_of_another_kind(data, message):
    refused(data, message)


def test_a_wrong_checksum():
    """Both headers agree on it, and the content has another."""
    crc = WHOLE[14:18]
    wrong = bytes(byte ^ 1 for byte in crc)
    refused(WHOLE.replace(crc, wrong), "the checksum of a.json does not match")
