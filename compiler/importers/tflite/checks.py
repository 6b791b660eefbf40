"""Every operator of a TFLite file that has no converter, in one error."""

from __future__ import annotations

from typing import Any

from burnish.compiler.importers.advice import nearest, tflite_remedy
from burnish.compiler.importers.tflite.graph import GraphImporter, Table
from burnish.compiler.importers.tflite.schema import operator_name, tensor_name
from burnish.compiler.importers.unsupported import NO_CONVERTER, Found, unsupported_error

# Named in TVM's table, but not tensor operators, or random, or without an order that is ours.
REFUSED = {
    "ASSIGN_VARIABLE": "state that lasts between calls: return it as an output instead",
    "DELEGATE": "code for another machine: give the file before it was delegated",
    "PLACEHOLDER_FOR_GREATER_OP_CODES": "no operator",
    "MULTINOMIAL": "random numbers: give them as an input",
    "RANDOM_STANDARD_NORMAL": "random numbers: give them as an input",
    "RANDOM_UNIFORM": "random numbers: give them as an input",
    "STABLEHLO_RNG_BIT_GENERATOR": "random numbers: give them as an input",
}
INITIAL = ("ASSIGN_VARIABLE",)  # allowed where CALL_ONCE runs it


def check_supported(model: Any) -> None:
    """Raise :class:`UnsupportedOperatorError` with all of them, or return."""
    found = unsupported(model)
    if found:
        raise unsupported_error("TFLite", found)


def unsupported(model: Any) -> list[Found]:
    """What cannot be converted, a :class:`Found` for each node."""
    known = supported(model)
    found = []
    for number in range(model.SubgraphsLength()):
        graph = model.Subgraphs(number)
        for index in range(graph.OperatorsLength()):
            operator = graph.Operators(index)
            name, version = operator_name(model, operator)
            allowed = number and name in INITIAL
            if (name in known and name not in REFUSED) or allowed:
                continue
            outputs = operator.OutputsAsNumpy() if operator.OutputsLength() else []
            node = tensor_name(graph, int(outputs[0])) if len(outputs) else f"{number}:{index}"
            reason = REFUSED.get(name, NO_CONVERTER)
            known_names = known - set(REFUSED)
            found.append(
                Found(
                    name,
                    node,
                    reason,
                    domain="tflite",
                    version=version,
                    nearest=nearest(name.removeprefix("CUSTOM:").removeprefix("Flex"), known_names),
                    remedy="" if name in REFUSED else tflite_remedy(name),
                )
            )
    return found


def supported(model: Any) -> set[str]:
    """Names of the operators that have a converter."""
    import tvm

    importer = GraphImporter(model, model.Subgraphs(0), Table({}), tvm.relax.BlockBuilder())
    return {*importer.convert_map, "CUSTOM:TFLite_Detection_PostProcess"}
