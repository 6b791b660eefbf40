"""Attention of opsets 23 to 25: one attention operator where there is one, else its parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tvm import relax, te, tirx
from tvm.ir import Expr
from tvm.sym import Analyzer

from burnish.compiler.importers.onnx.emit import astype, const, is_one, kernel, op, spread
from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts

_LOWEST = -3.0e38
_MASK, _PAST_KEY, _PAST_VALUE, _LENGTHS = 3, 4, 5, 6


@converts("Attention", since=23)
def attention(node: Node) -> Result:
    """``Q, K, V, mask, past key, past value, lengths -> Y, present key, present value, scores``.

    Float32 without softcap and without scores as an output becomes ``R.nn.attention``; what
    masks, lengths and windows forbid is added as a bias. Other forms are products and a softmax,
    computed in float32. Rows that may see nothing give 0.
    """
    attrs = node.attrs
    if any(node.shape(i) is None for i in range(3)):
        return None
    q, k, v = (_heads_third(node, i, "q" if i == 0 else "kv") for i in range(3))
    present: tuple[relax.Expr | None, relax.Expr | None] = (None, None)
    past = node.input(_PAST_KEY) is not None
    if past or node.wants(1) or node.wants(2):
        pairs = ((k, node.input(_PAST_KEY)), (v, node.input(_PAST_VALUE)))
        k_out, v_out = (_appended(node, new, old) for new, old in pairs)
        present = (k_out, v_out)
        if past:
            k, v = (node.emit(op.permute_dims(x, [0, 2, 1, 3])) for x in (k_out, v_out))
    fused = node.dtype() == "float32" and not float(attrs.get("softcap", 0.0))
    fused = fused and not node.wants(3)
    bias, seen = _bias(node, q, k, past=past, apart=fused)
    k, v = _repeated(node, q, k, v)
    scale = float(attrs["scale"]) if "scale" in attrs else 1 / math.sqrt(int(q.ty.shape[3]))
    if not fused:
        y, scores = _by_parts(node, (q, k, v), bias, seen, scale)
        return (_heads_back(node, y), *present, scores)
    causal = None
    if attrs.get("is_causal") and not _by_bias(node):
        # Both are the diagonal that starts at the end of the past.
        causal = "BottomRight" if past else "TopLeft"
    made = node.emit(op.nn.attention(q, k, v, bias, scale, causal))
    if seen is not None:
        seen = node.emit(op.permute_dims(seen, [0, 2, 1, 3]))
        made = node.emit(op.where(seen, made, const(0.0, "float32")))
    return (_heads_back(node, made), *present)


def _repeated(
    node: Node, q: relax.Expr, k: relax.Expr, v: relax.Expr
) -> tuple[relax.Expr, relax.Expr]:
    """Keys and values once for each query head."""
    heads, groups = q.ty.shape[2], k.ty.shape[2]
    if Analyzer().can_prove_equal(heads, groups):
        return k, v
    if not all(isinstance(n, tirx.IntImm) for n in (heads, groups)) or int(heads) % int(groups):
        raise Refused(f"{heads} query heads for {groups} key heads")
    times = int(heads) // int(groups)
    return node.emit(op.repeat(k, times, 2)), node.emit(op.repeat(v, times, 2))


def _by_parts(
    node: Node,
    inputs: tuple[relax.Expr, relax.Expr, relax.Expr],
    bias: relax.Expr | None,
    seen: relax.Expr | None,
    scale: float,
) -> tuple[relax.Expr, relax.Expr]:
    """``[B, M, H, E]`` and the scores ``[B, H, M, N]`` at the point ``qk_matmul_output_mode``."""
    dtype = node.dtype()
    wide = "float64" if dtype == "float64" else "float32"
    q, k, v = (
        node.emit(op.permute_dims(astype(x, wide), order))
        for x, order in zip(inputs, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
    )
    scores = node.emit(op.multiply(node.emit(op.matmul(q, k)), const(scale, wide)))
    stages = [scores]
    cap = float(node.attrs.get("softcap", 0.0))
    if cap:
        capped = op.tanh(node.emit(op.divide(scores, const(cap, wide))))
        scores = node.emit(op.multiply(node.emit(capped), const(cap, wide)))
    stages.append(scores)
    if bias is not None:
        scores = node.emit(op.add(scores, astype(bias, wide)))
    stages.append(scores)
    shares = node.emit(op.nn.softmax(scores, -1))
    if seen is not None:
        shares = node.emit(op.where(seen, shares, const(0.0, wide)))
    stages.append(shares)
    y = node.emit(op.permute_dims(node.emit(op.matmul(shares, v)), [0, 2, 1, 3]))
    chosen = stages[int(node.attrs.get("qk_matmul_output_mode", 0))]
    return node.emit(astype(y, dtype)), astype(chosen, dtype)


def _by_bias(node: Node) -> bool:
    """Whether the causal limit is no diagonal of its own, so that the bias holds it."""
    windows = any(int(node.attrs.get(f"{side}_window_size", -1)) >= 0 for side in ("left", "right"))
    if windows or node.input(_LENGTHS) is not None:
        return True
    if node.input(_PAST_KEY) is None:
        return False
    at = 1 if node.ndim() == 3 else 2
    lengths = [node.inputs[i].ty.shape[at] for i in (0, 1)]
    return not Analyzer().can_prove_equal(*lengths)


def _heads_third(node: Node, index: int, kind: str) -> relax.Expr:
    """An input as ``[B, N, H, D]``."""
    x = node.inputs[index]
    if node.ndim(index) == 4:
        return node.emit(op.permute_dims(x, [0, 2, 1, 3]))
    heads = int(node.attrs.get(f"{kind}_num_heads", 0))
    batch, length, width = x.ty.shape
    if not heads or not isinstance(width, tirx.IntImm) or int(width) % heads:
        raise Refused(f"{kind}_num_heads={heads} of an input of width {width}")
    return node.emit(op.reshape(x, [batch, length, heads, int(width) // heads]))


def _heads_back(node: Node, y: relax.Expr) -> relax.Expr:
    """``[B, M, H, E]`` in the layout of the inputs."""
    if node.ndim() == 4:
        return op.permute_dims(y, [0, 2, 1, 3])
    batch, length, heads, depth = y.ty.shape
    return op.reshape(y, [batch, length, heads * depth])


def _appended(node: Node, new: relax.Expr, old: relax.Expr | None) -> relax.Var:
    """``[B, H, P + N, D]``: the past and the new keys or values."""
    across = node.emit(op.permute_dims(new, [0, 2, 1, 3]))
    return across if old is None else node.emit(op.concat([old, across], 2))


def _bias(
    node: Node, q: relax.Expr, k: relax.Expr, *, past: bool, apart: bool
) -> tuple[relax.Expr | None, relax.Expr | None]:
    """What is added to the scores, ``[B or 1, H or 1, M, N]``, and which rows see anything.

    With ``apart``, a causal limit that is a plain diagonal is not part of the bias, and what may
    not be seen has a large negative number; else minus infinity.
    """
    mask, lengths = node.input(_MASK), node.input(_LENGTHS)
    is_causal = bool(node.attrs.get("is_causal"))
    by_bias = _by_bias(node) or (is_causal and not apart)
    if mask is None and not by_bias:
        return None, None
    batch, m, heads, _ = q.ty.shape
    n = k.ty.shape[1]
    rules = _Rules(
        causal=is_causal and by_bias,
        left=int(node.attrs.get("left_window_size", -1)),
        right=int(node.attrs.get("right_window_size", -1)),
        past=node.input(_PAST_KEY).ty.shape[2] if past else tirx.const(0, "int64"),
        lowest=_LOWEST if apart else -math.inf,
    )
    wide: Sequence[Any] = () if mask is None else list(mask.ty.shape)
    whole = [
        batch if lengths is not None or (len(wide) == 4 and not is_one(wide[0])) else 1,
        heads if len(wide) > 2 and not is_one(wide[-3]) else 1,
        m,
        n,
    ]
    has = [mask is not None, lengths is not None]
    given = [x for x in (mask, lengths) if x is not None]
    bias = full = kernel(node, rules.make(whole, *has), *given, name="attention_bias")
    if is_causal and not by_bias:
        # The diagonal may forbid the only keys that the mask leaves.
        rules = replace(rules, causal=True)
        full = kernel(node, rules.make(whole, *has), *given, name="attention_bias")
    top = node.emit(op.max(full, -1, True))
    return bias, node.emit(op.greater(top, const(_LOWEST, "float32")))


@dataclass(frozen=True)
class _Rules:
    """What a query at ``i`` may see: keys up to its own place, within windows, by the mask."""

    causal: bool
    left: int
    right: int
    past: Any
    lowest: float

    def make(self, whole: Sequence[Any], masked: bool, counted: bool) -> Callable[..., te.Tensor]:
        lowest = tirx.const(self.lowest, "float32")

        def bias(*given: te.Tensor) -> te.Tensor:
            mask = given[0] if masked else None
            lengths = given[-1] if counted else None

            def element(b: Any, h: Any, i: Any, j: Any) -> Expr:
                value: Expr = tirx.const(0.0, "float32")
                allowed: list[Expr] = []
                if mask is not None:
                    value = _mask_at(mask, (b, h, i, j), whole[3], lowest)
                place = i + self.past
                if lengths is not None:
                    place = i + lengths(b).astype("int64") - whole[2]
                    allowed.append(j < lengths(b).astype("int64"))
                if self.causal:
                    allowed.append(j <= place)
                if self.left >= 0:
                    allowed.append(place - j <= self.left)
                if self.right >= 0:
                    allowed.append(j - place <= self.right)
                return tirx.Select(tirx.all(*allowed), value, lowest) if allowed else value

            return te.compute(whole, element, name="bias")

        return bias


def _mask_at(mask: te.Tensor, at: tuple[Any, ...], keys: Any, lowest: Expr) -> Expr:
    """The bias a mask gives; beyond its last key nothing may be seen."""
    extent = mask.shape[-1]
    short = not Analyzer().can_prove_equal(extent, keys)
    rank = len(mask.shape)
    place = [*spread(mask.shape[:-1], at[4 - rank : 3]), at[3]]
    if short:
        place[-1] = tirx.min(at[3], extent - 1)
    value = mask(*place)
    if "bool" in str(mask.dtype):
        value = tirx.Select(value, tirx.const(0.0, "float32"), lowest)
    else:
        value = tirx.max(value.astype("float32"), lowest)
    return tirx.Select(at[3] < extent, value, lowest) if short else value
