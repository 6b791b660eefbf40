"""``python trials.py LIBRARY``: uses a library on a small case, and prints its version.

Exit code 3: it is not installed. It imports nothing of Burnish, so that it starts at once.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import Any

MISSING = 3


def _relu() -> Any:
    """An ONNX model ``y = relu(x)`` over two floats."""
    from onnx import TensorProto, checker, helper

    given, made = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")
    )
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [given], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    checker.check_model(model)
    return model


def onnx() -> object:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(_relu()).run(None, {"x": _input()})[0]


def onnxruntime() -> object:
    import onnxruntime as ort

    session = ort.InferenceSession(_relu().SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": _input()})[0]


def openvino() -> object:
    import openvino as ov
    from openvino import opset13

    given = opset13.parameter([2], ov.Type.f32)
    return ov.compile_model(ov.Model([opset13.relu(given)], [given]), "CPU")(_input())[0]


def keras() -> object:
    import keras

    return keras.ops.convert_to_numpy(keras.layers.ReLU()(_input()))


def tensorflow() -> object:
    import tensorflow as tf

    return tf.function(tf.nn.relu)(_input()).numpy()


def _lite_relu() -> bytes:
    """A TFLite model ``y = relu(x)`` over two floats."""
    import flatbuffers
    import tflite as fb

    builder = flatbuffers.Builder(512)

    def vector(start: Any, values: list[int], add: Any) -> int:
        start(builder, len(values))
        for value in reversed(values):
            add(value)
        return builder.EndVector()

    def tables(start: Any, values: list[int]) -> int:
        return vector(start, values, builder.PrependUOffsetTRelative)

    def numbers(start: Any, *values: int) -> int:
        return vector(start, list(values), builder.PrependInt32)

    tensors = []
    for _ in range(2):
        shape = numbers(fb.TensorStartShapeVector, 2)
        fb.TensorStart(builder)
        fb.TensorAddShape(builder, shape)
        fb.TensorAddType(builder, fb.TensorType.FLOAT32)
        tensors.append(fb.TensorEnd(builder))
    given = numbers(fb.OperatorStartInputsVector, 0)
    made = numbers(fb.OperatorStartOutputsVector, 1)
    fb.OperatorStart(builder)
    fb.OperatorAddInputs(builder, given)
    fb.OperatorAddOutputs(builder, made)
    operators = tables(fb.SubGraphStartOperatorsVector, [fb.OperatorEnd(builder)])
    listed = tables(fb.SubGraphStartTensorsVector, tensors)
    inputs = numbers(fb.SubGraphStartInputsVector, 0)
    outputs = numbers(fb.SubGraphStartOutputsVector, 1)
    fb.SubGraphStart(builder)
    fb.SubGraphAddTensors(builder, listed)
    fb.SubGraphAddInputs(builder, inputs)
    fb.SubGraphAddOutputs(builder, outputs)
    fb.SubGraphAddOperators(builder, operators)
    graphs = tables(fb.ModelStartSubgraphsVector, [fb.SubGraphEnd(builder)])
    fb.OperatorCodeStart(builder)
    fb.OperatorCodeAddDeprecatedBuiltinCode(builder, fb.BuiltinOperator.RELU)
    fb.OperatorCodeAddBuiltinCode(builder, fb.BuiltinOperator.RELU)
    codes = tables(fb.ModelStartOperatorCodesVector, [fb.OperatorCodeEnd(builder)])
    fb.BufferStart(builder)
    buffers = tables(fb.ModelStartBuffersVector, [fb.BufferEnd(builder)])
    fb.ModelStart(builder)
    fb.ModelAddVersion(builder, 3)
    fb.ModelAddOperatorCodes(builder, codes)
    fb.ModelAddSubgraphs(builder, graphs)
    fb.ModelAddBuffers(builder, buffers)
    builder.Finish(fb.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


def tflite() -> object:
    """Write a model, and read it."""
    import tflite as fb

    graph = fb.Model.GetRootAs(_lite_relu(), 0).Subgraphs(0)
    return [float(graph.Inputs(0)), float(graph.Outputs(0) + graph.Tensors(1).Shape(0))]


def ai_edge_litert() -> object:
    """Run a model."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=_lite_relu(), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, _input())
    interpreter.invoke()
    return interpreter.get_tensor(1)


def transformers() -> object:
    """A language model of one small layer."""
    import torch
    import transformers as hf

    config = hf.GPT2Config(n_layer=1, n_head=1, n_embd=8, n_positions=8, vocab_size=16)
    model = hf.GPT2Model(config).eval()
    shape = model(torch.zeros(1, 4, dtype=torch.long)).last_hidden_state.shape
    return [0.0, 3.0] if tuple(shape) == (1, 4, 8) else list(shape)


def tokenizers() -> object:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"no": 0, "yes": 3}, unk_token="no"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return words.encode("what yes").ids


def xgboost() -> object:
    """Boost trees until they know two points."""
    import numpy as np
    import xgboost as xgb

    data = xgb.DMatrix(np.asarray([[0.0], [1.0]], "float32"), np.asarray([0.0, 3.0], "float32"))
    options = {"eta": 1.0, "lambda": 0.0, "min_child_weight": 0.0, "base_score": 0.0, "nthread": 1}
    return xgb.train(options, data, 4).predict(data)


TRIALS = (
    *(onnx, onnxruntime, openvino, keras, tensorflow, tflite, ai_edge_litert, transformers),
    *(tokenizers, xgboost),
)
DISTRIBUTIONS = {
    "ai_edge_litert": ("ai-edge-litert",),
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
    "xgboost": ("xgboost-cpu", "xgboost"),
}


def _input() -> Any:
    import numpy as np

    return np.asarray([-1.0, 3.0], "float32")


def _version(name: str) -> str:
    for distribution in DISTRIBUTIONS.get(name, (name,)):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "of unknown version"


def main(name: str) -> int:
    """Try one library; every trial ends in 0 and 3, as near as float32 comes."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    trial = {function.__name__: function for function in TRIALS}[name]
    try:
        got = [float(value) for value in trial()]  # type: ignore[attr-defined]
    except ModuleNotFoundError as error:
        if error.name == name:
            return MISSING
        raise
    if max(abs(got[0]), abs(got[1] - 3.0)) > 1e-3 or len(got) != 2:
        raise SystemExit(f"{name} gives {got} for [0, 3]")
    print(_version(name))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
