"""Kinds of model files that are converted in a child process, and what converts each.

A format is five functions, named ``module:function`` below ``burnish.compiler.importers``, so that
what they need is loaded on first use:

``read(path)``       the file -> its content; checks that need no conversion. Also called as
                     ``read(path, params)`` where weights were given beside the file
``digest(content)``  sha256 of the content, in hexadecimal
``inputs(content)``  run-time inputs, :class:`Input` each
``convert(content, example_inputs, dynamic, fold)``  the module under the IR convention, and its
                     :class:`~burnish.compiler.signature.Signature`
``work(content, example_inputs)``  one :class:`~burnish.compiler.importers.survey.Work` a node
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Input:
    """A run-time input as the file declares it; an open size is its name, or ``""``."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True)
class Format:
    """One kind of file; see the module's docstring for the functions."""

    kind: str
    suffixes: tuple[str, ...]
    read: str
    digest: str
    inputs: str
    convert: str
    work: str

    def function(self, name: str) -> Callable[..., Any]:
        """One of the five, by its field's name."""
        module, _, function = getattr(self, name).partition(":")
        return getattr(importlib.import_module(f"burnish.compiler.importers.{module}"), function)


FORMATS = {
    item.kind: item
    for item in (
        Format(
            "onnx",
            (".onnx",),
            read="onnx.checks:load_onnx",
            digest="onnx.model:proto_hash",
            inputs="onnx.inputs:declared_inputs",
            convert="onnx.model:import_onnx",
            work="onnx.survey:work_of",
        ),
        Format(
            "tflite",
            (".tflite",),
            read="tflite.model:read_model",
            digest="tflite.model:digest",
            inputs="tflite.model:declared_inputs",
            convert="tflite.model:import_tflite",
            work="tflite.survey:work_of",
        ),
        Format(
            "relay",
            (".json", ".relay", ".txt"),
            read="relay.read:read_relay",
            digest="relay.read:digest",
            inputs="relay.importer:declared_inputs",
            convert="relay.importer:import_relay",
            work="relay.survey:work_of",
        ),
    )
}


def format_of(suffix: str) -> Format | None:
    """The format of files with this suffix (lower case, with its dot)."""
    return next((item for item in FORMATS.values() if suffix in item.suffixes), None)
