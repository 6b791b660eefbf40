"""``burnish devices``: the table, JSON, what is kept, and what cannot be used."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import burnish
from burnish import cli
from burnish.compiler.errors import MeasureError
from burnish.compiler.placement import devices
from burnish.compiler.placement.devices import DeviceRates

FOUND = (
    DeviceRates("cpu", "a CPU [tm]", memory_bytes=8 << 30),
    DeviceRates("opencl:0", "a GPU", memory_bytes=1 << 30),
    DeviceRates("opencl:1", "one that fails"),
    DeviceRates("cuda:0", "NVIDIA GPU", reason="no driver", remedy="install it"),
)


@pytest.fixture
def measured(monkeypatch, tmp_path):
    names: list[str] = []

    def measure(one, folder):
        names.append(one.name)
        if one.name == "opencl:1":
            raise MeasureError("no kernel runs")
        rates = replace(one, gflops=123.4, gbytes=56.0)
        if one.name == "cpu":
            return rates
        return replace(rates, latency_s=2e-5, link_gbytes=7.0)

    monkeypatch.setattr(devices, "present", lambda: FOUND)
    monkeypatch.setattr(devices, "measured", measure)
    monkeypatch.setattr(devices, "cache_folder", lambda: tmp_path)
    return names


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        cli.main(["devices", *arguments])
    captured = capsys.readouterr()
    assert left.value.code == 0, captured.err
    return captured.out


def test_devices_are_listed_measured_once_and_again_when_asked(measured, capsys):
    out = call(capsys)
    for part in ("a CPU [tm]", "123", "56", "8.59 GB", "the host's own", "0.0200 ms, 7 GB/s"):
        assert part in out, part
    assert "cuda:0 cannot be used: no driver. To do: install it" in out
    assert "opencl:1 cannot be used: measuring failed: no kernel runs" in out
    assert measured == ["cpu", "opencl:0", "opencl:1"]
    data = json.loads(call(capsys, "--json"))
    assert measured == ["cpu", "opencl:0", "opencl:1", "opencl:1"]  # what failed is tried again
    assert [one["usable"] for one in data["devices"]] == [True, True, False, False]
    assert data["devices"][1]["latency_s"] == 2e-5
    call(capsys, "--again")
    assert measured[4:] == ["cpu", "opencl:0", "opencl:1"]


def test_kept_figures_that_are_damaged_are_measured_again(measured, tmp_path):
    first = burnish.devices()
    (tmp_path / "devices" / "devices.json").write_text('{"a": 3}')
    assert burnish.devices() == first
    assert measured.count("cpu") == 2


def test_what_is_here_has_names_that_targets_take():
    found = {one.name: one for one in devices.present()}
    assert found["cpu"].usable
    assert any(name.startswith("cpu@") for name in found)
    for one in found.values():
        assert devices.parse_place(one.name).name == one.name
        assert one.usable or (one.reason and one.remedy)
