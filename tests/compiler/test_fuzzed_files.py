"""Damaged model files: each is read or refused by an error of ours, none ends or stops us.

The files are read in the process that the user's are read in (``importers/contained.py``), so a
crash of a parser is an outcome too; how many there are is printed.
"""

from __future__ import annotations

import functools
import lzma
import multiprocessing
import os
import random
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from fuzz_support import damaged, damaged_onnx, damaged_relay, outcome
from onnx import TensorProto, helper, numpy_helper

from burnish.compiler.importers import import_model
from support import ROOT
from tensorflow_support import FIXTURES

MAKERS = {"bytes": damaged, "fields": damaged_onnx, "nodes": damaged_relay}
RELAY = ROOT / "tests" / "compiler" / "relay" / "networks"
CASES = [
    ("onnx", "bytes"),
    ("onnx", "fields"),
    ("tflite", "bytes"),
    ("json", "bytes"),
    ("json", "nodes"),
    ("relay", "bytes"),
]
Seed = tuple[bytes, bytes | None]


@functools.cache
def seeds(kind: str) -> list[Seed]:
    """Small models of a kind, each with its parameter file where it has one."""
    if kind == "tflite":
        names = ("cnn", "cnn_int8", "lstm", "text")
        return [((FIXTURES / f"{name}.tflite").read_bytes(), None) for name in names]
    if kind == "onnx":
        models = (network(), branches(), recurrent())
        return [(model.SerializeToString(), None) for model in models]
    return [
        (
            lzma.decompress((RELAY / f"{name}.{kind}.xz").read_bytes()),
            (RELAY / f"{name}.params").read_bytes(),
        )
        for name in ("cnn", "control", "gru")
    ]


def _tensor(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def network() -> onnx.ModelProto:
    """Convolution, pooling, sizes computed from the input, a reduction, a table."""
    node = helper.make_node
    return _model(
        [
            node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
            node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Shape", ["p"], ["s"]),
            node("Gather", ["s", "zero"], ["rows"]),
            node("Concat", ["rows", "rest"], ["target"], axis=0),
            node("Reshape", ["p", "target"], ["flat"]),
            node("Gemm", ["flat", "head", "b"], ["h"], transB=1),
            node("Softmax", ["h"], ["soft"], axis=-1),
            node("TopK", ["soft", "two"], ["y", "at"]),
            node("Gather", ["table", "at"], ["rows2"]),
            node("ReduceMean", ["rows2", "rest"], ["z"], keepdims=0),
        ],
        {"x": (TensorProto.FLOAT, [2, 3, 8, 8])},
        {"y": TensorProto.FLOAT, "z": TensorProto.FLOAT},
        {
            "w": _tensor(4, 3, 3, 3),
            "b": _tensor(4),
            "zero": np.array([0]),
            "rest": np.array([-1]),
            "head": _tensor(4, 16),
            "two": np.array([2]),
            "table": _tensor(4, 3),
        },
    )


def branches() -> onnx.ModelProto:
    """If and a slice."""
    graphs = [
        helper.make_graph(
            [helper.make_node(op, ["x"], [f"{op}_out"])],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, [4, 6])],
        )
        for op in ("Relu", "Neg")
    ]
    node = helper.make_node
    return _model(
        [
            node("If", ["flag"], ["c"], then_branch=graphs[0], else_branch=graphs[1]),
            node("Slice", ["c", "start", "end", "axes"], ["part"]),
            node("Transpose", ["part"], ["t"], perm=[1, 0]),
            node("MatMul", ["part", "t"], ["y"]),
        ],
        {"x": (TensorProto.FLOAT, [4, 6]), "flag": (TensorProto.BOOL, [])},
        {"y": TensorProto.FLOAT},
        {"start": np.array([1]), "end": np.array([5]), "axes": np.array([1])},
    )


def recurrent() -> onnx.ModelProto:
    """An LSTM, a loop, and a quantized product."""
    node = helper.make_node
    body = helper.make_graph(
        [
            node("Identity", ["going"], ["go"]),
            node("Mul", ["state", "half"], ["next"]),
            node("Identity", ["next"], ["each"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [2, 4]),
        ],
        [
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [2, 4]),
            helper.make_tensor_value_info("each", TensorProto.FLOAT, [2, 4]),
        ],
        [numpy_helper.from_array(np.float32(0.5), "half")],
    )
    return _model(
        [
            node("LSTM", ["x", "w", "r"], ["", "last"], hidden_size=4),
            node("Squeeze", ["last", "zero"], ["flat"]),
            node("Loop", ["trips", "", "flat"], ["final", "all"], body=body),
            node("QuantizeLinear", ["final", "scale", "point"], ["q"]),
            node("MatMulInteger", ["q", "table", "point"], ["m"]),
            node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
        ],
        {"x": (TensorProto.FLOAT, [3, 2, 5])},
        {"y": TensorProto.FLOAT, "all": TensorProto.FLOAT},
        {
            "w": _tensor(1, 16, 5),
            "r": _tensor(1, 16, 4),
            "zero": np.array([0]),
            "trips": np.array(3),
            "scale": np.array(0.1, np.float32),
            "point": np.array(128, np.uint8),
            "table": np.arange(12, dtype=np.uint8).reshape(4, 3),
        },
    )


def _model(nodes: list, inputs: dict, outputs: dict, weights: dict) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, *spec) for n, spec in inputs.items()],
        [helper.make_tensor_value_info(n, kind, None) for n, kind in outputs.items()],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _watch(event: str, arguments: tuple) -> None:
    """An audit hook, which children inherit: marks that a file outside the folder was opened."""
    seen = os.environ.get("BURNISH_FUZZ_SEEN")
    if event == "open" and seen and isinstance(arguments[0], str):
        name = os.path.realpath(arguments[0])
        if name.endswith("/secret") or name == "/etc/passwd":
            Path(seen).touch()


def _try(job: tuple[str, str, int, int, Path]) -> Counter[str]:
    """Outcomes of the cases ``first`` to ``last``; each is told by its number alone."""
    kind, damage, first, last, folder = job
    found: Counter[str] = Counter()
    originals = seeds(kind)
    inner = folder / f"{kind}-{damage}-{first}"
    inner.mkdir()
    warnings.simplefilter("ignore")
    for number in range(first, last):
        rng = random.Random(f"{kind} {damage} {number}")
        content, params = rng.choice(originals)
        if params is not None:
            spoilt = damage == "bytes" and rng.random() < 0.2
            (inner / "m.params").write_bytes(damaged(params, rng) if spoilt else params)
        path = inner / f"m.{kind}"
        path.write_bytes(MAKERS[damage](content, rng) or b"\0")
        try:
            found[outcome(path)] += 1
        except BaseException as error:  # noqa: BLE001 - what is looked for
            found[f"case {number}: {type(error).__name__}: {error}"] += 1
    return found


def _check(kind: str, damage: str, count: int, processes: int, folder: Path) -> None:
    (folder / "secret").touch()
    seen = folder / "seen"
    seen.unlink(missing_ok=True)
    step = -(-count // processes)
    jobs = [
        (kind, damage, first, min(first + step, count), folder) for first in range(0, count, step)
    ]
    if processes == 1:
        found = _try(jobs[0])
    else:
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            found = sum(pool.map(_try, jobs), Counter())
    print(f"{kind} {damage}: {dict(found.most_common(8))}")
    strange = [name for name in found if name.startswith("case")]
    assert not strange, strange
    assert sum(found.values()) == count
    assert found["refused"] > 0
    assert not seen.exists(), "a file outside the model's folder was read"


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BURNISH_IMPORT_SECONDS", "20")
    monkeypatch.setenv("BURNISH_IMPORT_GIB", "1")
    monkeypatch.setenv("BURNISH_FUZZ_SEEN", str(tmp_path / "seen"))


@pytest.fixture(autouse=True, scope="module")
def watch() -> None:
    """A hook stays for the life of the process; it does nothing without the variable."""
    sys.addaudithook(_watch)


@pytest.mark.parametrize(("kind", "damage"), CASES)
def test_some_damaged_files(kind: str, damage: str, tmp_path: Path) -> None:
    _check(kind, damage, 15, 1, tmp_path)


@pytest.mark.heavy
@pytest.mark.parametrize(("kind", "damage"), CASES)
def test_many_damaged_files(kind: str, damage: str, tmp_path: Path) -> None:
    _check(kind, damage, 700, 2, tmp_path)


def test_undamaged_seeds_are_read(tmp_path: Path) -> None:
    for kind in dict.fromkeys(kind for kind, _ in CASES):
        for number, (content, params) in enumerate(seeds(kind)):
            path = tmp_path / f"{number}.{kind}"
            path.write_bytes(content)
            if params is not None:
                path.with_suffix(".params").write_bytes(params)
            import_model(path)
