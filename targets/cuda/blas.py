"""Products that NVIDIA's cuBLASLt computes in a kernel's place: which, and what is linked for it.

``blas.c`` is linked into the library and opens cuBLASLt when the model first calls it, so that
neither building nor loading needs it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

DTYPES = ("float16", "bfloat16", "float32")
ACTIVATIONS = {"": 0, "relu": 8, "gelu_tanh": 16}
"""What cuBLASLt applies after a product, and its bit in the flags of ``blas.c``."""
_A_TURNED, _B_TURNED, _BIAS = 1, 2, 4
_KEY = re.compile(
    rf"(?:{'|'.join(DTYPES)}) (?:\[[0-9x]*\*[0-9x]*\] )?[0-9]+x[0-9]+x[0-9]+ [nt][nt](?:\+bias)?"
    rf"(?:\+(?:{'|'.join(filter(None, ACTIVATIONS))}))?"
)


@dataclass(frozen=True)
class Product:
    """``a [*a_outer, M, K] b [*b_outer, K, N] -> [.., M, N]``, all of ``dtype``, sums in float32.

    A ``turned`` operand has its last two axes the other way round. ``bias`` is one number a column,
    added before the activation.
    """

    library: ClassVar[str] = "cublas"
    symbol: ClassVar[str] = "burnish_cublas_matmul"
    source: ClassVar[Path] = Path(__file__).with_name("blas.c")

    dtype: str
    m: int
    n: int
    k: int
    a_outer: tuple[int, ...] = ()
    b_outer: tuple[int, ...] = ()
    a_turned: bool = False
    b_turned: bool = False
    bias: bool = False
    activation: str = ""

    @property
    def key(self) -> str:
        """One line that says it: ``float16 128x768x3072 nt+bias``, sizes as M x N x K."""
        outer = [self.a_outer, self.b_outer] if self.a_outer or self.b_outer else []
        batch = "*".join("x".join(map(str, sizes)) for sizes in outer)
        return (
            f"{self.dtype} {f'[{batch}] ' if batch else ''}{self.m}x{self.n}x{self.k} "
            f"{'t' if self.a_turned else 'n'}{'t' if self.b_turned else 'n'}"
            f"{'+bias' if self.bias else ''}{f'+{self.activation}' if self.activation else ''}"
        )

    @property
    def numbers(self) -> tuple[int, ...]:
        """The same for ``blas.c``: flags."""
        bits = self.a_turned * _A_TURNED | self.b_turned * _B_TURNED | self.bias * _BIAS
        return (bits | ACTIVATIONS[self.activation],)

    def why_not(self) -> str:
        """Why cuBLASLt does not take it; empty where it does."""
        if self.activation not in ACTIVATIONS:
            return f"it does not apply {self.activation}"
        if self.dtype not in DTYPES:
            return f"it takes {', '.join(DTYPES)}, not {self.dtype}"
        if self.a_outer and self.b_outer and self.a_outer != self.b_outer:
            return f"it repeats a whole operand or none of it: {self.a_outer} with {self.b_outer}"
        if min(self.m, self.n, self.k) < 1:
            return "an axis has no elements"
        return ""


def is_key(key: str) -> bool:
    """Whether ``key`` is of the form of :attr:`Product.key`."""
    return _KEY.fullmatch(key) is not None
