"""Shares, limits, merged lines and module paths, on made-up times."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from burnish.compiler.bench.peaks import Peaks
from burnish.compiler.profile.kernel import Work
from burnish.compiler.profile.picture import boxes
from burnish.compiler.profile.result import Line, Profile, limit_of
from burnish.compiler.profile.table import print_profile
from burnish.passes.module_paths import module_paths

PEAKS = Peaks(2, 100.0, 200.0, 400.0, 10.0)


def line(kernel: str, ms: float, path: tuple[str, ...] = (), flops: int | None = 10**6) -> Line:
    work = Work(flops, 0 if flops is not None else None, 0, 4000, 1000)
    limit, bound = limit_of(work, "float32", PEAKS)
    return Line(
        *(kernel, (kernel,), "tiles", "float32", path, (), ((2, 3),), 1),
        *(ms, 0.8 * ms, work, limit, bound),
    )


@pytest.fixture
def profile() -> Profile:
    calls = (
        line("gemm", 1.0, ("block", "0", "up")),
        line("norm", 0.5, ("block", "0")),
        line("gemm", 3.0, ("block", "1", "up")),
        line("argmax", 0.05, (), None),
    )
    machine = {"cpu": "a CPU", "cores": 2, "threads": 2}
    return Profile("net", calls, 5.0, 4.0, 0.1, 10**6, PEAKS, machine, "2026-01-01", 9)


def test_limits_are_the_larger_of_two_times():
    assert limit_of(Work(10**6, 0, 0, 10, 0), "float32", PEAKS) == (0.01, "compute")
    assert limit_of(Work(10**6, 0, 0, 10, 0), "int8", PEAKS) == (0.0025, "compute")
    assert limit_of(Work(10**6, 0, 0, 10, 0), "bfloat16", PEAKS) == (0.005, "compute")
    assert limit_of(Work(10**6, 0, 0, 0, 10**6), "float32", PEAKS) == (0.1, "memory")
    assert limit_of(Work(None, None, None, 10**6, 0), "int64", PEAKS) == (0.1, "memory")


def test_shares_sum_to_one(profile):
    between = profile.between_ms / profile.total_ms
    assert sum(map(profile.share, profile.calls)) + between == pytest.approx(1)
    assert sum(map(profile.share, profile.kernels)) + between == pytest.approx(1)
    assert profile.between_ms == pytest.approx(0.45)


def test_kernels_that_add_up_to_more_than_a_call_leave_nothing_between(profile):
    short = Profile(**{**profile.__dict__, "whole_ms": 4.0})
    assert short.between_ms == 0
    assert sum(map(short.share, short.calls)) == pytest.approx(1)


def test_calls_of_a_kernel_are_merged_by_time(profile):
    gemm, norm, argmax = profile.kernels
    assert (gemm.kernel, gemm.calls, gemm.ms, gemm.path) == ("gemm", 2, 4.0, ("block",))
    assert gemm.work.flops == 2 * 10**6
    assert gemm.gflops == pytest.approx(2e6 / 3.2 / 1e6)
    assert gemm.of_limit == pytest.approx(0.02 / 3.2)
    assert norm.calls == 1
    assert argmax.gflops is None
    assert argmax.bound == "memory"


def test_the_calls_limit_moves_weights_and_ends_once(profile):
    assert profile.limit_ms == pytest.approx(0.1)
    assert profile.of_limit == pytest.approx(0.025)


def text(profile: Profile, **options) -> str:
    out = io.StringIO()
    print_profile(profile, Console(file=out, width=170), **options)
    return out.getvalue()


def test_table_sums_up_what_is_small(profile):
    shown = text(profile)
    assert "1 other, each under 2 %" in shown
    assert "argmax" not in shown
    assert "between kernels" in shown
    assert "a call takes 5.00 ms" in shown
    assert "argmax" in text(profile, least=0)


def test_table_by_call_names_modules_in_order(profile):
    lines = [row for row in text(profile, calls=True).splitlines() if "block." in row]
    assert [row.split()[2] for row in lines] == ["block.0.up", "block.0", "block.1.up"]


def test_picture_boxes_nest(profile):
    found = boxes(profile)
    labels = [(box.label, box.depth) for box in found if box.line is None]
    assert labels == [("net", 0), ("block", 1), ("0", 2), ("up", 3), ("1", 2), ("up", 3)]
    widths = {box.label: box.width for box in found}
    assert widths["block"] == pytest.approx(4.5)
    starts = [box.start for box in found if box.line is not None]
    assert starts == pytest.approx([0, 1, 1.5, 4.5])


def test_picture_files(profile, tmp_path: Path):
    profile.draw(tmp_path / "p.png")
    profile.draw(tmp_path / "p.svg")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    drawn = (tmp_path / "p.svg").read_text()
    assert "net: 5.00 ms a call" in drawn
    assert "between kernels" in drawn


def test_paths_of_calls_without_weights_are_what_their_neighbours_share():
    weights = [
        (),
        ("layers.0.attn.q.weight", "layers.0.attn.q.bias"),
        (),
        ("layers.0.attn.out.weight.scale",),
        ("layers.0.norm.weight", "layers.0.mlp.up.weight"),
        (),
        ("head.weight",),
        (),
    ]
    assert module_paths(weights) == [
        (),
        ("layers", "0", "attn", "q"),
        ("layers", "0", "attn"),
        ("layers", "0", "attn", "out"),
        ("layers", "0"),
        (),
        ("head",),
        (),
    ]
