"""``python -m burnish.compiler.importers.keras_worker FOLDER``: one conversion, then the end.

``FOLDER/request`` says what, ``FOLDER/reply`` (JSON) how it went; the model is in
``FOLDER/model.pt2`` or ``FOLDER/model.onnx``. ``$KERAS_BACKEND`` is set by who starts it.
"""

from __future__ import annotations

import json
import pickle
import resource
import sys
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Convert what the request names."""
    # Written by the process that started this one.
    request = pickle.loads((folder / "request").read_bytes())  # noqa: S301
    _confine(*request["limits"])
    path, route = Path(request["path"]), request["route"]
    try:
        if route == "torch":
            reply = _torch(path, folder / "model.pt2", request["examples"], request["dynamic"])
        elif route == "saved_model":
            reply = _saved_model(path, folder / "model.onnx")
        else:
            export_onnx(_load(path), folder / "model.onnx")
            reply = {}
    except Exception as error:  # noqa: BLE001
        reply = {"error": getattr(error, "message", None) or f"{path}: {error}"}
    (folder / "reply").write_text(json.dumps(reply))


def export_onnx(model: Any, target: Path) -> None:
    """Keras's own export, on TensorFlow through tf2onnx.

    Without a signature Keras exports only models that were called before.
    """
    import keras

    signature = None
    if getattr(model, "inputs", None):

        def spec(x: Any) -> Any:
            return keras.layers.InputSpec(shape=x.shape, dtype=x.dtype, name=x.name)

        signature = [keras.tree.map_structure(spec, model.input)]
    model.export(str(target), format="onnx", verbose=False, input_signature=signature)
    _mend(target)


def _mend(target: Path) -> None:
    """Write out ``Erfc``, which tf2onnx makes of GELU and ONNX has not, as ``1 - Erf``."""
    import onnx
    from onnx import helper

    model = onnx.load(str(target))
    nodes = list(model.graph.node)
    if not any(node.op_type == "Erfc" for node in nodes):
        return
    del model.graph.node[:]
    for node in nodes:
        if node.op_type != "Erfc":
            model.graph.node.append(node)
            continue
        erf, one = f"{node.output[0]}/erf", f"{node.output[0]}/one"
        model.graph.initializer.append(helper.make_tensor(one, onnx.TensorProto.FLOAT, [], [1.0]))
        model.graph.node.append(helper.make_node("Erf", node.input, [erf], node.name))
        model.graph.node.append(helper.make_node("Sub", [one, erf], node.output))
    onnx.save(model, str(target))


def _confine(seconds: float, size: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # TensorFlow and torch map tens of GiB that they never touch.
    held = 2**36
    resource.setrlimit(resource.RLIMIT_AS, (held + size, held + size))


def _load(path: Path) -> Any:
    import keras

    from burnish.compiler.errors import ImportModelError

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        if "Lambda" in str(error) or "safe_mode" in str(error):
            raise ImportModelError(
                f"{path} holds a Lambda layer, which is Python code in the file and is not run "
                "(Keras's safe mode): load it yourself and pass the model, or write the layer as "
                "a class or with keras.ops"
            ) from error
        if "Could not locate class" in str(error) or "custom_objects" in str(error):
            raise ImportModelError(
                f"{path} needs a class that is not Keras's own: load it in Python, where the class "
                f"is, and pass the model ({str(error).splitlines()[0][:300]})"
            ) from error
        raise ImportModelError(f"Keras cannot read {path}: {error}") from error


def _torch(path: Path, target: Path, examples: Any, dynamic: Any) -> dict[str, Any]:
    import torch

    from burnish.compiler.importers.keras_file import KerasModule, with_variable_names
    from burnish.compiler.importers.pytorch.export import export

    module = KerasModule(_load(path)).eval()
    program, names = export(module, examples, dynamic)
    with_variable_names(program, module.model)
    torch.export.save(program, target)
    return {"names": names}


def _saved_model(folder: Path, target: Path) -> dict[str, Any]:
    import tensorflow as tf
    import tf2onnx

    from burnish.compiler.errors import ImportModelError

    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:
        raise ImportModelError(f"TensorFlow cannot read {folder}: {error}") from error
    known = list(loaded.signatures)
    if "serving_default" not in known:
        raise ImportModelError(
            f"{folder} has no signature serving_default, only {', '.join(known) or 'none'}: "
            "save it with signatures={'serving_default': ...}"
        )
    signature = loaded.signatures["serving_default"]
    _, specs = signature.structured_input_signature
    names = list(specs)

    @tf.function(input_signature=[specs[name] for name in names])
    def call(*values: Any) -> Any:
        return signature(**dict(zip(names, values, strict=True)))

    tf2onnx.convert.from_function(call, [specs[name] for name in names], output_path=str(target))
    _mend(target)
    return {}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
