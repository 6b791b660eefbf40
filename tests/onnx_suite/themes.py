"""Which theme a case belongs to, and the count by theme."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from onnx_suite.pool import Outcome

# The first theme one of whose words is in the name.
THEMES: tuple[tuple[str, str], ...] = (
    ("strings, images", "string image_decoder tfidf label_encoder regex"),
    ("ai.onnx.ml", "ai_onnx_ml"),
    ("attention", "attention rotary causal_conv"),
    (
        "4-bit, 8-bit floats",
        "float8 FLOAT8 float4 FLOAT4 INT4 INT2 int4 int2_ uint2 _e4m3 _e5m2 E8M0 e8m0",
    ),
    ("training, losses", "_loss sce_ nllloss adam adagrad momentum training nesterov"),
    ("sequence, control flow", "sequence optional loop scan _if_"),
    ("recurrent", "lstm gru_ rnn"),
    ("quantization", "quantize qlinear integer"),
)
OTHER = "ordinary tensors"


def theme(name: str) -> str:
    """The theme of a case, by its name."""
    for found, words in THEMES:
        if any(word in name for word in words.split()):
            return found
    return OTHER


def table(outcomes: Mapping[str, Outcome]) -> str:
    """Counts by theme and status, as lines."""
    counts: Counter[tuple[str, str]] = Counter()
    for name, outcome in outcomes.items():
        counts[theme(name), outcome.status] += 1
    statuses = ("pass", "random", "inexact", "refused", "failed", "wrong", "timeout", "crash")
    lines = [f"{'theme':24}" + "".join(f"{s:>9}" for s in statuses) + f"{'all':>7}"]
    for found in [*(t for t, _ in THEMES), OTHER]:
        row = [counts[found, s] for s in statuses]
        if sum(row):
            lines.append(f"{found:24}" + "".join(f"{n:9}" for n in row) + f"{sum(row):7}")
    return "\n".join(lines)
