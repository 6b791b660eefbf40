"""The runtimes that a compiled model is set beside, each as its own documentation advises."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from burnish.compiler.errors import ConfigError, MeasureError
from burnish.compiler.measure import EagerRunner, OnnxRuntimeRunner, Runner
from burnish.compiler.measure.runners import Bind, Call, TorchFile
from burnish.compiler.measure.values import array
from burnish.compiler.registry import near

OPSET = 20
"""The first ONNX opset with GELU as one operation; later ones were no faster in any peer."""


class Subject:
    """A torch model with its inputs, exported to ONNX in ``folder`` when a peer first asks."""

    def __init__(self, model: Any, inputs: Sequence[Any], folder: Path) -> None:
        self.model, self.inputs, self.folder = model, tuple(inputs), folder
        self._onnx: Path | None = None

    def onnx(self) -> str:
        """The path of the ``.onnx`` file; MeasureError where torch cannot export the model."""
        if self._onnx is None:
            self._onnx = self._export()
        return str(self._onnx)

    def _export(self) -> Path:
        import torch

        path = self.folder / "model.onnx"
        options = {"dynamo": True, "opset_version": OPSET, "verbose": False}
        said = contextlib.redirect_stdout(io.StringIO())
        disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            with torch.no_grad(), warnings.catch_warnings(), said:
                warnings.simplefilter("ignore")
                torch.onnx.export(self.model, self.inputs, str(path), **options)  # type: ignore[arg-type]
        except Exception as error:
            first = next(iter(str(error).splitlines()), "")
            raise MeasureError(f"torch.onnx.export: {type(error).__name__}: {first}") from error
        finally:
            logging.disable(disabled)
        return path


@dataclass(frozen=True)
class Peer:
    """A runtime by its short name, its title for tables, and how to run a subject in it."""

    name: str
    title: str
    runner: Callable[[Subject], Runner]


PEERS = {
    peer.name: peer
    for peer in (
        Peer("eager", "eager", lambda subject: EagerRunner(subject.model)),
        Peer("compile", "torch.compile", lambda subject: InductorRunner(subject.model)),
        Peer(
            "autotune",
            "max-autotune",
            lambda subject: InductorRunner(subject.model, "max-autotune"),
        ),
        Peer("onnxruntime", "ONNX Runtime", lambda subject: OnnxRuntimeRunner(subject.onnx())),
        Peer("openvino", "OpenVINO", lambda subject: OpenVinoRunner(subject.onnx())),
    )
}


def find_peers(names: Sequence[str] | None = None) -> list[Peer]:
    """The peers called ``names``, all by default; ConfigError for an unknown name."""
    for name in names or ():
        if name not in PEERS:
            raise ConfigError(f"no peer {name!r}{near(name, PEERS)}")
    return [PEERS[name] for name in dict.fromkeys(names or PEERS)]


class InductorRunner(EagerRunner):
    """A module through ``torch.compile``, its weights frozen into the code.

    ``mode`` is torch.compile's: ``"default"``, or ``"max-autotune"``, which times several
    implementations of each matrix product before it settles.
    """

    def __init__(self, model: Any, mode: str = "default") -> None:
        super().__init__(model)
        self.mode = mode

    def packings(self, folder: Path, inputs: Sequence[Any]) -> Iterator[Runner]:
        for packed in super().packings(folder, inputs):
            if isinstance(packed, TorchFile):
                yield InductorFile(packed.path, packed.exported, packed.note, self.mode)


@dataclass(eq=False)
class InductorFile(TorchFile):
    """A saved module, compiled by torch.compile at its first call."""

    mode: str = "default"
    imports: ClassVar[tuple[str, ...]] = ("torch._inductor.config",)

    def open(self) -> Bind:
        import torch
        import torch._inductor.config as settings

        settings.freezing = True
        module = torch.compile(self.module(), mode=self.mode)

        def bind(inputs: Sequence[Any]) -> Call:
            tensors = [v if torch.is_tensor(v) else torch.as_tensor(v) for v in inputs]

            def call() -> Any:
                with torch.no_grad():  # weights are frozen only where no gradient can be asked for
                    return module(*tensors)

            return call

        return bind


@dataclass(eq=False)
class OpenVinoRunner(Runner):
    """An ``.onnx`` file in OpenVINO: float32 throughout, tuned for the latency of one request,
    inputs and outputs shared with the caller."""

    path: str
    runtime: ClassVar[str] = "openvino"

    def prepare(self, threads: int) -> None:
        super().prepare(threads)
        _openvino()

    def open(self) -> Bind:
        openvino = _openvino()
        settings = {
            "INFERENCE_NUM_THREADS": self.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        compiled = openvino.Core().compile_model(self.path, "CPU", settings)
        request = compiled.create_infer_request()

        def bind(inputs: Sequence[Any]) -> Call:
            arrays = [np.ascontiguousarray(array(value)) for value in inputs]

            def call() -> Any:
                found = request.infer(arrays, share_inputs=True, share_outputs=True)
                return tuple(found.values())

            return call

        return bind


def _openvino() -> Any:
    # Without this module openvino's own stand-in for it, which sends nothing, is imported.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise MeasureError(
            "openvino, a peer of the benchmark, is not installed: install burnish[bench]"
        ) from error
