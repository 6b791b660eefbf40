"""What is said of an ONNX node that cannot be imported."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import ModelProto, NodeProto

from burnish.compiler.importers.advice import nearest, onnx_remedy, source_line
from burnish.compiler.importers.onnx import tvm_converters
from burnish.compiler.importers.onnx.bodies import has_body
from burnish.compiler.importers.onnx.checks import graphs_of
from burnish.compiler.importers.onnx.registry import STANDARD, all_converters, converter_of
from burnish.compiler.importers.unsupported import NO_CONVERTER, Found


def not_found(proto: NodeProto, where: str, versions: Mapping[str, int], why: str = "") -> Found:
    """A node, why it is refused (``""``: there is no converter), and what comes nearest."""
    domain = "" if proto.domain in STANDARD else proto.domain
    names = STANDARD if domain == "" else (domain,)
    version = next((versions[name] for name in names if name in versions), None)
    trace = next((p.value for p in proto.metadata_props if p.key.endswith("stack_trace")), "")
    unheard = _unheard(proto, domain, version or 1)
    absent = bool(not why or unheard or why.endswith("has no such converter"))
    return Found(
        f"{domain or 'ai.onnx'}.{proto.op_type}",
        where,
        why or unheard or NO_CONVERTER,
        domain=domain or "ai.onnx",
        version=version,
        source=source_line(trace),
        nearest=_nearest(proto.op_type, domain, version or 1) if absent else "",
        remedy=onnx_remedy(domain) if absent else "",
    )


def unknown_nodes(model: ModelProto) -> list[Found]:
    """Nodes whose operator has no converter in any form; ONNX Runtime knows few of them either."""
    versions = {o.domain: o.version for o in model.opset_import}
    found = []
    for graph in graphs_of(model.graph):
        for node in graph.node:
            domain = "" if node.domain in STANDARD else node.domain
            version = versions.get(domain, versions.get("ai.onnx", 1))
            known = (
                (domain == "" and node.op_type == "Constant")
                or converter_of(domain, node.op_type, version) is not None
                or tvm_converters.has_converter(node.op_type, domain)
                or has_body(node.op_type, domain, version)
            )
            if not known or _unheard(node, domain, version):
                where = node.name or next((n for n in node.output if n), node.op_type)
                found.append(not_found(node, where, versions))
    return found


def _unheard(node: NodeProto, domain: str, version: int) -> str:
    """That ONNX itself has no such operator in this version, where that is so."""
    if domain or node.op_type == "Constant" or onnx.defs.has(node.op_type, version, domain):
        return ""
    later = onnx.defs.has(node.op_type, onnx.defs.onnx_opset_version(), domain)
    if later:
        since = onnx.defs.get_schema(node.op_type, onnx.defs.onnx_opset_version(), domain)
        return f"ONNX has it from version {since.since_version} on"
    return "ONNX has no operator of this name"


def _nearest(op: str, domain: str, version: int) -> str:
    """The same operator of a newer version or another domain, else one of a similar name."""
    own = all_converters()
    newer = [since for since, _ in own.get((domain, op), ()) if since > version]
    if newer:
        return f"{domain or 'ai.onnx'}.{op} from version {min(newer)}"
    elsewhere = [other or "ai.onnx" for other, name in own if name == op and other != domain]
    if domain and (tvm_converters.has_converter(op, "") or has_body(op, "", 26)):
        elsewhere.append("ai.onnx")
    if elsewhere:
        return f"{sorted(elsewhere)[0]}.{op}"
    known = {name for other, name in own if other == domain}
    if not domain:
        schemas = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
        known |= {name for name in schemas if tvm_converters.has_converter(name, "")}
    return nearest(op, known)
