"""Convolutions that NVIDIA's cuDNN computes in a kernel's place.

``dnn.c`` is linked into the library and opens cuDNN when the model first calls it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from burnish.targets.cuda.blas import DTYPES

_PAIR = "([0-9]+)x([0-9]+)"
_KEY = re.compile(
    rf"(?:{'|'.join(DTYPES)}) [0-9]+x[0-9]+x[0-9]+x[0-9]+ [0-9]+x[0-9]+x[0-9]+x[0-9]+"
    rf" p{_PAIR} s{_PAIR} d{_PAIR} g[0-9]+(?:\+bias(?:\+relu)?)?"
)


@dataclass(frozen=True)
class Convolution:
    """``x [N, H, W, C], w [O, KH, KW, C / groups] -> [N, P, Q, O]``, of ``dtype``, sums in float32.

    Pads are the same at both ends of an axis. ``bias`` is one number an output channel, added
    before the activation, which comes with a bias only.
    """

    library: ClassVar[str] = "cudnn"
    symbol: ClassVar[str] = "burnish_cudnn_conv2d"
    source: ClassVar[Path] = Path(__file__).with_name("dnn.c")

    dtype: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    pads: tuple[int, ...] = (0, 0)
    strides: tuple[int, ...] = (1, 1)
    dilations: tuple[int, ...] = (1, 1)
    groups: int = 1
    bias: bool = False
    activation: str = ""

    @property
    def key(self) -> str:
        """One line that says it: ``float16 1x56x56x64 64x3x3x64 p1x1 s1x1 d1x1 g1+bias+relu``."""
        x, w, p, s, d = (
            "x".join(map(str, sizes))
            for sizes in (self.x, self.w, self.pads, self.strides, self.dilations)
        )
        after = f"{'+bias' if self.bias else ''}{f'+{self.activation}' if self.activation else ''}"
        return f"{self.dtype} {x} {w} p{p} s{s} d{d} g{self.groups}{after}"

    @property
    def numbers(self) -> tuple[int, ...]:
        """The same for ``dnn.c``."""
        relu = int(self.activation == "relu")
        return (*self.pads, *self.strides, *self.dilations, self.groups, relu)

    def why_not(self) -> str:
        """Why cuDNN does not take it; empty where it does."""
        if self.dtype not in DTYPES:
            return f"it takes {', '.join(DTYPES)}, not {self.dtype}"
        if self.activation not in ("", "relu"):
            return f"it applies relu only, not {self.activation}"
        if self.activation and not self.bias:
            return "it applies relu after a bias only"
        if min(*self.x, *self.w) < 1:
            return "an axis has no elements"
        return ""


def is_key(key: str) -> bool:
    """Whether ``key`` is of the form of :attr:`Convolution.key`."""
    return _KEY.fullmatch(key) is not None
