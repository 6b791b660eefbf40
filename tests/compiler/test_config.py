"""CompileConfig: shorthands, checks and TOML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st

from burnish.compiler import pipeline, registry
from burnish.compiler.config import PRECISIONS, CompileConfig, ExtraPass, TuneConfig
from burnish.compiler.driver import target_for
from burnish.compiler.errors import ConfigError
from burnish.passes.configs import PruneConfig, QuantizeConfig
from burnish.targets.target import parse_target

names = st.from_regex(registry.NAME, fullmatch=True)
globs = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), max_size=3)
fractions = st.floats(0, 1)


@st.composite
def prunes(draw: st.DrawFn) -> PruneConfig:
    by: dict[str, Any] = (
        {"sparsity": draw(fractions)}
        if draw(st.booleans())
        else {"threshold": draw(st.floats(0, 1e6))}
    )
    return PruneConfig(
        **by,
        scope=draw(st.sampled_from(("tensor", "model"))),
        include=tuple(draw(globs)),
        exclude=tuple(draw(globs)),
    )


@st.composite
def quantizes(draw: st.DrawFn) -> QuantizeConfig:
    granularity = draw(st.sampled_from(("tensor", "channel", "group")))
    return QuantizeConfig(
        bits=draw(st.integers(2, 8)),
        granularity=granularity,
        group_size=draw(st.integers(1, 4096)) if granularity == "group" else None,
        symmetric=draw(st.booleans()),
        include=tuple(draw(globs)),
        max_drop=draw(st.none() | fractions),
    )


tunes = st.builds(
    TuneConfig,
    trials=st.integers(1, 10**6),
    work_dir=st.none() | st.sampled_from((Path("db"), Path("/tmp/a b"), Path("x/é"))),
    seed=st.integers(0, 2**31),
)
configs = st.builds(
    CompileConfig,
    prune=st.none() | prunes(),
    quantize=st.none() | quantizes(),
    tune=st.none() | tunes,
    threads=st.none() | st.integers(1, 512),
    opt_level=st.integers(0, 3),
    passes=st.lists(
        st.builds(ExtraPass, names, st.none() | st.sampled_from(registry.PHASES)), max_size=3
    ).map(tuple),
    calibration=st.none() | names,
    evaluate=st.none() | names,
    do_no_harm=st.booleans(),
    fold_onnx=st.booleans(),
    exact_conv=st.booleans(),
    cuda_graphs=st.booleans(),
    libraries=st.sampled_from(
        [(), ("cublas",), ("auto",), ("cublas", "tensorrt"), ("cublas:float32 1x2x3 nn",)]
    ),
    precision=st.sampled_from(PRECISIONS),
    devices=st.sampled_from([(), ("opencl:0", "cpu")]),
    placement=st.dictionaries(st.sampled_from(["*", "nn.relu"]), st.sampled_from(["auto", "cpu"])),
    memory=st.dictionaries(st.sampled_from(["cpu", "opencl:0"]), st.integers(1, 2**40)),
)


@pytest.fixture
def empty_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in (registry.passes, registry.evaluators, registry.calibrations):
        monkeypatch.setattr(table, "_known", {})


@given(configs)
def test_toml_round_trip(config: CompileConfig) -> None:
    assert CompileConfig.from_toml_text(config.to_toml()) == config


def test_toml_file_round_trip(tmp_path: Path) -> None:
    config = CompileConfig(prune=0.5, quantize="w4g32", tune=8, threads=2)  # type: ignore[arg-type]
    config.save_toml(tmp_path / "recipe.toml")
    assert CompileConfig.from_toml(tmp_path / "recipe.toml") == config


def test_toml_takes_the_shorthands() -> None:
    text = 'schema = 1\nprune = 0.25\nquantize = "int8"\ntune = 16\npasses = ["mine"]\n'
    assert CompileConfig.from_toml_text(text) == CompileConfig(
        prune=PruneConfig(sparsity=0.25),
        quantize=QuantizeConfig(bits=8),
        tune=TuneConfig(trials=16),
        passes=(ExtraPass("mine"),),
    )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("int8", QuantizeConfig(bits=8)),
        ("int4", QuantizeConfig(bits=4)),
        ("w2", QuantizeConfig(bits=2)),
        ("w4g32", QuantizeConfig(bits=4, granularity="group", group_size=32)),
        (
            "int4g64-asym",
            QuantizeConfig(bits=4, granularity="group", group_size=64, symmetric=False),
        ),
        ({"bits": 3}, QuantizeConfig(bits=3)),
    ],
)
def test_quantize_codes(code: Any, expected: QuantizeConfig) -> None:
    assert CompileConfig().overridden(quantize=code).quantize == expected


def test_overridden_leaves_the_original_alone() -> None:
    config = CompileConfig(threads=2)
    changed = config.overridden(prune=0.5, tune=4)
    assert changed.prune == PruneConfig(sparsity=0.5)
    assert changed.tune == TuneConfig(trials=4)
    assert changed.threads == 2
    assert config == CompileConfig(threads=2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"precision": "fp17"}, "precision 'fp17' is unknown; known: fp32"),
        ({"threads": 0}, "threads must be a whole number of 1 or more, got 0"),
        ({"threads": True}, "threads must be a whole number"),
        ({"opt_level": 4}, "opt_level must be one of 0, 1, 2, 3, got 4"),
        ({"do_no_harm": "yes"}, "do_no_harm must be true or false"),
        ({"exact_conv": 1}, "exact_conv must be true or false"),
        ({"cuda_graphs": 1}, "cuda_graphs must be true or false"),
        ({"prune": 1.5}, "sparsity must be from 0 to 1, got 1.5"),
        ({"prune": True}, "prune must be a sparsity"),
        ({"prune": {"sparsty": 0.5}}, r"unknown setting of prune 'sparsty' \(near: sparsity\)"),
        ({"prune": {"sparsity": "half"}}, "prune has the wrong type: sparsity = 'half'"),
        ({"quantize": "int9"}, "quantize 'int9' is unknown; known: int2 to int8"),
        ({"quantize": {"bits": 1}}, "bits must be a whole number from 2 to 8, got 1"),
        ({"tune": 0}, "trials must be a whole number of 1 or more, got 0"),
        ({"tune": "long"}, "tune must be a number of trials"),
        ({"quantise": "int8"}, r"unknown setting 'quantise' \(near: quantize\)"),
        ({"evaluate": 3}, "evaluate must be a function or a name"),
        ({"evaluate": "my.module:score"}, "looks like an import path"),
        ({"calibration": 3}, "calibration must be a sequence"),
        ({"passes": ["a", ("b", "cleen")]}, "phase 'cleen' is unknown; known: import, clean"),
        ({"passes": [("a", "b", "c")]}, "an extra pass is a pair"),
        ({"passes": [print]}, "the extra pass print needs a phase"),
        ({"passes": [7]}, "an extra pass must be a name or a pass, got 7"),
        ({"passes": 7}, "passes must be a list, got int"),
    ],
)
def test_bad_settings_say_what_is_known(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CompileConfig().overridden(**fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("threads = ", "not TOML"),
        ("threads = 2", "it says no schema; this version reads schema = 1"),
        ("schema = 99", "it says schema 99"),
        ("schema = 1\nthread = 2", r"unknown setting 'thread' \(near: threads\)"),
        ("schema = 1\n[quantize]\nbit = 8", r"unknown setting of quantize 'bit' \(near: bits\)"),
        ('schema = 1\nevaluate = "pkg.mod:fn"', "looks like an import path"),
        ('schema = 1\npasses = ["pkg/mod.py"]', "looks like an import path"),
        ("schema = 1\nevaluate = 3", "evaluate must be a registered name"),
        ('schema = 1\ncalibration = ["a"]', "calibration must be a registered name"),
        ('schema = 1\npasses = "mine"', "passes must be a list of tables"),
        ("schema = 1\npasses = [{ phase = 'clean' }]", "a pass is { name"),
        (
            "schema = 1\npasses = [{ name = 'a', phse = 'clean' }]",
            r"unknown setting of a pass 'phse' \(near: phase\)",
        ),
    ],
)
def test_bad_recipes_say_what_is_known(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CompileConfig.from_toml_text(text)


def test_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recipe file .*none\.toml"):
        CompileConfig.from_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("schema = 1\ntune = 0\n")
    with pytest.raises(ConfigError, match=r"recipe .*bad\.toml: trials must be"):
        CompileConfig.from_toml(tmp_path / "bad.toml")


def test_toml_refuses_what_has_no_name_or_notes_it() -> None:
    config = CompileConfig(evaluate=lambda model: 0.0, calibration=[(1,)], threads=2)
    with pytest.raises(ConfigError, match="cannot say calibration, evaluate given in code"):
        config.to_toml()
    text = config.to_toml(drop_unnamed=True)
    assert "# left out, given in code without a name: evaluate" in text
    assert CompileConfig.from_toml_text(text) == CompileConfig(threads=2)


@tvm.transform.module_pass(opt_level=0, name="Nothing")
def _nothing(mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
    return mod


@pytest.mark.usefixtures("empty_registry")
def test_extra_passes_run_at_their_phase() -> None:
    registry.register_pass("nothing", lambda: _nothing, phase="prune")
    config = CompileConfig(passes=("nothing", ("nothing", "clean"), (_nothing, "fuse")))  # type: ignore[arg-type]
    config.check_registered()
    found = {phase: config.extra_passes(phase) for phase in registry.PHASES}
    assert {phase: [p.info.name for p in made] for phase, made in found.items() if made} == {
        "clean": ["Nothing"],
        "prune": ["Nothing"],
        "fuse": ["Nothing"],
    }


@pytest.mark.usefixtures("empty_registry")
def test_names_are_looked_up_with_near_names() -> None:
    registry.register_evaluator("top1", lambda model: 1.0)
    registry.register_calibration("pictures", [(0,)])
    config = CompileConfig(evaluate="top1", calibration="pictures")
    config.check_registered()
    evaluator = config.evaluator()
    assert evaluator is not None
    assert evaluator(print) == 1.0
    assert config.calibration_data() == [(0,)]
    with pytest.raises(ConfigError, match=r"no evaluation is registered as 'top5' \(near: top1\)"):
        CompileConfig(evaluate="top5").check_registered()
    with pytest.raises(ConfigError, match=r"no pass is registered as 'fold' \(none is known\)"):
        CompileConfig(passes="fold").check_registered()  # type: ignore[arg-type]


@pytest.mark.usefixtures("empty_registry")
def test_registration_refuses_what_it_cannot_use() -> None:
    registry.register_evaluator("score", lambda model: 1.0)
    with pytest.raises(ConfigError, match="'score' is registered already; pass replace=True"):
        registry.register_evaluator("score", lambda model: 2.0)
    registry.register_evaluator("score", lambda model: 2.0, replace=True)
    with pytest.raises(ConfigError, match="phase 'early' is unknown; known: import"):
        registry.register_pass("p", _nothing, phase="early")
    with pytest.raises(ConfigError, match="pass '1p' is no name"):
        registry.register_pass("1p", _nothing)
    with pytest.raises(ConfigError, match="must be a TVM pass or make one, got int"):
        registry.register_pass("p", 3)
    with pytest.raises(ConfigError, match="evaluation 'e' must be callable"):
        registry.register_evaluator("e", 3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must be a sequence of input tuples, got str"):
        registry.register_calibration("c", "x")  # type: ignore[arg-type]
    registry.register_pass("wrong", lambda: 3)
    with pytest.raises(ConfigError, match="pass 'wrong' must be a TVM pass or make one, got int"):
        CompileConfig(passes="wrong").extra_passes("clean")  # type: ignore[arg-type]


def test_the_pipeline_has_the_phases_that_passes_may_name() -> None:
    phases = pipeline.graph_phases(parse_target("cpu"), CompileConfig())
    assert tuple(phase.name for phase in phases) == registry.PHASES


def test_a_table_of_devices_is_the_target():
    text = 'schema = 1\n\n[devices]\n"cpu:1" = { memory = "2 kB" }\ncpu = {}\n'
    config = CompileConfig.from_toml_text(text)
    assert config.devices == ("cpu:1", "cpu")
    assert config.memory == {"cpu:1": 2000}
    assert CompileConfig.from_toml_text(config.to_toml()) == config
    target = target_for("cpu", config)
    assert target.name == "hetero:cpu:1,cpu"
    assert target_for(target, config) == target_for(target.name, config) == target
    listed = CompileConfig.from_toml_text('schema = 1\ndevices = ["cpu:1", "cpu"]\n')
    assert (listed.devices, dict(listed.memory)) == (config.devices, {})
    with pytest.raises(ConfigError, match="devices are cpu:1, cpu, and the target is 'opencl'"):
        target_for("opencl", config)


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ('devices = "cpu"', "devices must be names"),
        ("devices = [1]", "devices must be names"),
        ("[devices]\ncpu = 3", "of the device 'cpu', memory can be said"),
        ("[devices.cpu]\nspeed = 3", "of the device 'cpu', memory can be said"),
        ('[devices.cpu]\nmemory = "much"', "memory of 'cpu' must be bytes"),
    ],
)
def test_devices_of_another_form_are_refused(devices, message):
    with pytest.raises(ConfigError, match=message):
        CompileConfig.from_toml_text(f"schema = 1\n{devices}\n")
