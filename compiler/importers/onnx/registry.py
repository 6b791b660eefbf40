"""Which converter a node gets: by domain, operator and the version of the operator set.

A converter is a function in a module of :mod:`burnish.compiler.importers.onnx.converters`,
marked with :func:`converts`. All modules of that package are read; nothing else is to be listed.

    @converts("Celu", since=12)
    def celu(node: Node) -> Result: ...

It returns

- a Relax expression: the first output (a sequence is one expression of a tuple type),
- a Python tuple: one expression an output, None for those that ``node.wants`` denies,
- None: it leaves this form to what comes next (TVM's converter, then the schema's own function).

It raises :class:`Refused` for a form that must not be imported.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from burnish.compiler import registry as registered
from burnish.compiler.importers.unsupported import Refused

if TYPE_CHECKING:
    from burnish.compiler.importers.onnx.node import Node

Result: TypeAlias = Any
Converter: TypeAlias = Callable[["Node"], Result]
Key: TypeAlias = tuple[str, str]

STANDARD = ("", "ai.onnx")
_MARK = "__onnx_operators__"


class InnerRefused(Refused):
    """A node inside this one is refused; it is listed itself."""


def converts(op: str, *, since: int = 1, domain: str = "") -> Callable[[Converter], Converter]:
    """Mark a function as the converter of ``op`` from version ``since`` of its operator set on.

    The mark may be repeated, for several operators or versions.
    """

    def mark(function: Converter) -> Converter:
        marks = [*getattr(function, _MARK, ()), (domain, op, since)]
        setattr(function, _MARK, marks)
        return function

    return mark


@functools.cache
def all_converters() -> dict[Key, list[tuple[int, Converter]]]:
    """(domain, operator) -> (since, converter), newest first. Raises for two of one version."""
    from burnish.compiler.importers.onnx import converters

    found: dict[Key, list[tuple[int, Converter]]] = {}
    for info in pkgutil.iter_modules(converters.__path__):
        module = importlib.import_module(f"{converters.__name__}.{info.name}")
        for function in vars(module).values():
            if getattr(function, "__module__", None) != module.__name__:
                continue
            for domain, op, since in getattr(function, _MARK, ()):
                entries = found.setdefault((domain, op), [])
                if any(version == since for version, _ in entries):
                    raise ValueError(f"two converters of {domain or 'ai.onnx'}.{op} since {since}")
                entries.append((since, function))
                entries.sort(key=lambda entry: -entry[0])
    return found


def converter_of(domain: str, op: str, version: int) -> Converter | None:
    """The newest converter that is not newer than ``version``; of the user's own before ours.

    One of the user's that returns None leaves the form to ours.
    """
    plain = "" if domain in STANDARD else domain
    own = registered.onnx_converters.get((plain, op), {})
    newest = max((since for since in own if since <= version), default=None)
    if newest is None:
        return _ours(plain, op, version)
    theirs, ours = own[newest], _ours(plain, op, version)

    def either(node: Node) -> Result:
        found = theirs(node)
        return ours(node) if found is None and ours is not None else found

    return either


def _ours(plain: str, op: str, version: int) -> Converter | None:
    for since, function in all_converters().get((plain, op), ()):
        if since <= version:
            return function
    return None
