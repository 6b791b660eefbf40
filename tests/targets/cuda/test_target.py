"""Names of CUDA targets, and what they stand for."""

from __future__ import annotations

import pytest

from burnish.runtime import cuda as runtime
from burnish.targets.choose import choose_target
from burnish.targets.cuda import target as cuda
from burnish.targets.cuda.target import CudaTarget
from burnish.targets.target import CpuTarget


def test_a_name_without_architectures_takes_the_default_ones():
    found = choose_target("cuda")
    assert isinstance(found, CudaTarget)
    assert (found.name, found.arches) == ("cuda", cuda.DEFAULT_ARCHITECTURES)


def test_architectures_are_sorted_and_each_is_there_once():
    found = choose_target("cuda:sm_90,sm_80, sm_90")
    assert found.name == "cuda:sm_80,sm_90"
    assert found.arches == ("sm_80", "sm_90")
    assert found.capability == 80
    assert found.shared_memory == 163 * 1024


def test_its_tvm_target_is_of_the_oldest_architecture_with_a_host():
    found = choose_target("cuda:sm_90,sm_75").tvm()
    assert str(found.attrs["arch"]) == "sm_75"
    assert found.host.kind.name == "llvm"


def test_other_names_still_are_cpus():
    assert isinstance(choose_target("llvm -mcpu=x86-64-v3"), CpuTarget)
    target = CudaTarget()
    assert choose_target(target) is target


@pytest.mark.parametrize("name", ["cuda:sm_70", "cuda:90", "cuda:", "cuda:sm_90;x"])
def test_an_unknown_architecture_is_refused_with_the_known_ones(name):
    if name == "cuda:":
        assert choose_target(name).arches == cuda.DEFAULT_ARCHITECTURES
        return
    with pytest.raises(ValueError, match=r"no architecture .*; known: sm_75, sm_80"):
        choose_target(name)


def test_a_name_near_cuda_is_told_of_it():
    with pytest.raises(ValueError, match="did you mean 'cuda'"):
        choose_target("cudo")


def test_why_not_here_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(cuda, "device_capability", lambda: "no driver")
    assert CudaTarget().why_not_here() == "no driver"
    monkeypatch.setattr(cuda, "device_capability", lambda: 75)
    assert "is built for sm_80, sm_90, and this machine's GPU is an sm_75" in (
        CudaTarget().why_not_here()
    )
    monkeypatch.setattr(cuda, "device_capability", lambda: 90)
    assert CudaTarget().why_not_here() == ""


def test_sm_90a_is_built_for_alone():
    found = choose_target("cuda:sm_90a")
    assert (found.arches, found.capability, found.warp_groups) == (("sm_90a",), 90, True)
    assert not choose_target("cuda:sm_90").warp_groups
    for listed in ("sm_80,sm_90a", "sm_90a,sm_90"):
        with pytest.raises(ValueError, match="sm_90a is built for alone"):
            choose_target(f"cuda:{listed}")


@pytest.mark.parametrize(("here", "runs"), [(80, False), (90, True), (100, False)])
def test_what_is_built_for_sm_90a_runs_on_capability_9_0_only(monkeypatch, here, runs):
    monkeypatch.setattr(cuda, "device_capability", lambda: here)
    monkeypatch.setattr(runtime, "device_capability", lambda: here)
    expected = "" if runs else f"it is built for sm_90a, and this machine's GPU is an sm_{here}"
    assert choose_target("cuda:sm_90a").why_not_here() == expected
    assert runtime.why_no_gpu(["sm_90a"]) == expected
