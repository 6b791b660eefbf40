"""The node list of ``tvm.ir.save_json``, with every access checked.

``{"root": 1, "nodes": [...], "b64ndarrays": [...], "attrs": {...}}``; node 0 is null. A node is
``type_key`` with ``attrs`` (all values are text: a literal, or the number of a node), ``data``
(an array's items, a map's values or pairs) or ``repr_str``.
"""

from __future__ import annotations

import json
import re
from typing import Any

from burnish.compiler.importers.relay.attributes import (
    IGNORED_KINDS,
    LITERAL_KINDS,
    fields_of_class,
)
from burnish.compiler.importers.relay.graph import Opaque, RelayError

NUMBER = re.compile(r"-?\d{1,19}")
MAX_DEPTH = 16
MAX_ITEMS = 1_000_000


class Nodes:
    """Typed access to the nodes; a wrong kind is an error with the node's number."""

    def __init__(self, data: bytes, what: str) -> None:
        self.what = what
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise RelayError(f"{what} is no JSON, it may be truncated: {error}") from None
        if not isinstance(document, dict) or not isinstance(document.get("nodes"), list):
            raise RelayError(
                f"{what} is no module in JSON (it has no list of nodes): tvm.ir.save_json of a "
                "TVM up to 0.19 writes one"
            )
        self.nodes: list[Any] = document["nodes"]
        self.arrays = document.get("b64ndarrays", [])
        root = document.get("root")
        self.version = str((document.get("attrs") or {}).get("tvm_version", "unknown"))
        self._left = MAX_ITEMS
        if not isinstance(self.arrays, list):
            raise RelayError(f"{what}: b64ndarrays must be a list")
        if not isinstance(root, int) or not 0 < root < len(self.nodes):
            raise RelayError(f"{what}: the root {root!r} is no node")
        self.root = root

    def key(self, at: int) -> str:
        node = self.nodes[at]
        key = node.get("type_key") if isinstance(node, dict) else None
        if not isinstance(key, str):
            raise RelayError(f"{self.what}: node {at} has no type_key")
        return key

    def expect(self, at: int, *keys: str) -> int:
        if self.key(at) not in keys:
            raise RelayError(
                f"{self.what}: node {at} is {self.key(at) or 'null'}, where "
                f"{' or '.join(keys)} is expected"
            )
        return at

    def attrs(self, at: int) -> dict[str, Any]:
        attrs = self.nodes[at].get("attrs", {})
        if not isinstance(attrs, dict):
            raise RelayError(f"{self.what}: node {at} ({self.key(at)}) has no attributes")
        return attrs

    def text(self, at: int, name: str) -> str:
        value = self.attrs(at).get(name)
        if not isinstance(value, str):
            raise RelayError(f"{self.what}: node {at} ({self.key(at)}) lacks {name}")
        return value

    def number(self, at: int, name: str) -> int:
        text = self.text(at, name)
        if not NUMBER.fullmatch(text):
            raise RelayError(
                f"{self.what}: node {at} ({self.key(at)}): {name} must be a number, got {text!r}"
            )
        return int(text)

    def ref(self, at: int, name: str) -> int:
        """The node that a field names; 0 is null, and what an absent field is."""
        if name not in self.attrs(at):
            return 0
        return self._inside(at, self.number(at, name))

    def _inside(self, at: int, other: object) -> int:
        if not isinstance(other, int) or isinstance(other, bool):
            raise RelayError(f"{self.what}: node {at} names {other!r:.40}, which is no node")
        if not 0 <= other < len(self.nodes):
            raise RelayError(
                f"{self.what}: node {at} names node {other}; there are {len(self.nodes)}"
            )
        return other

    def items(self, at: int) -> list[int]:
        """The nodes of an Array."""
        self.expect(at, "Array")
        return self._data(at)

    def _data(self, at: int) -> list[int]:
        data = self.nodes[at].get("data", [])
        if not isinstance(data, list):
            raise RelayError(f"{self.what}: node {at} ({self.key(at)}) has no list of items")
        return [self._inside(at, other) for other in data]

    def pairs(self, at: int) -> list[tuple[int | str, int]]:
        """Keys and values of a Map; a key is text, or a node."""
        self.expect(at, "Map", "StrMap")
        data, keys = self._data(at), self.nodes[at].get("keys")
        if keys is not None:
            if not isinstance(keys, list) or len(keys) != len(data):
                raise RelayError(f"{self.what}: node {at} is a map of unequal keys and values")
            return [(str(key), value) for key, value in zip(keys, data, strict=True)]
        if len(data) % 2:
            raise RelayError(f"{self.what}: node {at} is a map with a key that has no value")
        return list(zip(data[::2], data[1::2], strict=True))

    def string(self, at: int) -> str:
        """The text of a node that is written as text (operators, strings, source names)."""
        text = self.nodes[at].get("repr_str", "")
        if not isinstance(text, str):
            raise RelayError(f"{self.what}: node {at} ({self.key(at)}) must hold text")
        return text

    def value(self, at: int, depth: int = 0) -> Any:
        """An attribute's value: numbers, text, tuples; None for null and open sizes."""
        self._left -= 1
        if depth > MAX_DEPTH or self._left < 0:
            raise RelayError(f"{self.what}: attribute values nest too deep or are too many")
        key = self.key(at)
        match key:
            case "":
                return None
            case "IntImm":
                return self.number(at, "value")
            case "FloatImm":
                return self._float(at, self.text(at, "value"))
            case "runtime.String" | "tir.StringImm" | "StringImm":
                return self.string(at) or self.attrs(at).get("value", "")
            case "runtime.BoxInt" | "runtime.BoxBool":
                text = {"True": "1", "False": "0"}.get(self.string(at), self.string(at))
                if not NUMBER.fullmatch(text):
                    raise RelayError(f"{self.what}: node {at} must hold a number, got {text!r:.40}")
                return int(text)
            case "runtime.BoxFloat":
                return self._float(at, self.string(at))
            case "Array":
                return tuple(self.value(item, depth + 1) for item in self.items(at))
            case "Any" | "tir.Any":
                return None
        return Opaque(key)

    def literal(self, at: int, name: str, kind: str) -> Any:
        """An attribute that is written in place."""
        text = self.text(at, name)
        if kind in ("str", "DataType"):
            return text
        if kind == "double":
            return self._float(at, text)
        return self.number(at, name)

    def attributes(self, at: int) -> dict[str, Any]:
        """The fields of an operator's attributes, by the kinds of their class."""
        kinds = fields_of_class(self.key(at).removeprefix("relay.attrs."))
        given = {}
        for field, (kind, *_) in (kinds or {}).items():
            if field not in self.attrs(at) or kind in IGNORED_KINDS:
                continue
            if kind in LITERAL_KINDS:
                given[field] = self.literal(at, field, kind)
            else:
                given[field] = self.value(self.ref(at, field))
        return given

    def _float(self, at: int, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise RelayError(
                f"{self.what}: node {at} must hold a number, got {text!r:.40}"
            ) from None
