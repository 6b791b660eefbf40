"""A 2-million-parameter Llama trained on Wikipedia prose, small enough to ship, float throughout.

``train_tiny_llama.py`` made weights and tokenizer; see ``weights/LICENCES.txt``.
"""

from __future__ import annotations

import functools
from typing import Any

from safetensors.torch import load_file

from burnish.models import files
from burnish.models.llama import Llama, LlamaShape
from burnish.models.text import Prose
from burnish.models.zoo import Metric, ZooModel, optional

SHAPE = LlamaShape(
    vocabulary=2048, width=192, layers=4, heads=6, kv_heads=6, feed_forward=512, context=512
)
WEIGHTS = files.PACKAGE / "weights" / "tiny-llama.safetensors"
TOKENIZER = files.PACKAGE / "weights" / "tiny-llama.tokenizer.json"
LENGTH, WINDOWS = 128, 100


def load() -> ZooModel:
    model = Llama(SHAPE)
    model.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    data = Prose(encode, LENGTH, WINDOWS)
    return ZooModel(
        name="tiny-llama",
        task="language model",
        description="Llama of 4 layers, width 192, 2.16 M parameters; 128 tokens to their logits",
        model=model.eval(),
        example_inputs=data.held_out(1, 0)[0],
        metric=Metric("perplexity on held-out Wikipedia articles", higher_is_better=False),
        baseline="eager",
        licence="CC BY-SA, as the text it was trained on",
        source=f"trained by models/train_tiny_llama.py; {files.wheels()['gensim']}",
        data=data,
    )


def encode(text: str) -> list[int]:
    return _tokenizer().encode(text).ids


@functools.cache
def _tokenizer() -> Any:
    return optional("tokenizers").Tokenizer.from_file(str(TOKENIZER))
