"""Caches of ``transformers`` go in and come out as keys and values; decoding at open lengths."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, VOCABULARY
from transformers import DynamicCache

import burnish
from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers import import_model
from burnish.compiler.parity import parity

PARITY = 1e-4


def language_model(name: str) -> torch.nn.Module:
    (case,) = (case for case in ARCHITECTURES if case.model_type == name)
    model = case.model()
    model.config.use_cache = True
    return model


def tokens(batch: int, length: int) -> torch.Tensor:
    return torch.randint(5, VOCABULARY, (batch, length))


def eager(model: torch.nn.Module, **inputs: Any) -> Any:
    with torch.no_grad():
        return model(**{"use_cache": True, **inputs})


def compiled(model: torch.nn.Module, inputs: Any, dynamic: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers, of its own names and sizes
        return burnish.compile(model, inputs, dynamic=dynamic, do_no_harm=False, threads=2)


def filled(model: torch.nn.Module, batch: int, length: int) -> DynamicCache:
    return eager(model, input_ids=tokens(batch, length), cache=DynamicCache()).cache


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_step_of_decoding_at_open_lengths(name: str) -> None:
    model = language_model(name)
    inputs = {"input_ids": tokens(2, 1), "cache": filled(model, 2, 8)}
    dynamic = {"input_ids": {0: "batch"}, "cache": {0: "batch", 2: "past"}}
    ready = compiled(model, inputs, dynamic)
    assert inputs["cache"].get_seq_length() == 8  # the example is as it was
    assert ready.signature.symbols == {"batch": (1, None), "past": (1, None)}
    for batch, past in ((1, 3), (3, 11), (2, 30)):
        cache, new = filled(model, batch, past), tokens(batch, 1)
        pairs = tuple((layer.keys, layer.values) for layer in cache.layers)
        got = ready(input_ids=new, cache=pairs)
        assert parity(ready(input_ids=new, cache=cache), got).max_abs == 0
        assert [k.shape[2] for pair in got.cache for k in pair] == [past + 1] * 4
        # What came out goes in again.
        more = ready(input_ids=new, cache=got.cache)
        assert parity(got, eager(model, input_ids=new, cache=cache)).rel <= PARITY
        assert parity(more, eager(model, input_ids=new, cache=cache)).rel <= PARITY


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["llama", "mistral", "t5"])
def test_what_a_prompt_leaves(name: str) -> None:
    model = language_model(name)

    def inputs(batch: int, length: int) -> dict[str, Any]:
        given = {"input_ids": tokens(batch, length)}
        more = {"decoder_input_ids": tokens(batch, 4), "use_cache": True}
        return {**given, **more} if name == "t5" else given

    both = {0: "batch", 1: "seq"}
    dynamic = {"input_ids": both}
    if name == "t5":
        dynamic["decoder_input_ids"] = {0: "batch"}
    ready = compiled(model, inputs(2, 8), dynamic)
    for batch, length in ((1, 5), (3, 13), (4, 31)):
        given = inputs(batch, length)
        got, want = ready(**given), eager(model, **given)
        assert parity(got, want).rel <= PARITY
        sides = got.cache if name == "t5" else {"all": got.cache}
        for side in sides.values():
            assert isinstance(side, tuple)
            assert all(isinstance(pair, tuple) and len(pair) == 2 for pair in side)


def test_open_sizes_by_layer() -> None:
    class Sum(torch.nn.Module):
        def forward(self, past: DynamicCache, x: torch.Tensor) -> torch.Tensor:
            first, second = past.layers
            return first.keys.sum(2) + second.values.sum(2) + x

    def cache(length: int) -> DynamicCache:
        return DynamicCache([(torch.randn(1, 2, length, 3), torch.randn(1, 2, length + 1, 3))] * 2)

    axes = [({2: "keys"}, {2: "values"}), ({2: "keys"}, {2: "values"})]
    read = import_model(Sum().eval(), (cache(4), torch.ones(3)), dynamic={"past": axes})
    shapes = [spec.shape[2] for spec in read.signature.inputs if len(spec.shape) == 4]
    assert shapes == ["keys", "keys", "values", "values"]
    given = cache(6)
    flat = read.signature.flatten((given, np.ones(3)))
    assert [flat[i] is t for i, t in enumerate([x.keys for x in given.layers])] == [True, True]


def test_a_cache_of_windows_is_refused_as_an_input() -> None:
    model = language_model("mistral")
    past = eager(model, input_ids=tokens(2, 8)).cache
    with pytest.raises(
        ImportModelError, match=r"sliding windows .* made without its configuration"
    ):
        import_model(model, {"input_ids": tokens(2, 1), "cache": past})
