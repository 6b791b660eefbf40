"""Attention kernels for tests: as lowering makes them, and what they compute in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from tvm import te, tirx

from burnish.passes.lower_attention import attention
from burnish.targets.attention_form import ATTENTION

DTYPES = {"bfloat16": ml_dtypes.bfloat16}


@dataclass(frozen=True)
class Case:
    """``q [b, m, h, d], k [b, n, kv, d], v [b, n, kv, e]``; ``bias`` says which of its axes before
    the keys are not 1. With ``open_sizes``, ``b``, ``m`` and ``n`` are known when it runs."""

    b: int = 1
    m: int = 7
    n: int = 9
    h: int = 2
    kv: int = 2
    d: int = 16
    e: int = 16
    causal: int = 0
    bias: tuple[bool, bool, bool] | None = None
    dtype: str = "float32"
    scale: float = 0.3
    open_sizes: bool = False

    def shapes(self) -> list[tuple[int, ...]]:
        """Of the inputs."""
        shapes: list[tuple[int, ...]] = [
            (self.b, self.m, self.h, self.d),
            (self.b, self.n, self.kv, self.d),
            (self.b, self.n, self.kv, self.e),
        ]
        if self.bias is not None:
            full = (self.b, self.h, self.m)
            kept = zip(full, self.bias, strict=True)
            shapes.append((*(size if keep else 1 for size, keep in kept), self.n))
        return shapes

    def func(self) -> tirx.PrimFunc:
        """The definition with the attribute that says what it is."""
        b, m, n = (
            (tirx.Var(name, "int64") for name in "bmn")
            if self.open_sizes
            else (self.b, self.m, self.n)
        )
        forms = [(b, m, self.h, self.d), (b, n, self.kv, self.d), (b, n, self.kv, self.e)]
        if self.bias is not None:
            kept = zip((b, self.h, m), self.bias, strict=True)
            forms.append((*(size if keep else 1 for size, keep in kept), n))
        given = [te.placeholder(form, self.dtype, name=f"x{i}") for i, form in enumerate(forms)]
        out = attention(self.scale, self.causal)(*given)
        info = {"scale": self.scale, "causal": self.causal, "bias": int(self.bias is not None)}
        func = te.create_prim_func([*given, out])
        return func.with_attr({"global_symbol": "kernel", ATTENTION: info})

    def inputs(self, seed: int = 0) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        dtype = DTYPES.get(self.dtype, self.dtype)
        return [rng.normal(size=shape).astype(dtype) for shape in self.shapes()]

    def expected(self, given: list[np.ndarray]) -> np.ndarray:
        """In float64; zeros for rows that see no key."""
        q, k, v, *bias = (x.astype("float64") for x in given)
        q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
        k, v = (np.repeat(x, self.h // self.kv, 1) for x in (k, v))
        scores = q @ k.swapaxes(-1, -2) * self.scale
        if bias:
            scores = scores + bias[0]
        if self.causal:
            seen = np.tri(self.m, self.n, 0 if self.causal == 1 else self.n - self.m)
            scores = np.where(seen > 0, scores, -np.inf)
        top = scores.max(-1, keepdims=True, initial=-np.inf)
        shares = np.exp(scores - np.where(np.isinf(top), 0, top))
        total = shares.sum(-1, keepdims=True)
        shares = shares / np.where(total > 0, total, 1)
        return (shares @ v).transpose(0, 2, 1, 3)


@st.composite
def cases(draw: st.DrawFn, depths: tuple[int, ...] = (2, 16, 20, 33, 64, 80), **more: Any) -> Case:
    """Attention of any form."""
    kv = draw(st.sampled_from([1, 2]))
    flag = st.booleans()
    return Case(
        b=draw(st.integers(1, 2)),
        m=draw(st.sampled_from([1, 2, 3, 5, 16, 17, 33, 70])),
        n=draw(st.sampled_from([1, 2, 15, 16, 17, 33, 64, 65, 100, 300])),
        h=kv * draw(st.sampled_from([1, 1, 2, 3])),
        kv=kv,
        d=draw(st.sampled_from(depths)),
        e=draw(st.sampled_from(depths)),
        causal=draw(st.integers(0, 2)),
        bias=draw(st.one_of(st.none(), st.tuples(flag, flag, flag))),
        **more,
    )
