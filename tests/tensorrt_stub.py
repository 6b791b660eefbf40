"""Stands in for TensorRT's Python package: an engine is the ONNX model, run by ONNX Runtime.

Only what the compiler calls is here, with the same names and rules: tensors are set by address.
"""

from __future__ import annotations

import ctypes
import enum
import math

import numpy as np
import onnx
import onnxruntime

__version__ = "10.0.1"
refuse: list[str] = []
"""What the parser says is wrong with the next model."""
executions: list[int] = []
"""The stream of each run."""


class Logger:
    WARNING = 2

    def __init__(self, level: int) -> None:
        self.level = level


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.IntEnum):
    TF32 = 7


class Network:
    model: bytes = b""


class Settings:
    def __init__(self) -> None:
        self.flags = {BuilderFlag.TF32}

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)


class Builder:
    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def create_network(self, flags: int) -> Network:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return Network()

    def create_builder_config(self) -> Settings:
        return Settings()

    def build_serialized_network(self, network: Network, settings: Settings) -> memoryview | None:
        assert not settings.flags, "products of float32 would be of TF32"
        return memoryview(b"plan" + network.model) if network.model else None


class OnnxParser:
    def __init__(self, network: Network, logger: Logger) -> None:
        self.network = network
        self.num_errors = 0

    def parse(self, model: bytes) -> bool:
        self.num_errors = len(refuse)
        if refuse:
            return False
        onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
        self.network.model = model
        return True

    def get_error(self, place: int) -> str:
        return refuse[place]


class Runtime:
    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        return Engine(plan[4:]) if plan.startswith(b"plan") else None


class Engine:
    def __init__(self, model: bytes) -> None:
        self.session = onnxruntime.InferenceSession(model)
        self.infos = [*self.session.get_outputs(), *self.session.get_inputs()]
        self.num_io_tensors = len(self.infos)

    def get_tensor_name(self, place: int) -> str:
        return self.infos[place].name

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        executions.append(stream_handle)
        feed = {info.name: self._at(info) for info in self.engine.session.get_inputs()}
        outputs = self.engine.session.get_outputs()
        for info, value in zip(outputs, self.engine.session.run(None, feed), strict=True):
            self._at(info)[...] = value
        return True

    def _at(self, info) -> np.ndarray:
        dtype = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64"}
        kind = np.dtype(dtype[info.type])
        size = math.prod(info.shape) * kind.itemsize
        memory = (ctypes.c_byte * size).from_address(self.addresses[info.name])
        return np.frombuffer(memory, kind).reshape(info.shape)
