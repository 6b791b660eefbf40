"""Attention of language models stays one operator a layer, whichever way heads are shared."""

from __future__ import annotations

from collections import Counter

import pytest
from architectures import ARCHITECTURES

from burnish.compiler.importers import import_model
from burnish.passes.lower_attention import LowerAttention
from relax_support import apply, op_names

SHARED = {"llama": 4, "qwen2": 4, "mistral": 4, "gemma": 4, "phi": 0}
"""Broadcasts of keys and values: two a layer where heads are shared."""


@pytest.mark.parametrize(
    "name",
    ["llama", *(pytest.param(n, marks=pytest.mark.heavy) for n in SHARED if n != "llama")],
)
@pytest.mark.parametrize("open_sizes", [False, True])
def test_one_attention_a_layer(name: str, open_sizes: bool) -> None:
    (case,) = (case for case in ARCHITECTURES if case.model_type == name)
    model = case.model()
    dynamic = dict(case.kind.dynamic) if open_sizes else None
    read = import_model(model, case.inputs(model), dynamic=dynamic)
    before = Counter(op_names(read.mod))
    assert before["nn.attention_bias"] + before["nn.attention"] == model.config.num_hidden_layers
    assert before["nn.softmax"] == 0
    # The heads that layers share are read where they are.
    after = Counter(op_names(apply(LowerAttention(), read.mod)))
    assert after["call_tir"] == model.config.num_hidden_layers
    assert before["broadcast_to"] - after["broadcast_to"] == SHARED[name]
