"""What survives between runs."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st

from burnish.compiler.errors import TuneError
from burnish.compiler.tune.database import Record, TuneDatabase, _parse, default_work_dir

RECORDS = (
    Record(1, 10, "default", 2e-3),
    Record(1, 11, "trace", 1e-3, trace=[[["EnterPostproc", [], [], []]], []]),
    Record(1, 12, "trace", None, "does not build", [[], []]),
    Record(2, 20, "alternative", 5e-4),
)


@pytest.fixture
def filled(tmp_path: Path, target: tvm.target.Target) -> TuneDatabase:
    database = TuneDatabase(tmp_path, target, 2)
    database.add(*RECORDS)
    return database


def test_records_are_there_next_time_fastest_first(
    filled: TuneDatabase, tmp_path: Path, target: tvm.target.Target
) -> None:
    again = TuneDatabase(tmp_path, target, 2)
    assert again.records(1) == [RECORDS[1], RECORDS[0], RECORDS[2]]
    assert again.get(2, 20) == RECORDS[3]
    assert again.get(2, 21) is None


def test_each_target_and_thread_count_has_a_folder(
    filled: TuneDatabase, tmp_path: Path, target: tvm.target.Target
) -> None:
    other = tvm.target.Target({"kind": "llvm", "num-cores": 2, "mcpu": "x86-64"})
    for database in (TuneDatabase(tmp_path, other, 2), TuneDatabase(tmp_path, target, 1)):
        assert database.records(1) == []
        assert database.folder != filled.folder
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"version": 1, "tar', "not JSON"),
        ("\x00\x80garbage", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1, 2]", "not a record"),
        ('{"version": 2}', "of another version"),
        ('{"version": 1, "target": "cuda-123"}', "of another target"),
    ],
)
def test_a_bad_line_is_set_aside_with_a_warning(
    filled: TuneDatabase, tmp_path: Path, target: tvm.target.Target, line: str, reason: str
) -> None:
    with open(filled.path, "a") as file:
        file.write(line)
    with pytest.warns(UserWarning, match=rf"1 of 5 lines .* cannot be used \({reason}\)"):
        again = TuneDatabase(tmp_path, target, 2)
    assert len(again.records(1)) == 3
    assert line in (filled.folder / "rejected.jsonl").read_text()
    again.add(Record(3, 30, "default", 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert TuneDatabase(tmp_path, target, 2).get(3, 30) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"secs": -1.0},
        {"secs": float("nan")},
        {"secs": "1"},
        {"secs": None},
        {"kind": "pickle"},
        {"task": "1"},
        {"trace": "os.system('true')"},
        {"error": 3},
        {"more": 1},
    ],
)
def test_a_field_of_a_wrong_kind_is_refused(
    filled: TuneDatabase, change: dict[str, object]
) -> None:
    good = json.loads(filled.path.read_text().splitlines()[1])
    with pytest.raises(ValueError, match=r"a field has a wrong value|not a record"):
        _parse(json.dumps({**good, **change}).encode(), filled.key)


@given(st.binary(max_size=200))
def test_any_line_is_a_record_or_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"^(not|of|a) "):
        _parse(line, "llvm-0")


def test_a_folder_that_cannot_be_written_is_an_error(
    tmp_path: Path, target: tvm.target.Target
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TuneError, match=r"database .*file.* cannot be used: Not a directory; give"):
        TuneDatabase(tmp_path / "file", target, 2)


def test_the_default_folder_is_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_CACHE", os.sep + "cache")
    assert default_work_dir() == Path("/cache/tuning")
    monkeypatch.delenv("BURNISH_CACHE")
    assert default_work_dir() == Path.home() / ".cache" / "burnish" / "tuning"
