"""The suite's cases as files of their own, so that a worker reads only what it runs."""

from __future__ import annotations

import os
import pickle
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted")
COUNT = 2024
"""Cases of onnx 1.23.2."""

FOLDER = Path(__file__).resolve().parents[2] / "build" / "onnx_suite" / onnx.__version__


@dataclass(frozen=True)
class Case:
    """One case: a serialized model, pairs of (inputs, outputs), and the suite's tolerances."""

    name: str
    model: bytes
    data: tuple[tuple[list[Any], list[Any]], ...]
    rtol: float
    atol: float


def names() -> list[str]:
    """The names of all cases; the first call writes the cases into ``FOLDER``."""
    if not FOLDER.is_dir():
        _write()
    return sorted(path.stem for path in FOLDER.glob("*.pickle"))


def load(name: str) -> Case:
    """One case. The files are written by :func:`names`, and by nobody else."""
    return pickle.loads((FOLDER / f"{name}.pickle").read_bytes())  # noqa: S301


def _write() -> None:
    from onnx.backend.test.loader import load_model_tests

    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=FOLDER.parent))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [case for kind in KINDS for case in load_model_tests(kind=kind)]
    for item in found:
        model, data = item.model, item.data_sets
        if model is None:
            model = onnx.load(str(Path(item.model_dir, "model.onnx")))
            data = _stored(Path(item.model_dir), model)
        case = Case(
            item.name,
            model.SerializeToString(),
            tuple(([_array(x) for x in i], [_array(x) for x in o]) for i, o in data),
            item.rtol,
            item.atol,
        )
        (folder / f"{case.name}.pickle").write_bytes(pickle.dumps(case))
    try:
        os.rename(folder, FOLDER)
    except OSError:
        if not FOLDER.is_dir():  # else another run was faster
            raise


def _array(value: Any) -> Any:
    """A tensor as an array; sequences of them as lists."""
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, (list, tuple)):
        return [_array(item) for item in value]
    return value if value is None else np.asarray(value)


def _stored(folder: Path, model: onnx.ModelProto) -> list[tuple[list[Any], list[Any]]]:
    """The data of a case that is a folder of protobuf files."""
    sets = []
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    for data in sorted(folder.glob("test_data_set_*")):
        sets.append(
            (
                [_read(data / f"input_{i}.pb", v.type) for i, v in enumerate(inputs)],
                [_read(data / f"output_{i}.pb", v.type) for i, v in enumerate(model.graph.output)],
            )
        )
    return sets


def _read(path: Path, kind: onnx.TypeProto) -> Any:
    content = path.read_bytes()
    if kind.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(content))
    if kind.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(content))
    return numpy_helper.to_array(TensorProto.FromString(content))
