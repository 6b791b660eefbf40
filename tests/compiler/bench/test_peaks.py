"""The machine's peaks: a C program that builds and runs, kept between runs; errors by message."""

from __future__ import annotations

import json
import shutil

import pytest

from burnish.compiler.bench import peaks as module
from burnish.compiler.bench.peaks import COMPILERS, Peaks, keep_peaks, known_peaks, measure_peaks
from burnish.compiler.errors import MeasureError
from support import require

SOME = Peaks(2, fp32=200.0, bf16=400.0, int8=None, read=40.0)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path))
    return tmp_path / "peaks"


def test_the_program_finds_rates_that_a_computer_can_have():
    require(any(map(shutil.which, COMPILERS)), "no C compiler on PATH: install gcc")
    found = measure_peaks(1, seconds=0.01)
    assert found.threads == 1
    assert 1 < found.fp32 < 10_000
    assert 0.5 < found.read < 1_000
    for narrow in (found.bf16, found.int8):
        assert narrow is None or narrow > found.fp32


def test_the_limit_is_the_larger_of_the_two_times():
    assert SOME.limit_ms(200e9, 40e6) == 1000.0
    assert SOME.limit_ms(200e6, 40e9) == 1000.0


def test_peaks_are_measured_once_and_kept(cache, monkeypatch):
    calls = []
    monkeypatch.setattr(module, "measure_peaks", lambda threads: calls.append(threads) or SOME)
    assert known_peaks(2) == known_peaks(2) == SOME
    assert calls == [2]
    next(cache.iterdir()).write_text("{broken")
    assert known_peaks(2) == SOME
    assert calls == [2, 2]


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / "file"))
    keep_peaks(SOME)
    monkeypatch.setattr(module, "measure_peaks", lambda threads: SOME)
    assert known_peaks(2) == SOME


def test_no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MeasureError, match=r"needs a C compiler on PATH: one of cc, gcc, clang"):
        measure_peaks(1)


def test_a_compiler_that_fails_is_quoted(monkeypatch, tmp_path):
    wrong = tmp_path / "peaks.c"
    wrong.write_text("int main(void) { return undeclared; }")
    monkeypatch.setattr(module, "SOURCE", wrong)
    with pytest.raises(MeasureError, match=r"could not build the program .*undeclared"):
        measure_peaks(1)


def test_a_program_that_fails_is_quoted(monkeypatch, tmp_path):
    wrong = tmp_path / "peaks.c"
    wrong.write_text("int main(void) { return 3; }")
    monkeypatch.setattr(module, "SOURCE", wrong)
    with pytest.raises(MeasureError, match=r"could not run the program .*exit code 3"):
        measure_peaks(1)


def test_plain_data_and_back():
    assert Peaks.from_dict(json.loads(json.dumps(SOME.to_dict()))) == SOME
