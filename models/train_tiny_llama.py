"""Train the tiny Llama on Wikipedia prose: tokenizer and fp16 weights into ``weights/``.

Run it as ``python -m burnish.models.train_tiny_llama [STEPS]``; about 10 minutes on one free core.
The seed is fixed: the same torch on the same processor gives the same weights.
"""

from __future__ import annotations

import math
import sys
import time

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional as F

from burnish.models import files, wikipedia
from burnish.models.llama import Llama
from burnish.models.tiny_llama import SHAPE

STEPS = 1000
BATCH, LENGTH = 16, 128
PEAK, WARM_UP = 3e-3, 60
WEIGHTS = files.PACKAGE / "weights"


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else STEPS
    texts = wikipedia.articles(held_out=False)
    tokenizer = make_tokenizer(texts)
    tokenizer.save(str(WEIGHTS / "tiny-llama.tokenizer.json"))
    tokens = torch.tensor([i for text in tokenizer.encode_batch(texts) for i in text.ids])
    print(f"{len(tokens)} training tokens, {steps} steps")
    network = train(tokens, steps)
    half = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    save_file(half, str(WEIGHTS / "tiny-llama.safetensors"), metadata={"steps": str(steps)})


def make_tokenizer(texts: list[str]) -> Tokenizer:
    """A byte-level BPE of ``SHAPE.vocabulary`` pieces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=SHAPE.vocabulary, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def train(tokens: Tensor, steps: int) -> Llama:
    """AdamW with warm-up and a cosine to zero, on random windows of ``tokens``."""
    torch.manual_seed(0)
    network = Llama(SHAPE)
    for name, value in network.named_parameters():
        if value.dim() > 1:
            scale = 0.02 if "embed" in name else 1 / math.sqrt(value.shape[1])
            torch.nn.init.normal_(value, std=scale)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=PEAK, betas=(0.9, 0.95), weight_decay=0.1
    )
    windows = torch.Generator().manual_seed(0)
    started = time.perf_counter()
    for step in range(steps):
        warm = min(1.0, (step + 1) / WARM_UP)
        rate = PEAK * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(len(tokens) - LENGTH - 1, (BATCH,), generator=windows)
        batch = torch.stack([tokens[at : at + LENGTH + 1] for at in starts.tolist()])
        logits = network(batch[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 49:
            spent = time.perf_counter() - started
            print(f"step {step + 1}: loss {loss.item():.3f}, {spent:.0f} s", flush=True)
    return network.eval()


if __name__ == "__main__":
    main()
