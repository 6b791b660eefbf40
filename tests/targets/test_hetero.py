"""Several devices as one target, by name."""

from __future__ import annotations

import json

import pytest

from burnish.targets.choose import choose_target, described_target
from burnish.targets.described import described
from burnish.targets.hetero import HeteroTarget


def test_devices_and_their_memories():
    target = choose_target("hetero:opencl:0, cuda:sm_90:1,cpu:1,opencl:mali:2")
    assert isinstance(target, HeteroTarget)
    assert [one.name for one in target.places] == list(target.devices)
    assert [one.memory for one in target.places] == ["opencl:0", "cuda:1", "cpu:1", "opencl:2"]
    assert target.memories[0].memory == "cpu:0", "the host is there unasked"
    assert target.places[1].target.arches == ("sm_90",)
    assert target.places[3].target.half
    assert choose_target(target) is target


def test_it_is_written_out_and_read_back_as_it_is():
    target = choose_target("hetero:opencl:0,cpu").with_threads(3)
    again = described_target(json.loads(json.dumps(described(target))))
    assert again == target
    assert [one.target.threads for one in again.places] == [3, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hetero:", "is not of the form hetero:DEVICE"),
        ("hetero:cpu,,opencl:0", "is not of the form"),
        ("hetero:cpu,cpu", "names cpu twice"),
        ("hetero:gpu:0,cpu", "device 'gpu:0': unknown target.*devices are cpu, cuda:0, opencl:0"),
        ("hetero:cpu@0-1,cpu@2", "each core is a device of its own, cpu@0,cpu@1"),
        ("hetero:cpu@0,opencl:0,cpu", "opencl:0, cpu would take turns with them"),
        ("hetero:cpu@0,cpu@00", "names a core twice"),
        ("hetero:cpu,llvm -mcpu=x86-64-v2:1", "CPUs of one executable must be alike"),
    ],
)
def test_what_cannot_be_read_is_said(text, message):
    with pytest.raises(ValueError, match=message):
        choose_target(text)


def _core(number):
    fields = json.loads(choose_target("hetero:cpu@0").described[0])
    return json.dumps({**fields, "core": number})


@pytest.mark.parametrize(
    "change",
    [
        {"devices": ["cpu"]},
        {"described": ["{}", "{}"]},
        {"described": ["[]", "1"]},
        {"described": ['{"kind": "tpu", "index": 0, "backend": ""}'] * 2},
        {"threads": "2"},
        {"described": [_core("0"), _core(1)]},
        {"described": [_core(0), _core(None)]},
    ],
)
def test_fields_that_describe_no_devices_are_refused(change):
    fields = described(choose_target("hetero:opencl:0,cpu"))
    with pytest.raises((ValueError, KeyError, TypeError)):
        described_target({**fields, **change})
