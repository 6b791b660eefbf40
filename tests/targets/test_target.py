"""What a target is, and how it is said."""

from __future__ import annotations

import dataclasses
import re

import pytest

from burnish.targets import target as targets
from burnish.targets.target import CpuTarget, host, missing_features, parse_target


def test_cpu_is_this_machine():
    cpu = parse_target("cpu")
    assert cpu == host()
    assert cpu.threads == targets.host_threads() >= 1
    assert cpu.lanes in (4, 8, 16)
    assert cpu.registers in (16, 32)
    assert 8 * 1024 <= cpu.l1 <= cpu.l2 <= cpu.l3
    assert missing_features(cpu.isa()) == []


def test_a_target_is_a_frozen_value():
    assert parse_target(host()) is host()
    assert host().with_threads(None) is host()
    assert host().with_threads(3) == dataclasses.replace(host(), threads=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        host().threads = 2


@pytest.mark.parametrize(
    ("text", "lanes", "registers"),
    [
        ("llvm -mcpu=haswell", 8, 16),
        ("llvm -mcpu=skylake-avx512", 16, 32),
        ("llvm -mcpu=nehalem", 4, 16),
        ("llvm -mcpu=cortex-a76 -mtriple=aarch64-linux-gnu", 4, 32),
        ("llvm -mtriple=aarch64-linux-gnu", 4, 32),
        ("llvm --mcpu=nehalem --mattr=+avx,+avx2", 8, 16),
    ],
)
def test_vectors_follow_from_the_features(text, lanes, registers):
    cpu = parse_target(text)
    assert (cpu.name, cpu.lanes, cpu.registers) == (text, lanes, registers)
    assert cpu.tvm().kind.name == "llvm"
    assert int(cpu.tvm().attrs["num-cores"]) == cpu.threads == targets.host_threads()


def test_a_plain_llvm_target_takes_the_cpu_of_this_machine():
    cpu = parse_target("llvm -num-cores=3")
    assert (cpu.mcpu, cpu.threads, cpu.lanes) == (host().mcpu, 3, host().lanes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu", "unknown target 'gpu' (did you mean 'cpu'?); known: cpu; llvm [-mcpu=NAME]"),
        ("tpu-v9", "unknown target 'tpu-v9'; known: cpu; llvm"),
        ("", "unknown target ''; known: cpu; llvm"),
        ("   ", "unknown target '   '; known: cpu; llvm"),
        ("cpu -mcpu=haswell", "unknown target 'cpu -mcpu=haswell'"),
        ("llvm -mcpu", "target 'llvm -mcpu': cannot read '-mcpu'; known: cpu; llvm"),
        ("llvm -mcpu haswell", "cannot read '-mcpu'"),
        ("llvm -keys=cpu", "cannot read '-keys=cpu'"),
        ("llvm -num-cores=0", "num-cores must be a positive number, got '0'"),
        ("llvm -num-cores=two", "num-cores must be a positive number, got 'two'"),
        ("llvm -mcpu=i-made-this-up", "LLVM knows no CPU 'i-made-this-up'"),
        ("llvm -mcpu=haswell -mtriple=aarch64-linux-gnu", "LLVM knows no CPU 'haswell'"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_known_targets(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_target(text)


def test_only_instruction_sets_can_be_missing():
    have = host().isa()
    assert missing_features((*have, "avx-9000", "sve9", "tuning-for-speed")) == ["avx-9000", "sve9"]


def test_caches_fall_back_where_the_kernel_reports_none(monkeypatch):
    targets._host.cache_clear()
    monkeypatch.setattr(targets, "_host_caches", lambda: (0, 0, 0))
    cpu = host()
    targets._host.cache_clear()
    assert (cpu.l1, cpu.l2, cpu.l3) == (CpuTarget.l1, CpuTarget.l2, CpuTarget.l3)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 64),
        ("150000 100000", 2),
        ("1000 100000", 1),
        ("9900000 100000", 64),
        ("", 64),
    ],
)
def test_a_quota_of_processor_time_counts_as_cores(monkeypatch, tmp_path, quota, cores):
    monkeypatch.setattr(targets.os, "sched_getaffinity", lambda _pid: set(range(64)))
    monkeypatch.setattr(targets, "_QUOTA", tmp_path / "cpu.max")
    assert targets.usable_cores() == 64
    (tmp_path / "cpu.max").write_text(quota)
    assert targets.usable_cores() == cores


def test_memory_is_counted_in_bytes():
    assert 2**20 < targets.available_memory() < 2**50
