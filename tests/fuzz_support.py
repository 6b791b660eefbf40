"""Files damaged at random: bytes, the fields of ONNX models, the nodes of Relay modules."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from onnx import ModelProto, TensorProto

from burnish.compiler.errors import BurnishError, ImportModelError
from burnish.compiler.importers import import_model

EXTREMES = (-(2**63), -(2**31), -7, -1, 0, 1, 3, 255, 65_537, 2**31 - 1, 2**31, 2**40, 2**62)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """One of: cut, bytes changed, a stretch moved, repeated or dropped, a number set."""
    content = bytearray(data)
    kind = rng.randrange(7)
    at = rng.randrange(len(content))
    if kind == 0:
        return bytes(content[:at])
    if kind == 1:
        for _ in range(rng.choice((1, 2, 8, 64))):
            content[rng.randrange(len(content))] = rng.randrange(256)
    elif kind == 2:
        content[at] ^= 1 << rng.randrange(8)
    elif kind == 3:
        length = rng.choice((1, 4, 32, 300))
        content[at:at] = content[at : at + length]
    elif kind == 4:
        del content[at : at + rng.choice((1, 4, 32, 300))]
    elif kind == 5:
        width = rng.choice((1, 2, 4, 8))
        value = rng.choice(EXTREMES) % 256**width
        content[at : at + width] = value.to_bytes(width, "little")
    else:
        content[at:at] = rng.randbytes(rng.choice((1, 5, 40)))
    return bytes(content)


def damaged_onnx(data: bytes, rng: random.Random) -> bytes:
    """A model that parses, with some fields wrong: shapes, types, names, attributes, operators."""
    model = ModelProto.FromString(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        _damage(model, rng)
    return model.SerializeToString()


def _damage(model: ModelProto, rng: random.Random) -> None:
    graph = model.graph
    node = rng.choice(graph.node)
    names = [name for n in graph.node for name in [*n.input, *n.output]]
    kind = rng.randrange(10)
    if kind == 0 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice([*names, "", "nothing"])
    elif kind == 1 and node.attribute:
        attribute = rng.choice(node.attribute)
        attribute.i = rng.choice(EXTREMES)
        for index in range(len(attribute.ints)):
            attribute.ints[index] = rng.choice((attribute.ints[index], rng.choice(EXTREMES)))
    elif kind == 2:
        node.op_type = rng.choice(["Conv", "Reshape", "Loop", "If", "Gather", "TopK", "Mystery"])
    elif kind == 3 and graph.initializer:
        tensor = rng.choice(graph.initializer)
        if tensor.dims:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(EXTREMES)
    elif kind == 4 and graph.initializer:
        rng.choice(graph.initializer).data_type = rng.randrange(30)
    elif kind == 5 and graph.initializer:
        tensor = rng.choice(graph.initializer)
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key = rng.choice(("location", "offset", "length"))
        entry.value = rng.choice(("../secret", "/etc/passwd", "a/../../secret", "-1", "9" * 30))
    elif kind == 6:
        shape = rng.choice(graph.input).type.tensor_type.shape
        if shape.dim:
            rng.choice(shape.dim).dim_value = rng.choice(EXTREMES)
    elif kind == 7:
        model.opset_import[0].version = rng.choice((0, 1, 6, 9, 13, 26, 1000, 2**40))
    elif kind == 8:
        copy = graph.node.add()
        copy.CopyFrom(node)
    else:
        rng.choice(graph.input).type.tensor_type.elem_type = rng.randrange(30)


def damaged_relay(data: bytes, rng: random.Random) -> bytes:
    """Relay's JSON that parses, with some nodes wrong: cycles, kinds, missing fields, arrays."""
    module = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        _damage_nodes(module, rng)
    return json.dumps(module).encode()


def _damage_nodes(module: dict, rng: random.Random) -> None:
    nodes = module["nodes"]
    at = rng.randrange(len(nodes))
    node = nodes[at]
    reference = str(rng.choice((at, 0, rng.randrange(len(nodes)), len(nodes) - 1)))
    strange = rng.choice((reference, reference, str(rng.choice(EXTREMES)), "", "x", None, [at], {}))
    attrs, listed = node.get("attrs"), node.get("data")
    kind = rng.randrange(9)
    if kind <= 2 and attrs:
        attrs[rng.choice(list(attrs))] = strange
    elif kind == 3 and listed:
        listed[rng.randrange(len(listed))] = rng.choice((int(reference), strange, -1, 10**9))
    elif kind == 4:
        node["type_key"] = rng.choice(nodes).get("type_key")
    elif kind == 5 and attrs:
        del attrs[rng.choice(list(attrs))]
    elif kind == 6:
        module["root"] = rng.choice((at, -1, len(nodes), "0", None))
    elif kind == 7 and module.get("b64ndarrays"):
        arrays = module["b64ndarrays"]
        which = rng.randrange(len(arrays))
        text = arrays[which]
        place = rng.randrange(len(text) + 1)
        arrays[which] = rng.choice((text[:place], "", "!", text[:place] + "AAAA" + text[place:]))
    else:
        key = rng.choice(list(node))
        node[key] = rng.choice((strange, node[key]))


Damage = Callable[[bytes, random.Random], bytes]


def outcome(path: Path, dynamic: object = None) -> str:
    """``read`` or ``refused``, or ``crash: ...`` where a library died in the child and was held;
    anything but an error of ours passes through."""
    try:
        import_model(path, dynamic=dynamic)  # type: ignore[arg-type]
    except ImportModelError as error:
        text = str(error)
        held = ("crashes the library", "was not read within", "needs more than")
        return f"held: {text[-200:]}" if any(word in text for word in held) else "refused"
    except BurnishError:
        return "refused"
    return "read"
