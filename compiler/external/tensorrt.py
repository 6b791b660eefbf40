"""TensorRT for whole regions: each written as ONNX, built to an engine, called from the graph.

An engine is a weight of the model (bytes), so that it is saved, hashed and loaded as weights are.
It begins with a line of JSON that says which TensorRT and which GPU it was built with and for, and
runs with no other. Building measures on the GPU, so it must be here. Not yet run on one: the calls
of TensorRT's Python interface are checked against a stand-in.
"""

from __future__ import annotations

import hashlib
import importlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from burnish.compiler.errors import BuildError, TargetError
from burnish.compiler.external.engines import engine_head, with_head
from burnish.compiler.external.onnx_region import region_model, writes
from burnish.passes.backends import Code
from burnish.passes.graph import op_name
from burnish.passes.offload import offloaded
from burnish.passes.regions import Region

SYMBOL = "burnish_tensorrt"
LIBRARY = "tensorrt"
HEAVY = ("relax.matmul", "relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.attention")
"""A region without one of these is not worth an engine."""
_PACKAGE = "pip install tensorrt"


@dataclass(frozen=True)
class Tensorrt:
    """TensorRT as a device; ``build`` makes the engine of an ONNX model."""

    build: Callable[[bytes], bytes]
    name = LIBRARY
    memory = "cuda:0"

    def why_not(self, call: relax.Expr) -> str:
        """What cannot be written as ONNX, it cannot read."""
        if isinstance(call, relax.Call) and writes(call):
            return ""
        return f"{op_name(call) or 'this'} is not written as ONNX of opset 17, or has an open size"

    def why_not_region(self, region: Region) -> str:
        if any(op_name(binding.value) in HEAVY for binding in region.calls):
            return ""
        return "a region without a product is not worth an engine"

    def seconds(self, region: Region) -> float | None:
        """Only TensorRT knows, and only on the GPU."""
        return None

    def compile(self, region: Region, weights: Mapping[str, np.ndarray], name: str) -> Code:
        """An engine, and the digest by which it is known when it is open."""
        plan = self.build(region_model(region, weights).SerializeToString())
        engine = np.frombuffer(plan, "uint8")
        digest = hashlib.sha256(plan).hexdigest()
        return Code(SYMBOL, stored=(engine,), said=(digest,), holds_weights=True)


@tvm.transform.module_pass(opt_level=0, name="CallTensorrt")
@dataclass(frozen=True)
class CallTensorrt:
    """Put one call of an engine in the place of each region that TensorRT can take.

    ``build`` makes the engine of an ONNX model. Weights that only regions read leave the module.
    """

    build: Callable[[bytes], bytes]

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        return offloaded(mod, Tensorrt(self.build))


def tensorrt() -> Any:
    """The package; :class:`TargetError` where it is not installed."""
    try:
        return importlib.import_module("tensorrt")
    except ImportError as error:
        raise TargetError(
            f"TensorRT's engines need its Python package ({error}): {_PACKAGE}"
        ) from error


def build_here(model: bytes) -> bytes:
    """:func:`build_engine` for this machine's first GPU."""
    return build_engine(model, gpu_name(tvm.cuda(0)), gpu_capability(tvm.cuda(0)))


def build_engine(model: bytes, gpu: str, capability: int) -> bytes:
    """An engine of an ONNX model: types as written, TF32 off.

    Raises :class:`BuildError` with what TensorRT said of the model.
    """
    trt = tensorrt()
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        said = "; ".join(str(parser.get_error(place)) for place in range(parser.num_errors))
        raise BuildError(f"TensorRT does not read a region: {said}")
    settings = builder.create_builder_config()
    settings.clear_flag(trt.BuilderFlag.TF32)
    plan = builder.build_serialized_network(network, settings)
    if plan is None:
        raise BuildError("TensorRT builds no engine for a region; its log says why")
    return with_head(bytes(plan), trt.__version__, gpu, capability)


def opened(engine: bytes, gpu: str) -> tuple[Any, Any]:
    """Engine and context of what :func:`build_engine` made.

    :class:`TargetError` for another GPU or version.
    """
    trt = tensorrt()
    made, plan = engine_head(engine), engine.partition(b"\n")[2]
    if (made["version"], made["gpu"]) != (trt.__version__, gpu):
        raise TargetError(
            f"the model's engine is for TensorRT {made['version']} on {made['gpu']}; here "
            f"is {trt.__version__} on {gpu}: compile the model here"
        )
    found = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(plan)
    if found is None:
        raise TargetError("TensorRT does not open the model's engine; its log says why")
    return found, found.create_execution_context()


class Engines:
    """Engines that calls have opened, by digest; calls of one engine take turns."""

    def __init__(self, gpu: Callable[[tvm.runtime.Device], str]) -> None:
        self._gpu = gpu
        self._open: dict[tuple[str, int], tuple[Any, Any, threading.Lock]] = {}
        self._lock = threading.Lock()

    def __call__(self, engine: Any, digest: str, *tensors: Any) -> None:
        """Run the engine on ``tensors``, inputs then outputs, in the device's stream."""
        device = tensors[-1].device
        with self._lock:
            key = (digest, device.index)
            if key not in self._open:
                content = engine.numpy().tobytes()
                if hashlib.sha256(content).hexdigest() != digest:
                    raise TargetError("the model's engine is not the one it was compiled with")
                self._open[key] = (*opened(content, self._gpu(device)), threading.Lock())
        found, context, turn = self._open[key]
        names = [found.get_tensor_name(place) for place in range(found.num_io_tensors)]
        ins = sorted((name for name in names if name.startswith("in")), key=lambda n: int(n[2:]))
        outs = sorted((name for name in names if name.startswith("out")), key=lambda n: int(n[3:]))
        with turn:
            for name, tensor in zip([*ins, *outs], tensors, strict=True):
                context.set_tensor_address(name, tensor.data_ptr())
            if not context.execute_async_v3(tvm_ffi.get_raw_stream(device)):
                raise RuntimeError("TensorRT does not run the engine; its log says why")


def gpu_name(device: tvm.runtime.Device) -> str:
    """``NVIDIA H100 80GB HBM3``."""
    return str(device.device_name)


def gpu_capability(device: tvm.runtime.Device) -> int:
    """90 for 9.0."""
    return int(str(device.compute_version).replace(".", ""))


def register() -> None:
    """Make the function that compiled models call known to TVM."""
    tvm_ffi.register_global_func(SYMBOL, Engines(gpu_name), override=True)
