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
        ("hetero:cpu@0-,cpu@2", "'cpu@0-' is none of cpu, or cores of it by number"),
        ("hetero:cpu@0,2", "2 is no device; cores of one set are joined by .*cpu@0\\+2"),
        ("hetero:cpu@0-1,cpu@3+1", "names core 1 twice, in cpu@0-1 and in cpu@3\\+1"),
        ("hetero:cpu@3-1", "names no core with 3-1"),
        ("hetero:cpu@3-1+5", "names no core with 3-1"),
        ("hetero:cpu@0-99999999", "has a core past 8191, the last"),
        ("hetero:cpu@0,opencl:0,cpu", "opencl:0, cpu would take turns with them"),
        ("hetero:cpu@0,cpu@00", "names core 0 twice, in cpu@0 and in cpu@00"),
        ("hetero:cpu,llvm -mcpu=x86-64-v2:1", "CPUs of one executable must be alike"),
    ],
)
def test_what_cannot_be_read_is_said(text, message):
    with pytest.raises(ValueError, match=message):
        choose_target(text)


def test_sets_of_cores_have_a_thread_a_core_each_its_own_number():
    target = choose_target("hetero:cpu@1,cpu@0+2-3")
    assert [one.cores for one in target.places] == [(1,), (0, 2, 3)]
    assert [one.target.threads for one in target.places] == [1, 3]
    assert target.concurrent
    assert described_target(json.loads(json.dumps(described(target)))) == target
    assert target.with_threads(1) is target
    with pytest.raises(ValueError, match="each runs one thread: leave threads out"):
        target.with_threads(3)


def _cores(*numbers, threads=1):
    fields = json.loads(choose_target("hetero:cpu@0").described[0])
    return json.dumps({**fields, "cores": list(numbers), "threads": threads})


@pytest.mark.parametrize(
    "change",
    [
        {"devices": ["cpu"]},
        {"described": ["{}", "{}"]},
        {"described": ["[]", "1"]},
        {"described": ['{"kind": "tpu", "index": 0, "backend": ""}'] * 2},
        {"threads": "2"},
        {"described": [_cores("0"), _cores(1)]},
        {"described": [_cores(0), _cores()]},
        {"described": [_cores(0), _cores(0, 1, threads=2)]},
        {"described": [_cores(0), _cores(1, 2)]},
    ],
)
def test_fields_that_describe_no_devices_are_refused(change):
    fields = described(choose_target("hetero:opencl:0,cpu"))
    with pytest.raises((ValueError, KeyError, TypeError)):
        described_target({**fields, **change})
