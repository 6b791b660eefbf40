"""Damaged model files: each is read or refused by an error of ours, none ends or stops us.

The files are read in the process that the user's are read in (``importers/contained.py``), so a
crash of a parser is an outcome too; how many there are is printed.
"""

from __future__ import annotations

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
from fuzz_support import damaged, damaged_onnx, outcome
from onnx import TensorProto, helper, numpy_helper

from burnish.compiler.importers import import_model
from tensorflow_support import FIXTURES

MAKERS = {"bytes": damaged, "fields": damaged_onnx}
CASES = [("onnx", "bytes"), ("onnx", "fields"), ("tflite", "bytes")]


def seeds(kind: str) -> list[bytes]:
    if kind == "tflite":
        names = ("cnn", "cnn_int8", "lstm", "text")
        return [(FIXTURES / f"{name}.tflite").read_bytes() for name in names]
    return [network().SerializeToString(), branches().SerializeToString()]


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
        path = inner / f"m.{kind}"
        path.write_bytes(MAKERS[damage](rng.choice(originals), rng) or b"\0")
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
    _check(kind, damage, 25, 1, tmp_path)


@pytest.mark.heavy
@pytest.mark.parametrize(("kind", "damage"), CASES)
def test_many_damaged_files(kind: str, damage: str, tmp_path: Path) -> None:
    _check(kind, damage, 1000, 2, tmp_path)


def test_undamaged_seeds_are_read(tmp_path: Path) -> None:
    for kind in ("onnx", "tflite"):
        for number, content in enumerate(seeds(kind)):
            path = tmp_path / f"{number}.{kind}"
            path.write_bytes(content)
            import_model(path)
