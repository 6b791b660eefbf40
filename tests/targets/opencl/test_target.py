"""Names of OpenCL targets, and what they stand for."""

from __future__ import annotations

import pytest

from burnish.targets.choose import choose_target
from burnish.targets.opencl.target import PRESETS, OpenclTarget
from burnish.targets.target import KNOWN_TARGETS, host_threads

KIB = 1024


@pytest.mark.parametrize(
    ("name", "work_group", "local_memory", "half", "vector"),
    [
        ("opencl", 256, 32 * KIB, False, 1),
        ("opencl:adreno", 1024, 32 * KIB, True, 4),
        ("opencl:mali", 256, 32 * KIB, True, 4),
        ("opencl:intel", 256, 64 * KIB, True, 4),
        ("opencl:amd", 256, 64 * KIB, True, 4),
        ("opencl:nvidia", 1024, 48 * KIB, False, 4),
        ("opencl:cpu", 256, 32 * KIB, False, 16),
    ],
)
def test_a_name_stands_for_the_limits_of_a_device(name, work_group, local_memory, half, vector):
    found = choose_target(name)
    assert isinstance(found, OpenclTarget)
    assert (found.name, found.work_group, found.local_memory) == (name, work_group, local_memory)
    assert (found.half, found.vector) == (half, vector)
    assert found.threads == host_threads()
    attrs = found.tvm().attrs
    assert int(attrs["max_threads_per_block"]) == work_group
    assert int(attrs["max_shared_memory_per_block"]) == local_memory
    assert int(attrs["thread_warp_size"]) == 1
    assert found.tvm().host.kind.name == "llvm"


def test_every_device_is_listed_in_the_help():
    (listed,) = (known for known in KNOWN_TARGETS if known.startswith("opencl"))
    assert listed == f"opencl[:{'|'.join(device for device in PRESETS if device)}]"


def test_tvms_rules_know_the_devices_that_they_have_settings_for():
    keys = {name: set(preset.tvm().keys) for name, preset in PRESETS.items()}
    assert {"adreno", "gpu"} <= keys["adreno"]
    assert {"mali", "gpu"} <= keys["mali"]
    assert keys[""] == keys["amd"] == {"opencl", "gpu"}


def test_a_device_near_a_known_one_is_told_of_it():
    with pytest.raises(ValueError, match=r"did you mean opencl:adreno\?\); known: adreno, mali"):
        choose_target("opencl:adrano")
    with pytest.raises(ValueError, match=r"no OpenCL device '7'; known: .* or plain 'opencl'"):
        choose_target("opencl:7")
    with pytest.raises(ValueError, match="did you mean 'opencl'"):
        choose_target("open_cl")


def test_a_target_stays_itself_with_other_threads():
    target = choose_target("opencl:amd")
    assert choose_target(target) is target
    assert target.with_threads(None) is target
    assert target.with_threads(7).threads == target.with_threads(7).host.threads == 7
