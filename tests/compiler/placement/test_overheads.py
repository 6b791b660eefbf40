"""What calls, turns and starts of kernels cost, from networks of nearly nothing."""

from __future__ import annotations

import pytest

import burnish
from burnish.compiler.errors import ConfigError
from burnish.compiler.measure.timing import summarize
from burnish.compiler.placement.links import measured_links
from burnish.compiler.placement.overheads import (
    call_seconds,
    dispatch_seconds,
    start_seconds,
    turn_seconds,
)
from burnish.targets.choose import choose_target


def test_a_turn_is_what_each_more_region_of_a_chain_takes(tmp_path, monkeypatch):
    asked = []

    def timing(net, given, target, placement, _dynamic):
        asked.append((target, placement))
        return summarize([[7.0 + 0.25 * net.count] * 5] * 5)

    monkeypatch.setattr("burnish.compiler.placement.overheads._call_timing", timing)
    monkeypatch.setattr("burnish.compiler.placement.overheads.usable", lambda: {3, 1, 7})
    assert turn_seconds(cache_dir=tmp_path) == pytest.approx(0.25e-3)
    assert turn_seconds(cache_dir=tmp_path) == pytest.approx(0.25e-3)
    assert asked == [("hetero:cpu@1,cpu@3", {"nn.relu": "cpu@1", "tanh": "cpu@3"})] * 2
    monkeypatch.setattr("burnish.compiler.placement.links.turn_seconds", lambda: 0.125)
    found = measured_links(choose_target("hetero:cpu@4,cpu@0+2"))
    assert [one.latency_seconds for one in found] == [0.125, 0.125]
    monkeypatch.setattr("burnish.compiler.placement.overheads.usable", lambda: {0})
    with pytest.raises(ConfigError, match=r"measured on 2 of them, and this process may run on"):
        turn_seconds(cache_dir=tmp_path)


def test_a_call_of_regions_on_cores_has_one_start_more_than_its_turns(tmp_path, monkeypatch):
    asked = []

    def timing(net, given, target, placement, _dynamic):
        asked.append(target)
        if hasattr(net, "count"):
            return summarize([[7.0 + 0.25 * net.count] * 5] * 5)
        return summarize([[1.0 + 0.5 * len(given)] * 5] * 5)

    monkeypatch.setattr("burnish.compiler.placement.overheads._call_timing", timing)
    monkeypatch.setattr("burnish.compiler.placement.overheads.usable", lambda: {3, 1})
    alone = call_seconds("hetero:cpu@1", 2, cache_dir=tmp_path)
    assert alone == pytest.approx(1.5e-3)
    assert start_seconds(2, cache_dir=tmp_path) == pytest.approx(7.25e-3)
    assert start_seconds(4, cache_dir=tmp_path) == pytest.approx(7.75e-3)
    assert asked == ["hetero:cpu@1"] * 2 + ["hetero:cpu@1,cpu@3"] * 2


def test_the_start_of_a_kernel_is_what_a_virtual_machine_takes_more_than_a_record(
    tmp_path, monkeypatch
):
    recorded = []

    def timing(net, given, target, placement, _dynamic):
        made = burnish.compile(net.eval(), tuple(given), target=target, cache=False)
        recorded.append(made._to_record)
        each = 0.25 if made._to_record else 1.0
        return summarize([[7.0 + each * len(net.layers)] * 5] * 5)

    monkeypatch.setattr("burnish.compiler.placement.overheads._call_timing", timing)
    assert dispatch_seconds(cache_dir=tmp_path) == pytest.approx(0.75e-3)
    assert recorded == [True, True, False, False]


@pytest.mark.heavy
def test_a_turn_is_measured(tmp_path):
    assert 1e-7 < turn_seconds(cache_dir=tmp_path) < 0.1
