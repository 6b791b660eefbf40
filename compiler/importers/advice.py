"""What to do about an operator without converter: the nearest supported form, and a remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

CLOSE = 0.75
_PLACE = re.compile(r'File "([^"]+)", line (\d+)')
_LIBRARY = ("/torch/", "/transformers/", "/keras/", "/onnx/")


def nearest(name: str, known: Iterable[str]) -> str:
    """The supported operator whose name is most like this one, or ``""``."""
    plain = {item.lower().replace("_", ""): item for item in sorted(known)}
    wanted = name.lower().replace("_", "")
    found = difflib.get_close_matches(wanted, [key for key in plain if key != wanted], 1, CLOSE)
    return plain[found[0]] if found else ""


def source_line(stack_trace: str) -> str:
    """``file:line`` of the innermost frame that is the user's own, else of the innermost one."""
    places = _PLACE.findall(stack_trace)
    own = [place for place in places if not any(part in place[0] for part in _LIBRARY)]
    for file, line in reversed(own or places):
        return f"{file}:{line}"
    return ""


def onnx_remedy(domain: str) -> str:
    """For a node of an ONNX model."""
    if domain in ("", "ai.onnx"):
        return "export the model with an operator that has a converter in its place"
    return (
        f"export without the operators of {domain}, put their definition into the model as a "
        "function, which is written out, or register a converter: burnish.register_converter("
        f"'{domain}::OP', fn, format='onnx')"
    )


def tflite_remedy(name: str) -> str:
    """For an operator of a TFLite model."""
    if name.startswith("CUSTOM:Flex"):
        return "convert without SELECT_TF_OPS, or give the .keras file or the SavedModel"
    if name.startswith("CUSTOM:"):
        return "convert without custom operators, or give the .keras file or the SavedModel"
    return "give the .keras file or the SavedModel that the file was made of"
