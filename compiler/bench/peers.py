"""The runtimes that a compiled model is set beside, each as its own documentation advises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from burnish.compiler.errors import MeasureError
from burnish.compiler.measure import EagerRunner, Runner
from burnish.compiler.measure.runners import Bind, Call, TorchFile
from burnish.compiler.measure.values import array


class InductorRunner(EagerRunner):
    """A module through ``torch.compile`` with its weights frozen into the code.

    ``mode`` is torch.compile's: ``"default"``, or ``"max-autotune"``, which times several
    implementations of each matrix multiplication before it settles.
    """

    def __init__(self, model: Any, mode: str = "default") -> None:
        super().__init__(model)
        self.mode = mode

    def packings(self, folder: Path, inputs: Sequence[Any]) -> Iterator[Runner]:
        for packed in super().packings(folder, inputs):
            assert isinstance(packed, TorchFile)
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
                with torch.inference_mode():
                    return module(*tensors)

            return call

        return bind


@dataclass(eq=False)
class OpenVinoRunner(Runner):
    """An ``.onnx`` file in OpenVINO: float32 throughout, tuned for the latency of one request."""

    path: str
    runtime: ClassVar[str] = "openvino"
    imports: ClassVar[tuple[str, ...]] = ("openvino",)

    def open(self) -> Bind:
        openvino = _module("openvino")
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


def _module(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MeasureError(
            f"{name}, a peer of the benchmark, is not installed: install burnish[bench]"
        ) from error
