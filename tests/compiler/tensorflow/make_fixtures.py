"""Makes the fixtures beside it: small Keras and TFLite models, inputs, and TensorFlow's outputs.

Run in the environment of ``make test-tensorflow``, which has TensorFlow:
``.venv-tf/bin/python tests/compiler/tensorflow/make_fixtures.py``
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

import flatbuffers
import keras
import numpy as np
import tensorflow as tf
from keras import layers as L
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

FOLDER = Path(__file__).resolve().parent / "fixtures"


def cnn(batch: int | None) -> keras.Model:
    """Channels last: convolution, batch norm, depthwise, pooling, classifier."""
    x = image = L.Input(batch_shape=(batch, 16, 16, 3), name="image")
    x = L.Conv2D(8, 3, padding="same", use_bias=False, name="first")(x)
    x = L.BatchNormalization(name="norm")(x)
    x = L.ReLU()(x)
    x = L.DepthwiseConv2D(3, strides=2, padding="same", name="deep")(x)
    x = L.ReLU(max_value=6.0)(x)
    x = L.MaxPooling2D()(x)
    x = L.GlobalAveragePooling2D()(x)
    return keras.Model(image, L.Dense(5, activation="softmax", name="head")(x))


def unet(batch: int | None) -> keras.Model:
    """SAME padding on odd sizes, upsampling, concatenation, transposed convolution."""
    image = L.Input(batch_shape=(batch, 13, 17, 2), name="image")
    down = L.Conv2D(6, 3, strides=2, padding="same", activation="gelu")(image)
    up = L.UpSampling2D(2, interpolation="bilinear")(L.AveragePooling2D(2, padding="same")(down))
    up = L.Cropping2D(((0, 1), (0, 1)))(up)
    x = L.Concatenate()([down, up])
    x = L.Conv2DTranspose(4, 3, strides=2, padding="same")(L.LeakyReLU()(x))
    return keras.Model(image, [L.Activation("hard_sigmoid")(x), L.GlobalMaxPooling2D()(x)])


def text(batch: int | None) -> keras.Model:
    """Token ids, embedding, attention, layer norm."""
    ids = L.Input(batch_shape=(batch, 9), dtype="int32", name="ids")
    x = L.Embedding(20, 8)(ids)
    x = L.LayerNormalization()(x + L.MultiHeadAttention(2, 4)(x, x))
    x = L.Dense(8, activation="silu")(x)
    return keras.Model(ids, L.Dense(3)(L.GlobalAveragePooling1D()(x)))


def lstm(batch: int | None) -> keras.Model:
    steps = L.Input(batch_shape=(batch, 7, 6), name="steps")
    return keras.Model(steps, L.Dense(3)(L.LSTM(8, return_sequences=True)(steps)))


def wide_net() -> keras.Model:
    """Weights large enough that the converter stores them in 8 bits."""
    x = L.Input(batch_shape=(2, 64), name="x")
    return keras.Model(x, L.Dense(8, name="head")(L.Dense(64, activation="tanh")(x)))


def gru(batch: int | None) -> keras.Model:
    steps = L.Input(batch_shape=(batch, 7, 6), name="steps")
    return keras.Model(steps, L.Dense(3)(L.Bidirectional(L.GRU(5))(steps)))


MODELS: dict[str, Callable[[int | None], keras.Model]] = {
    "cnn": cnn,
    "unet": unet,
    "text": text,
    "lstm": lstm,
    "gru": gru,
}


def randomized(model: keras.Model) -> keras.Model:
    """Every weight random, batch statistics and biases too, which start at 0 and 1."""
    rng = np.random.default_rng(7)
    for weight in model.weights:
        value = rng.uniform(-0.5, 0.5, weight.shape).astype("float32")
        weight.assign(np.abs(value) + 0.5 if "variance" in weight.path else value)
    return model


def inputs(model: keras.Model, batch: int) -> list[np.ndarray]:
    rng = np.random.default_rng(11)
    made = []
    for spec in model.inputs:
        shape = (batch, *spec.shape[1:])
        whole = str(spec.dtype).startswith("int")
        made.append(
            rng.integers(0, 20, shape).astype("int32")
            if whole
            else rng.standard_normal(shape).astype("float32")
        )
    return made


def converter(model: keras.Model) -> tf.lite.TFLiteConverter:
    """From the model's frozen function: a SavedModel's LSTM keeps its loop over TensorLists."""
    specs = [tf.TensorSpec(i.shape, i.dtype, i.name) for i in model.inputs]
    call = tf.function(lambda *values: model(list(values), training=False))
    frozen = convert_variables_to_constants_v2(call.get_concrete_function(*specs))
    return tf.lite.TFLiteConverter.from_concrete_functions([frozen])


def run_lite(content: bytes, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """What the reference kernels give."""
    kernels = tf.lite.experimental.OpResolverType.BUILTIN_REF
    runner = tf.lite.Interpreter(model_content=content, experimental_op_resolver_type=kernels)
    details = runner.get_input_details()
    for detail, array in zip(details, arrays, strict=True):
        runner.resize_tensor_input(detail["index"], array.shape)
    runner.allocate_tensors()
    for detail, array in zip(details, arrays, strict=True):
        runner.set_tensor(detail["index"], array)
    runner.invoke()
    return [runner.get_tensor(d["index"]) for d in runner.get_output_details()]


def keep(name: str, arrays: list[np.ndarray], results: list[np.ndarray]) -> None:
    np.savez_compressed(
        FOLDER / f"{name}.npz",
        **{f"in_{i}": a for i, a in enumerate(arrays)},
        **{f"out_{i}": a for i, a in enumerate(results)},
    )


def make_keras() -> None:
    for name, build in MODELS.items():
        model = randomized(build(None))
        model.save(FOLDER / f"{name}.keras")
        arrays = inputs(model, 3)
        results = model(arrays, training=False)
        results = results if isinstance(results, list) else [results]
        keep(f"{name}.keras", arrays, [r.numpy() for r in results])


def make_lite() -> None:
    for name, build in MODELS.items():
        model = randomized(build(2))
        content = converter(model).convert()
        (FOLDER / f"{name}.tflite").write_bytes(content)
        arrays = inputs(model, 2)
        keep(f"{name}.tflite", arrays, run_lite(content, arrays))
    for name in ("cnn", "unet"):
        model = randomized(MODELS[name](1))
        lite = converter(model)
        rng = np.random.default_rng(3)
        shape = model.inputs[0].shape
        samples = [[rng.standard_normal(shape).astype("float32")] for _ in range(20)]
        lite.optimizations = [tf.lite.Optimize.DEFAULT]
        lite.representative_dataset = samples.copy
        lite.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        lite.inference_input_type = lite.inference_output_type = tf.int8
        content = lite.convert()
        (FOLDER / f"{name}_int8.tflite").write_bytes(content)
        arrays = [rng.integers(-128, 128, shape).astype("int8")]
        keep(f"{name}_int8.tflite", arrays, run_lite(content, arrays))
    wide = randomized(wide_net())
    lite = converter(wide)
    lite.optimizations = [tf.lite.Optimize.DEFAULT]
    content = lite.convert()
    (FOLDER / "wide.tflite").write_bytes(content)
    arrays = inputs(wide, 2)
    keep("wide.tflite", arrays, run_lite(content, arrays))
    content = converter(randomized(cnn(None))).convert()
    (FOLDER / "cnn_open_batch.tflite").write_bytes(content)


def make_sequences() -> None:
    """The fused LSTM, which converters of today no longer write, as the schema has it."""
    for name, coupled, projected in (("sequence", False, False), ("sequence_coupled", True, True)):
        content = sequence_lstm(coupled=coupled, projected=projected)
        (FOLDER / f"{name}.tflite").write_bytes(content)
        arrays = [np.random.default_rng(5).standard_normal((2, 7, 6)).astype("float32")]
        keep(f"{name}.tflite", arrays, run_lite(content, arrays))


def sequence_lstm(*, coupled: bool, projected: bool) -> bytes:
    """One ``UNIDIRECTIONAL_SEQUENCE_LSTM``; ``coupled`` has no input gate and has peepholes."""
    rng = np.random.default_rng(9)
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT()]
    graph.tensors, graph.name = [], b"main"

    def tensor(label: str, shape: list[int], *, filled: bool, state: bool = False) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type = label.encode(), shape, schema.TensorType.FLOAT32
        made.isVariable, made.buffer = state, 0
        if filled:
            buffer = schema.BufferT()
            values = rng.uniform(-0.5, 0.5, shape).astype("float32")
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            model.buffers.append(buffer)
            made.buffer = len(model.buffers) - 1
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    units, size, out = 5, 6, 4 if projected else 5
    gates = ("input", "forget", "cell", "output")
    inputs = [tensor("x", [2, 7, size], filled=False)]
    for kind, shape in (("kernel", [units, size]), ("recurrent", [units, out])):
        for gate in gates:
            absent = coupled and gate == "input"
            inputs.append(-1 if absent else tensor(f"{gate}/{kind}", shape, filled=True))
    for gate in ("input", "forget", "output"):
        seen = coupled and gate != "input"
        inputs.append(tensor(f"{gate}/peephole", [units], filled=True) if seen else -1)
    for gate in gates:
        absent = coupled and gate == "input"
        inputs.append(-1 if absent else tensor(f"{gate}/bias", [units], filled=True))
    inputs.append(tensor("projection", [out, units], filled=True) if projected else -1)
    inputs.append(tensor("projection/bias", [out], filled=True) if projected else -1)
    inputs.append(tensor("state", [2, out], filled=False, state=True))
    inputs.append(tensor("cell", [2, units], filled=False, state=True))
    inputs += [-1] * 4
    result = tensor("y", [2, 7, out], filled=False)

    code = schema.OperatorCodeT()
    code.builtinCode = schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM
    code.deprecatedBuiltinCode, code.version = code.builtinCode, 1
    operator, found = schema.OperatorT(), schema.UnidirectionalSequenceLSTMOptionsT()
    found.fusedActivationFunction = schema.ActivationFunctionType.TANH
    found.cellClip, found.projClip, found.timeMajor = 0.4 if coupled else 0.0, 0.0, False
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, inputs, [result]
    operator.builtinOptionsType = schema.BuiltinOptions.UnidirectionalSequenceLSTMOptions
    operator.builtinOptions = found
    model.operatorCodes, graph.operators = [code], [operator]
    graph.inputs, graph.outputs = [inputs[0]], [result]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def make_lambda() -> None:
    """A layer of Python code, which safe mode refuses to read."""
    x = L.Input((4,), name="x")
    keras.Model(x, L.Lambda(lambda v: v * 2)(x)).save(FOLDER / "lambda.keras")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    make_keras()
    make_lite()
    make_sequences()
    make_lambda()
