"""precision="bf16" and "fp16": whole networks, the report, artifacts, errors."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_nets import Block, Classifier, Mlp, made

import burnish
from burnish.compiler import gate, pipeline
from burnish.compiler.config import CompileConfig
from burnish.compiler.errors import ConfigError, PassError
from burnish.compiler.gate import Variants
from burnish.compiler.measure.timing import summarize
from burnish.compiler.parity import parity
from burnish.compiler.precision import STORED, check_precision
from burnish.targets.cpu import dots
from burnish.targets.target import host, parse_target

GENERATOR = torch.Generator().manual_seed(3)
INPUTS = {
    Mlp: (torch.randn(7, 20, generator=GENERATOR),),
    Classifier: (torch.randn(2, 3, 17, 15, generator=GENERATOR),),
    Block: (torch.randint(0, 50, (2, 9), generator=GENERATOR), torch.ones(2, 9)),
}
needs_dots = pytest.mark.skipif(
    not dots.instructions_of(host()), reason="this CPU has no AVX512-BF16"
)
PRECISIONS = [pytest.param("bf16", marks=needs_dots), "fp16"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path))


@functools.cache
def in_fp32(kind):
    return burnish.compile(made(kind), INPUTS[kind], do_no_harm=False)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", INPUTS)
def test_a_network_stays_itself_and_keeps_its_names(kind, precision, tmp_path):
    model, inputs = made(kind), INPUTS[kind]
    compiled = burnish.compile(model, inputs, precision=precision, do_no_harm=False)
    with torch.no_grad():
        found = parity(compiled(*inputs), model(*inputs))
    assert found.cosine >= 0.999
    plain = in_fp32(kind)
    assert set(compiled.params) == set(plain.params)
    halved = {k for k, v in compiled.params.items() if str(v.dtype) == STORED[precision]}
    assert halved
    for name in compiled.params:
        mine, theirs = (c.params[name].numpy().nbytes for c in (compiled, plain))
        filled = 2 * mine <= theirs + 64 * mine // 20
        assert filled if name in halved else mine == theirs
    again = burnish.load(compiled.save(tmp_path / "m.burnish"))
    for name, value in compiled.params.items():
        stored = again.params[name]
        assert str(stored.dtype) == str(value.dtype)
        np.testing.assert_array_equal(stored.numpy(), value.numpy())
    assert parity(again(*inputs), compiled(*inputs)).exact == 1


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_report_says_what_was_bought(precision, short_timings):
    config = CompileConfig(precision=precision)
    optimized = burnish.optimize(burnish.import_model(made(Mlp), INPUTS[Mlp]), config=config)
    (row,) = [row for row in optimized.report.rows if row.phase == "precision"]
    assert row.name == "NarrowWeights"
    assert row.before.bytes - row.after.bytes == 2 * (20 * 32 + 32 * 5)
    assert row.after.error["cosine"] >= 0.999
    assert row.before.ms > 0
    assert row.after.ms > 0


def timed(monkeypatch, after: float) -> None:
    def timing(ms: float):
        return summarize([[ms * (1 + 0.001 * i) for i in range(5)] for _ in range(5)])

    monkeypatch.setattr(
        Variants, "time", lambda *_: {"before": timing(1.0), "after": timing(after)}
    )


def optimized(precision: str):
    return burnish.optimize(
        burnish.import_model(made(Mlp), INPUTS[Mlp]), config=CompileConfig(precision=precision)
    )


def row_of(result):
    return next(row for row in result.report.rows if row.phase == "precision")


def test_a_precision_that_is_slower_is_undone(monkeypatch):
    timed(monkeypatch, 1.5)
    row = row_of(optimized("fp16"))
    assert (row.status, row.note) == ("undone", "1.50 times as slow as without it")


def test_a_precision_that_costs_too_much_is_undone(monkeypatch):
    timed(monkeypatch, 0.5)
    assert row_of(optimized("fp16")).status == "applied"
    monkeypatch.setattr(gate, "COSINE_DROP", -1e-9)
    row = row_of(optimized("fp16"))
    assert row.status == "undone"
    assert row.note.startswith("cosine of the outputs fell to 1.0000")


def test_quantized_weights_stay_quantized():
    compiled = burnish.compile(
        made(Mlp),
        INPUTS[Mlp],
        precision="fp16",
        quantize={"include": ("0.weight",)},
        do_no_harm=False,
    )
    kinds = {name: str(value.dtype) for name, value in compiled.params.items()}
    assert kinds["0.weight"] == "uint8" or kinds["0.weight"] == "int8"
    assert kinds["2.weight"] == "float16"


def test_fp32_has_no_pass():
    phases = pipeline.graph_phases(host(), CompileConfig())
    assert next(phase for phase in phases if phase.name == "precision").passes == ()


@pytest.mark.parametrize(
    ("precision", "target", "message"),
    [
        (
            "bf16",
            "llvm -mcpu=x86-64-v3",
            'precision="bf16" needs a CPU with AVX512-BF16, which the target '
            r"'llvm -mcpu=x86-64-v3' \(x86-64-v3\) has not; precision=\"fp16\" halves the weights",
        ),
        (
            "fp16",
            "llvm -mcpu=x86-64",
            'precision="fp16" needs a CPU with F16C or NEON, which the target '
            r"'llvm -mcpu=x86-64' \(x86-64\) has not; quantize=\"int8\" makes weights smaller",
        ),
    ],
)
def test_a_target_that_cannot_is_an_error_with_a_remedy(precision, target, message):
    with pytest.raises(ConfigError, match=message):
        burnish.compile(made(Mlp), INPUTS[Mlp], target=target, precision=precision)


@pytest.mark.parametrize(
    ("precision", "target"),
    [
        ("bf16", "llvm -mcpu=znver4"),
        ("bf16", "llvm -mcpu=sapphirerapids"),
        ("fp16", "llvm -mcpu=x86-64-v3"),
        ("fp16", "llvm -mtriple=aarch64-linux-gnu"),
        ("fp32", "llvm -mcpu=x86-64"),
    ],
)
def test_a_target_that_can_is_none(precision, target):
    check_precision(precision, parse_target(target))


def test_an_unknown_precision_lists_the_known():
    with pytest.raises(
        ConfigError, match="precision 'int4' is unknown; known: fp32, tf32, bf16, fp16"
    ):
        CompileConfig(precision="int4")


def test_a_weight_out_of_range_is_named_with_its_pass():
    model = made(Mlp)
    with torch.no_grad():
        model[0].weight[1, 2] = 1e6
    with pytest.raises(PassError, match=r"weight '0.weight' .* holds 1e.06, which float16 cannot"):
        burnish.compile(model, INPUTS[Mlp], precision="fp16", do_no_harm=False)


def test_a_recipe_says_it():
    config = CompileConfig(precision="bf16")
    assert 'precision = "bf16"' in config.to_toml()
    assert CompileConfig.from_toml_text(config.to_toml()) == config
    assert replace(config, precision="fp32") == CompileConfig()
