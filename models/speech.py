"""Ten recorded utterances with transcripts, from pocketsphinx's test data (BSD-2).

Five sentences of a public-domain LibriVox reading, five of a speaker naming playing cards.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass

import numpy as np
from safetensors import safe_open

from burnish.models import files

RATE = 16000
# One sentence and two card utterances calibrate; the other seven evaluate.
CALIBRATES = ("sense-0880", "cards-003", "cards-004")
PACK = files.PACKAGE / "weights" / "speech.safetensors"


@dataclass(frozen=True)
class Utterance:
    """``samples`` are float32 in [-1, 1) at 16 kHz."""

    name: str
    samples: np.ndarray
    transcript: str


def utterances(*, calibrates: bool) -> list[Utterance]:
    return [each for each in _all() if (each.name in CALIBRATES) is calibrates]


@functools.cache
def _all() -> tuple[Utterance, ...]:
    with safe_open(PACK, framework="numpy") as pack:
        transcripts = json.loads(pack.metadata()["transcripts"])
        return tuple(
            Utterance(name, pack.get_tensor(name).astype(np.float32) / 32768.0, text)
            for name, text in transcripts.items()
        )
