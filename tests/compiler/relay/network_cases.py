"""The networks of ``make_networks.py``: name -> module, inputs and parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relay

nn, qnn = relay.nn, relay.qnn.op

Made = tuple[tvm.IRModule, dict[str, np.ndarray], dict[str, np.ndarray]]
NETWORKS: dict[str, Callable[[np.random.Generator], Made]] = {}


class Net:
    """Parameters of one network as they are asked for."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.vars: list[Any] = []
        self.inputs: dict[str, np.ndarray] = {}
        self.params: dict[str, np.ndarray] = {}

    def input(self, name: str, value: np.ndarray, *open_axes: int) -> Any:
        self.inputs[name] = value
        shape = [relay.Any() if i in open_axes else n for i, n in enumerate(value.shape)]
        self.vars.append(relay.var(name, shape=shape, dtype=str(value.dtype)))
        return self.vars[-1]

    def param(self, name: str, *shape: int, low: float | None = None) -> Any:
        scale = 1 / np.sqrt(max(1, np.prod(shape[1:])))
        value = self.rng.standard_normal(shape) * scale
        if low is not None:
            value = self.rng.uniform(low, low + 1, shape)
        self.params[name] = value.astype("float32")
        self.vars.append(relay.var(name, shape=shape))
        return self.vars[-1]

    def frozen(self, *shape: int) -> Any:
        value = self.rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))
        return relay.const(value.astype("float32"))

    def floats(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype("float32")

    def made(self, result: Any, functions: dict[str, Any] | None = None) -> Made:
        module = tvm.IRModule()
        for name, function in (functions or {}).items():
            module[name] = function
        module["main"] = relay.Function(self.vars, result)
        return module, self.inputs, self.params


def network(build: Callable[[Net], Made]) -> Callable[[Net], Made]:
    NETWORKS[build.__name__] = lambda rng: build(Net(rng))
    return build


@network
def mlp(net: Net) -> Made:
    """Names as exporters write them."""
    x = net.input("input.1", net.floats(3, 16))
    for index, (n, m) in enumerate(((16, 24), (24, 24), (24, 10))):
        w = net.param(f"onnx::Gemm_{index}", m, n)
        x = nn.bias_add(nn.dense(x, w), net.param(f"f.{index}.bias", m))
        x = nn.relu(x) if index < 2 else nn.softmax(x)
    return net.made(x)


def conv_bn(net: Net, x: Any, name: str, n: int, m: int, size: int = 3, **options: Any) -> Any:
    groups = options.get("groups", 1)
    w = net.param(f"{name}.weight", m, n // groups, size, size)
    x = nn.conv2d(x, w, channels=m, kernel_size=(size, size), padding=(size // 2,) * 2, **options)
    parts = [net.param(f"{name}.bn.{part}", m, low=low) for part, low in
             (("gamma", 0.5), ("beta", None), ("mean", None), ("var", 0.5))]  # fmt: skip
    return nn.batch_norm(x, *parts)[0]


@network
def cnn(net: Net) -> Made:
    """Batch norm, pooling, a residual."""
    x = net.input("image", net.floats(2, 3, 16, 16))
    x = nn.relu(conv_bn(net, x, "stem", 3, 8))
    x = nn.max_pool2d(x, (2, 2), (2, 2))
    y = nn.relu(conv_bn(net, x, "a", 8, 8))
    x = nn.relu(conv_bn(net, y, "b", 8, 8) + x)
    x = nn.avg_pool2d(x, (3, 3), (2, 2), padding=(1, 1))
    x = nn.batch_flatten(nn.global_avg_pool2d(x))
    return net.made(nn.dense(x, net.param("fc", 10, 8)))


@network
def mobilenet(net: Net) -> Made:
    """Inverted residuals with clips, in NHWC; frozen weights."""
    x = net.input("image", net.floats(1, 16, 16, 3))

    def conv(x: Any, n: int, m: int, size: int, stride: int = 1, depthwise: bool = False) -> Any:
        w = net.frozen(size, size, n, 1) if depthwise else net.frozen(size, size, n, m)
        x = nn.conv2d(
            x, w, strides=(stride, stride), padding=(size // 2,) * 4, channels=m,
            kernel_size=(size, size), groups=n if depthwise else 1, data_layout="NHWC",
            kernel_layout="HWOI" if depthwise else "HWIO",
        )  # fmt: skip
        return x + net.frozen(m)

    x = relay.clip(conv(x, 3, 8, 3, 2), 0, 6)
    for stride in (1, 2):
        y = relay.clip(conv(x, 8, 24, 1), 0, 6)
        y = relay.clip(conv(y, 24, 24, 3, stride, True), 0, 6)
        y = conv(y, 24, 8, 1)
        x = x + y if stride == 1 else y
    x = relay.mean(x, axis=[1, 2])
    return net.made(nn.softmax(nn.dense(x, net.frozen(10, 8))))


@network
def bert(net: Net) -> Made:
    """Two layers, embeddings and a mask; dense layers as batched products."""
    batch, seq, width, heads = 2, 7, 16, 4
    ids = net.input("input_ids", net.rng.integers(0, 40, (batch, seq)).astype("int64"))
    mask = net.input("attention_mask", net.rng.integers(0, 2, (batch, seq)).astype("int64"))
    x = relay.take(net.param("word.weight", 40, width), ids, axis=0)
    x = x + relay.take(
        net.param("position.weight", 16, width), relay.arange(relay.const(seq), dtype="int32"), 0
    )
    x = nn.layer_norm(x, net.param("ln.g", width), net.param("ln.b", width), epsilon=1e-12)
    bias = (relay.const(1.0) - relay.cast(mask, "float32")) * relay.const(-10000.0)
    bias = relay.expand_dims(relay.expand_dims(bias, 1), 1)

    def linear(x: Any, name: str, n: int, m: int) -> Any:
        x = relay.reshape(x, (-1, n))
        x = nn.dense(x, net.param(f"{name}.weight", m, n)) + net.param(f"{name}.bias", m)
        return relay.reshape(x, (batch, seq, m))

    def split_heads(x: Any) -> Any:
        x = relay.transpose(relay.reshape(x, (0, 0, heads, -1)), (0, 2, 1, 3))
        return relay.reshape(x, (-3, 0, 0))

    for index in range(2):
        q, k, v = (split_heads(linear(x, f"l{index}.{n}", width, width)) for n in "qkv")
        scores = nn.batch_matmul(q, k) * relay.const(1 / np.sqrt(width / heads), "float32")
        scores = relay.reshape(scores, (-4, batch, heads, 0, 0)) + bias
        weights = relay.reshape(nn.softmax(scores), (-3, 0, 0))
        y = nn.batch_matmul(weights, v, transpose_b=False)
        y = relay.transpose(relay.reshape(y, (-4, batch, heads, 0, 0)), (0, 2, 1, 3))
        x = x + linear(relay.reshape(y, (0, 0, -3)), f"l{index}.o", width, width)
        x = nn.layer_norm(x, net.param(f"l{index}.g", width), net.param(f"l{index}.b", width))
        h = linear(x, f"l{index}.up", width, 32)
        h = h * relay.const(0.5) * (relay.const(1.0) + relay.erf(h * relay.const(0.70710678)))
        x = x + linear(h, f"l{index}.down", 32, width)
    pooled = relay.tanh(nn.dense(relay.take(x, relay.const(0), axis=1),
                                 net.param("pool", width, width)))  # fmt: skip
    return net.made(relay.Tuple([x, pooled]))


@network
def lstm(net: Net) -> Made:
    """Unrolled, as front ends write it; a tuple of nested results."""
    steps, width = 4, 8
    x = net.input("x", net.floats(steps, 2, 6))
    h = net.input("h0", net.floats(2, width))
    c = net.input("c0", net.floats(2, width))
    w, r = net.param("weight_ih", 4 * width, 6), net.param("weight_hh", 4 * width, width)
    b = net.param("bias", 4 * width)
    outs = []
    for step in relay.split(x, steps, axis=0):
        gates = nn.dense(relay.squeeze(step, [0]), w) + nn.dense(h, r) + b
        i, f, g, o = relay.split(gates, 4, axis=1)
        c = relay.sigmoid(f) * c + relay.sigmoid(i) * relay.tanh(g)
        h = relay.sigmoid(o) * relay.tanh(c)
        outs.append(h)
    return net.made(relay.Tuple([relay.stack(outs, 0), relay.Tuple([h, c])]))


@network
def gru(net: Net) -> Made:
    """One step as a function of the module, called by name at each step."""
    steps, width = 4, 8
    x = net.input("x", net.floats(steps, 2, 6))
    h = net.input("h0", net.floats(2, width))
    w, r = net.param("weight_ih", 3 * width, 6), net.param("weight_hh", 3 * width, width)
    step_x, step_h = relay.var("step", shape=(2, 6)), relay.var("state", shape=(2, width))
    wi, ri = relay.var("wi", shape=(3 * width, 6)), relay.var("ri", shape=(3 * width, width))
    zi, ni, ai = relay.split(nn.dense(step_x, wi), 3, axis=1)
    zh, nh, ah = relay.split(nn.dense(step_h, ri), 3, axis=1)
    z, reset = relay.sigmoid(zi + zh), relay.sigmoid(ni + nh)
    n = relay.tanh(ai + reset * ah)
    cell = relay.Function([step_x, step_h, wi, ri], (relay.const(1.0) - z) * n + z * step_h)
    name = relay.GlobalVar("cell")
    outs = []
    for index in range(steps):
        step = relay.take(x, relay.const(index), axis=0)
        h = relay.Call(name, [step, h, w, r])
        outs.append(h)
    module, inputs, params = net.made(relay.Tuple([relay.stack(outs, 1), h]))
    module[name] = cell
    return module, inputs, params


@network
def detector(net: Net) -> Made:
    """A pyramid of two maps (resize, concatenate), boxes from anchors, suppression."""
    x = net.input("image", net.floats(1, 3, 16, 16))
    a = nn.leaky_relu(conv_bn(net, x, "one", 3, 8, strides=(2, 2)), 0.1)
    b = nn.leaky_relu(conv_bn(net, a, "two", 8, 8, strides=(2, 2)), 0.1)
    up = relay.image.resize2d(
        b, (8, 8), method="nearest_neighbor", coordinate_transformation_mode="asymmetric",
        rounding_method="floor",
    )  # fmt: skip
    merged = relay.concatenate([up, a], axis=1)
    scores, moves = [], []
    for name, head, channels in (("s", merged, 16), ("t", b, 8)):
        score = nn.conv2d(head, net.param(f"{name}.cls", 6, channels, 1, 1))
        move = nn.conv2d(head, net.param(f"{name}.loc", 8, channels, 1, 1))
        scores.append(relay.reshape(relay.transpose(score, (0, 2, 3, 1)), (1, -1, 3)))
        moves.append(nn.batch_flatten(relay.transpose(move, (0, 2, 3, 1))))
    probabilities = nn.softmax(relay.concatenate(scores, 1), axis=2)
    anchors = relay.concatenate([
        relay.reshape(relay.vision.multibox_prior(
            m, sizes=(s,), ratios=(1.0, 2.0)), (1, -1, 4))
        for m, s in ((merged, 0.3), (b, 0.6))], 1)  # fmt: skip
    boxes = relay.vision.multibox_transform_loc(
        relay.transpose(probabilities, (0, 2, 1)), relay.concatenate(moves, 1) * relay.const(0.2),
        anchors, threshold=0.4, variances=(0.1, 0.1, 0.2, 0.2))  # fmt: skip
    kept = relay.vision.non_max_suppression(
        boxes[0], boxes[1], relay.const(np.arange(160).reshape(1, 160).astype("int32")),
        iou_threshold=0.5, return_indices=False, top_k=100, max_output_size=-1,
        invalid_to_bottom=True)  # fmt: skip
    return net.made(kept)


def quantized(net: Net, *shape: int) -> Any:
    return relay.const(net.rng.integers(-128, 128, shape).astype("int8"))


def scale(value: Any) -> Any:
    return relay.const(np.asarray(value, "float32"))


def zero(value: Any) -> Any:
    return relay.const(np.asarray(value, "int32"))


@network
def quantized_cnn(net: Net) -> Made:
    """uint8 activations, int8 weights with a scale each channel, a residual."""
    x = net.input("image", net.floats(1, 3, 10, 10))
    x = qnn.quantize(x, scale(0.03), zero(128), out_dtype="uint8")

    def conv(x: Any, n: int, m: int, s: float, z: int, out: float, out_z: int) -> Any:
        scales = net.rng.uniform(0.001, 0.004, m).astype("float32")
        bias = relay.const(net.rng.integers(-500, 500, m).astype("int32"))
        y = qnn.conv2d(x, quantized(net, m, n, 3, 3), zero(z), zero(0), scale(s), scale(scales),
                       (3, 3), m, padding=(1, 1))  # fmt: skip
        y = nn.bias_add(y, bias)
        return qnn.requantize(y, scale(scales * np.float32(s)), zero(0), scale(out), zero(out_z),
                              axis=1, out_dtype="uint8")  # fmt: skip

    x = conv(x, 3, 8, 0.03, 128, 0.02, 0)
    x = nn.max_pool2d(x, (2, 2), (2, 2))
    y = conv(x, 8, 8, 0.02, 0, 0.025, 3)
    x = qnn.add(x, y, scale(0.02), zero(0), scale(0.025), zero(3), scale(0.04), zero(5))
    x = qnn.concatenate(relay.Tuple([x, y]), (scale(0.04), scale(0.025)), (zero(5), zero(3)),
                        scale(0.03), zero(10), 1)  # fmt: skip
    x = relay.cast(nn.global_avg_pool2d(relay.cast(x, "int32")), "uint8")
    return net.made(relay.Tuple([x, qnn.dequantize(x, scale(0.03), zero(10))]))


@network
def quantized_mlp(net: Net) -> Made:
    """int8 dense layers and a table of tanh."""
    x = net.input("x", net.floats(4, 16))
    x = qnn.quantize(x, scale(0.02), zero(-3), out_dtype="int8")
    x = qnn.dense(x, quantized(net, 24, 16), zero(-3), zero(0), scale(0.02), scale(0.005), 24)
    x = qnn.requantize(x, scale(0.0001), zero(0), scale(0.03), zero(4), out_dtype="int8")
    x = qnn.tanh(x, scale(0.03), zero(4), scale(1 / 128), zero(0))
    x = qnn.dense(x, quantized(net, 10, 24), zero(0), zero(2), scale(1 / 128), scale(0.005), 10)
    x = qnn.dequantize(x, scale(0.005 / 128), zero(0))
    return net.made(nn.softmax(x))


@network
def control(net: Net) -> Made:
    """let, if at run time, a closure that captures, a composite, a tuple parameter."""
    flag = net.input("flag", np.asarray(True))
    x = net.input("x", net.floats(2, 3))
    w = net.param("w", 3, 3)
    y, k, q, p = (
        relay.var("y"),
        relay.var("k"),
        relay.var("q", shape=(2, 3)),
        relay.var("p", shape=(2, 3)),
    )
    composite = relay.Function([p], nn.relu(p * relay.const(2.0)))
    composite = composite.with_attr("Primitive", tvm.tir.IntImm("int32", 1))
    composite = composite.with_attr("Composite", "my.scaled_relu")
    closure = relay.Function([q], relay.tanh(q) + nn.dense(x, w))
    branch = relay.If(flag, relay.Tuple([relay.Call(k, [y]), y]),
                      relay.Tuple([y, relay.exp(x)]))  # fmt: skip
    body = relay.Let(k, closure, branch)
    chain = relay.Let(y, relay.Call(composite, [x]), body)
    first = relay.TupleGetItem(chain, 0)
    second = relay.TupleGetItem(chain, 1)
    return net.made(relay.Tuple([first + second, second]))


@network
def dynamic(net: Net) -> Made:
    """Open batch and length: shapes computed, attention over what is there."""
    width, heads = 8, 2
    x = net.input("tokens", net.floats(3, 5, width), 0, 1)
    shape = relay.shape_of(x, "int64")
    batch = relay.take(shape, relay.const(0, "int64"))
    seq = relay.take(shape, relay.const(1, "int64"))

    def sized(*parts: Any) -> Any:
        found = [relay.const(p, "int64") if isinstance(p, int) else p for p in parts]
        return relay.concatenate([relay.expand_dims(p, 0) for p in found], 0)

    flat = relay.reshape(x, (-1, width))

    def heads_of(name: str) -> Any:
        y = nn.dense(flat, net.param(name, width, width))
        y = relay.reshape(y, sized(batch, seq, heads, width // heads))
        y = relay.transpose(y, (0, 2, 1, 3))
        return relay.reshape(y, sized(batch * relay.const(heads, "int64"), seq, width // heads))

    q, k, v = (heads_of(n) for n in ("q.weight", "k.weight", "v.weight"))
    y = nn.batch_matmul(nn.softmax(nn.batch_matmul(q, k)), v, transpose_b=False)
    y = relay.reshape(y, sized(batch, heads, seq, width // heads))
    y = relay.reshape(relay.transpose(y, (0, 2, 1, 3)), sized(batch, seq, width))
    return net.made(relay.Tuple([y, relay.mean(y, axis=[1])]))
