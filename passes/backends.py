"""Code generators other than our own, as devices: what they can take, and what they make of it.

One is registered under a name, which is then a device of ``target="hetero:NAME,cpu"``. Nothing of
it is called when a model runs: what it made is in the library, or a function of the process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import tvm
from tvm import relax

from burnish.passes.regions import Region
from burnish.targets import hetero

NAME = re.compile(r"[a-z][a-z0-9_-]*")
SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Code:
    """How a region is called: ``symbol(*stored, *said, *inputs, *outputs)``, outputs are written.

    ``symbol``  a function in ``source``, or one of the process.
    ``source``  C that defines ``int SYMBOL(DLTensor** tensors, int count)``, which writes the last
                tensors and returns 0; compiled for the host, and linked into the library.
    ``stored``  arrays that the code needs, kept as weights of the model.
    ``said``    numbers and words for the function.
    ``holds_weights``  the region's weights are in ``stored`` or ``source``, and not passed.
    """

    symbol: str
    source: str = ""
    stored: tuple[np.ndarray, ...] = ()
    said: tuple[str | int | float, ...] = ()
    holds_weights: bool = False

    def __post_init__(self) -> None:
        if not SYMBOL.fullmatch(self.symbol):
            raise ValueError(f"the symbol {self.symbol!r} is no name of a C function")
        if self.source and (self.stored or self.said):
            raise ValueError("C source takes tensors alone: put numbers and arrays into its text")


class Backend(Protocol):
    """A code generator. ``name`` is the device's, ``memory`` the device whose memory it uses."""

    name: str
    memory: str

    def why_not(self, call: relax.Expr) -> str:
        """Why it cannot compute ``call``; empty where it can."""

    def why_not_region(self, region: Region) -> str:
        """Why a region of calls that it can compute is not worth it; empty where it is."""

    def seconds(self, region: Region) -> float | None:
        """What a region is expected to take; ``None`` where that is to be measured."""

    def compile(self, region: Region, weights: Mapping[str, np.ndarray], name: str) -> Code:
        """The code of a region. ``weights`` has the values of its inputs that are weights, by
        name; ``name`` is one that no other region of the model has, fit for C."""


@runtime_checkable
class ReadsModule(Protocol):
    """A code generator that takes calls of the module's own kernels too, and so has to see them."""

    def within(self, mod: tvm.IRModule) -> Backend:
        """The same, for regions of ``mod``."""


registered: dict[str, Backend] = {}


def register(backend: Backend) -> None:
    """Make a backend a device. ``ValueError`` for a name that is none, or taken by another."""
    if not isinstance(backend.name, str) or not NAME.fullmatch(backend.name):
        raise ValueError(f"a device's name is lower-case letters and digits, got {backend.name!r}")
    if backend.name in (*hetero.KINDS, *BUILT_IN, "llvm", "rpc", "remote", "hetero"):
        raise ValueError(f"the device {backend.name!r} is there already: take another name")
    hetero.parse_place(backend.memory)
    for wanted in ("why_not", "why_not_region", "seconds", "compile"):
        if not callable(getattr(backend, wanted, None)):
            raise ValueError(f"the device {backend.name!r} has no {wanted}")
    registered[backend.name] = backend
    hetero.external[backend.name] = backend.memory


BUILT_IN: Mapping[str, str] = {"cublas": "cuda:0", "tensorrt": "cuda:0"}
"""Devices that are libraries of NVIDIA's, and the memory they use."""
hetero.external.update(BUILT_IN)
