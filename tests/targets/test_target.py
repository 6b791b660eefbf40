"""What a target is, and how it is said."""

from __future__ import annotations

import dataclasses
import re

import pytest
import tvm

from burnish.runtime import cores as cores_of
from burnish.targets import isa
from burnish.targets import target as targets
from burnish.targets.target import host, missing_features, parse_target

ARM = "-mtriple=aarch64-linux-gnu"


def test_cpu_is_this_machine():
    cpu = parse_target("cpu")
    assert cpu == host()
    assert cpu.threads == targets.host_threads() >= 1
    assert cpu.lanes in (4, 8, 16)
    assert cpu.registers in (16, 32)
    assert 8 * 1024 <= cpu.l1 <= cpu.l2 <= cpu.l3
    assert missing_features(cpu.isa()) == []
    assert cpu.why_not_here() == ""


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
        ("llvm -mcpu=skylake-avx512 -mattr=-avx512f", 8, 16),
        ("llvm -mcpu=x86-64-v4 -mattr=-avx", 4, 16),
        ("llvm -mcpu=x86-64-v2", 4, 16),
        ("llvm -mcpu=x86-64-v3", 8, 16),
        ("llvm -mcpu=x86-64-v4", 16, 32),
        ("llvm -keys=cpu -mcpu=haswell", 8, 16),
        (f"llvm {ARM} -mcpu=neoverse-v1", 4, 32),  # has SVE, whose width is unknown
        ("llvm -mtriple=arm64-apple-macos -mcpu=apple-m1", 4, 32),
        ('{"kind": "llvm", "mcpu": "haswell", "mattr": ["+avx512f"]}', 16, 32),
    ],
)
def test_vectors_follow_from_the_features(text, lanes, registers):
    cpu = parse_target(text)
    assert (cpu.name, cpu.lanes, cpu.registers) == (text, lanes, registers)
    assert cpu.tvm().kind.name == "llvm"
    assert int(cpu.tvm().attrs["num-cores"]) == cpu.threads == targets.host_threads()


def test_a_plain_llvm_target_is_this_machine():
    cpu = parse_target("llvm -num-cores=3")
    assert cpu == dataclasses.replace(host(), name="llvm -num-cores=3", threads=3)
    assert parse_target("llvm -mcpu=native") == dataclasses.replace(
        host(), name="llvm -mcpu=native"
    )


def test_what_tvm_prints_is_read():
    spec = {"kind": "llvm", "mcpu": "haswell", "mattr": ["-avx2", "+f16c"], "num-cores": 3}
    cpu = parse_target(str(tvm.target.Target(spec)))
    assert (cpu.mcpu, cpu.mattr, cpu.threads) == ("haswell", ("-avx2", "+f16c"), 3)


def test_a_named_cpu_has_nothing_of_this_machine(monkeypatch):
    named = {
        text: parse_target(text)
        for text in ("llvm -mcpu=znver4", f"llvm {ARM} -mcpu=cortex-a76", f"llvm {ARM}")
    }

    def no_host():
        raise AssertionError("asked for this machine's CPU")

    monkeypatch.setattr(targets, "host", no_host)
    monkeypatch.setattr(targets, "_host_caches", no_host)
    for text, before in named.items():
        assert parse_target(text) == before
        assert before.isa()
        assert 8 * 1024 <= before.l1 <= before.l2 <= before.l3


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
        ("llvm -vector-width=8", "cannot read '-vector-width=8'"),
        ("llvm -num-cores=0", "num-cores must be a positive number, got '0'"),
        ("llvm -num-cores=two", "num-cores must be a positive number, got 'two'"),
        ("llvm -mcpu=i-made-this-up", "LLVM knows no CPU 'i-made-this-up'"),
        (
            "llvm -mcpu=haswell -mtriple=aarch64-linux-gnu",
            "LLVM knows no CPU 'haswell' of aarch64; it is of x86_64: -mtriple=x86_64-linux-gnu",
        ),
        ("llvm -mtriple=riscv64-linux-gnu", "no schedule rules for riscv64; known: x86_64, aarch"),
        ("llvm -mcpu=haswell -mattr=+avx9000", "-mattr takes +FEATURE or -FEATURE by LLVM's names"),
        ("llvm -mcpu=haswell -mattr=avx2", "names for x86_64, got 'avx2'"),
        (f"llvm -mcpu=haswell {ARM} -mattr=+avx2", "LLVM knows no CPU 'haswell'"),
        ("llvm -mcpu=native -mtriple=wasm32-linux", "-mcpu=native is this machine, the triple is"),
        ('{"kind": "cuda"}', "is of kind 'cuda'; known: cpu; llvm"),
        ('{"kind": "llvm", "opt-level": 1}', "cannot read 'opt-level'; known: cpu; llvm"),
        ('{"kind"', "is no JSON object"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_known_targets(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_target(text)


def test_only_instruction_sets_can_be_missing():
    needed = (*host().isa(), "avx-9000", "sve9", "sse-unaligned-mem", "avx512vp2intersect", "aes")
    assert missing_features(needed) == ["avx-9000", "sve9"]


def test_what_no_kernel_uses_is_no_instruction_set():
    some = {
        "vaes",
        "sha",
        "amx-int8",
        "prefer-256-bit",
        "fast-gather",
        "xsave",
        "a76",
        "lse",
        "v8a",
    }
    assert isa.instruction_sets(some) == ()
    assert "avx512f" in parse_target("llvm -mcpu=znver5").isa()
    assert {"neon", "dotprod"} <= set(parse_target(f"llvm {ARM} -mcpu=cortex-a76").isa())


def test_a_target_elsewhere_says_why(monkeypatch):
    assert parse_target("llvm -mcpu=x86-64").why_not_here() == ""
    arm = parse_target(f"llvm {ARM}").why_not_here()
    assert arm == "it is for aarch64, and this machine is x86_64"
    monkeypatch.setattr(targets, "host", lambda: parse_target("llvm -mcpu=haswell"))
    why = parse_target("llvm -mcpu=x86-64-v4").why_not_here()
    assert why.startswith("it needs avx512bw, ")
    assert why.endswith("which this CPU has not")


def test_what_a_hypervisor_hides_is_not_used():
    """LLVM knows a CPU by its model: the kernel's flags say what is left of it."""
    features = parse_target("llvm -mcpu=znver5").features()
    flags = {isa.FLAGS["x86_64"][f] for f in features if f in isa.FLAGS["x86_64"]}
    assert isa.corrections(features, frozenset(flags), known=True) == ()
    less = frozenset(flag for flag in flags if not flag.startswith("avx512"))
    hidden = isa.corrections(features, less, known=True)
    assert "-avx512f" in hidden
    assert parse_target(f"llvm -mcpu=znver5 -mattr={','.join(hidden)}").lanes == 8
    assert isa.corrections(features, frozenset(), known=True) == ()


def test_a_cpu_that_llvm_does_not_know_is_known_by_its_flags():
    features = parse_target("llvm -mcpu=x86-64").features()
    flags = frozenset({"sse2", "pni", "ssse3", "sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c"})
    found = isa.corrections(features, flags, known=False)
    assert {"+avx2", "+fma"} <= set(found)
    assert parse_target(f"llvm -mcpu=x86-64 -mattr={','.join(found)}").lanes == 8


def test_caches_fall_back_to_those_of_the_name(monkeypatch):
    targets._host.cache_clear()
    monkeypatch.setattr(targets, "_host_caches", lambda: (0, 0, 0))
    cpu = host()
    targets._host.cache_clear()
    assert (cpu.l1, cpu.l2, cpu.l3) == isa.caches(cpu.mcpu)


@pytest.mark.parametrize(
    ("mcpu", "l1", "l2"),
    [
        *(("znver5", 48, 1024), ("znver2", 32, 512), ("haswell", 32, 256), ("x86-64-v3", 32, 256)),
        *(("cortex-a76", 64, 256), ("neoverse-n1", 64, 1024), ("unheard-of", 32, 256)),
    ],
)
def test_caches_are_known_by_name(mcpu, l1, l2):
    assert isa.caches(mcpu)[:2] == (l1 * 1024, l2 * 1024)


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
    monkeypatch.setattr(cores_of.os, "sched_getaffinity", lambda _pid: set(range(64)))
    monkeypatch.setattr(cores_of, "QUOTA", tmp_path / "cpu.max")
    assert targets.usable_cores() == 64
    (tmp_path / "cpu.max").write_text(quota)
    assert targets.usable_cores() == cores


def test_memory_is_counted_in_bytes():
    assert 2**20 < targets.available_memory() < 2**50
