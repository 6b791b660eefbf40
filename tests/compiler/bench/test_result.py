"""Ratios, means and claims of a benchmark, from times made up; its table and picture."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from burnish.compiler.bench import BenchResult, Row
from burnish.compiler.bench.peaks import Peaks
from burnish.compiler.bench.picture import draw_bench
from burnish.compiler.bench.result import geometric_mean, merged
from burnish.compiler.bench.table import print_bench
from burnish.compiler.bench.work import Work
from burnish.compiler.errors import ConfigError
from burnish.compiler.measure.timing import summarize

MACHINE = {
    "cpu": "A processor",
    "cores": 2,
    "threads": 2,
    "memory": 8e9,
    "load": 0.1,
    "versions": {"torch": "2"},
    "isa": ["avx2"],
    "caches": {"l1": 32768, "l2": 1 << 20},
}


def row(name, times, kind="convolution", group=None, flops=2_000_000, **fields):
    """A row whose runtimes took (best, median) milliseconds."""
    taken = {key: summarize([[best, median, median]]) for key, (best, median) in times.items()}
    return Row(name, name.title(), group or name, kind, Work(flops, 1000), taken, **fields)


def result(*rows, **fields):
    peaks = Peaks(2, fp32=2.0, bf16=None, int8=8.0, read=10.0)
    settings = {"rounds": 15}
    base = BenchResult(rows, ("eager", "openvino"), peaks, peaks, MACHINE, settings, "2026-01-02")
    return replace(base, **fields)


FAST = row("fast", {"burnish": (2.0, 3.0), "eager": (8.0, 9.0), "openvino": (4.0, 6.0)})
SLOW = row("slow", {"burnish": (2.0, 4.0), "eager": (8.0, 8.0), "openvino": (1.0, 2.0)}, "other")


def test_the_fastest_peer_is_found_by_each_measure():
    mixed = row("m", {"burnish": (2.0, 4.0), "eager": (3.0, 5.0), "openvino": (2.5, 6.0)})
    assert (mixed.fastest("best"), mixed.fastest("median")) == ("openvino", "eager")
    assert (mixed.lead("best"), mixed.lead("median")) == (1.25, 1.25)
    assert mixed.no_slower


def test_no_slower_must_hold_by_best_and_by_median():
    assert FAST.no_slower
    half = row("h", {"burnish": (2.0, 4.0), "eager": (3.0, 3.9)})
    assert half.no_slower is False
    assert row("none", {"eager": (1.0, 1.0)}).no_slower is None


def test_summary_means_and_counts():
    found = result(FAST, SLOW).summary()
    best = found["geometric_mean"]["best"]
    assert best["fastest"] == pytest.approx((2.0 * 0.5) ** 0.5)
    assert best["fastest_convolution"] == pytest.approx(2.0)
    assert best["eager"] == pytest.approx(4.0)
    assert found["geometric_mean"]["median"]["fastest"] == pytest.approx((2.0 * 0.5) ** 0.5)
    assert (found["models_no_slower"], found["models"]) == (1, 2)


def test_a_model_is_no_slower_when_all_its_rows_are():
    second = replace(SLOW, group="fast")
    found = result(FAST, second).summary()
    assert (found["models_no_slower"], found["models"]) == (0, 1)
    assert (found["rows_no_slower"], found["rows"]) == (1, 2)


def test_the_peak_is_the_highest_rate_seen_but_not_by_convolutions():
    assert result(FAST).top.fp32 == 2.0
    quick = row("q", {"eager": (0.5, 0.6)}, "transformer")
    assert result(FAST, quick).top.fp32 == pytest.approx(4.0)
    assert result(FAST, quick).limit_ms(FAST) == pytest.approx(0.5)
    assert result(FAST).share(FAST, "burnish") == pytest.approx(0.5)


def test_geometric_mean_of_nothing_is_unknown():
    assert geometric_mean([None]) is None


def test_newer_rows_replace_older_ones_in_place():
    again = row("fast", {"burnish": (1.0, 1.0)})
    assert merged([FAST, SLOW], [again]) == (again, SLOW)


def test_json_and_back():
    before = result(FAST, SLOW, complete=False)
    data = json.loads(json.dumps(before.to_dict()))
    assert BenchResult.from_dict(data).to_dict() == before.to_dict()


def test_json_of_something_else():
    with pytest.raises(ConfigError, match="this is no result of a benchmark"):
        BenchResult.from_dict({"schema": "burnish.comparison/1"})
    data = result(FAST).to_dict()
    del data["rows"][0]["flops"]
    with pytest.raises(ConfigError, match="this result of a benchmark is damaged: KeyError"):
        BenchResult.from_dict(data)


def test_the_table_says_what_a_reader_must_know():
    failed = replace(SLOW, failures={"openvino": "it would not"}, void=("eager",), attempts=3)
    out = io.StringIO()
    console = Console(file=out, width=200)
    print_bench(result(FAST, failed, complete=False, settings={"rounds": 2}), console)
    text = out.getvalue()
    assert "burnish is no slower than the fastest peer on 1 of 2 models" in text
    assert "geometric mean over eager: 4.00x by best" in text
    assert "2.00 / 3.00" in text  # our best and median
    assert "4.00 / 6.00" in text  # the fastest peer's
    assert "8.00 / 8.00?" in text
    assert "! not complete" in text
    assert "! 2 rounds: a claim needs 15 or more" in text
    assert "! Slow: OpenVINO failed: it would not" in text
    assert "! Slow: ? marks eager, over 5 % slower taking turns than alone in each of 3" in text
    assert "peaks of 2 threads: fp32 2 GFLOP/s, int8 8 GOP/s, read 10 GB/s" in text


def test_the_picture(tmp_path):
    path = tmp_path / "bench.png"
    draw_bench(result(FAST, SLOW, row("bare", {"eager": (1.0, 1.0)})), path)
    assert path.read_bytes().startswith(b"\x89PNG")
