"""silero VAD: is this 32 ms of sound speech? Judged on utterances among pauses and noise.

The labels come from the energy of the clean recording, so they are a proxy for an ear's.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import onnx

from burnish.models import files, speech
from burnish.models.zoo import Forward, Inputs, Metric, ZooModel, arrays, pick

# The network sees 512 new samples after the last 64 of the frame before.
FRAME, CONTEXT = 512, 64
RATE = np.array(speech.RATE, dtype=np.int64)
NOISE = (0.0, 0.003)  # standard deviations of the white noise that is added
SPEECH, PAUSE = 0.02, 0.002  # frames of at least, and of at most, this RMS are labelled


@dataclass(frozen=True)
class Track:
    """Frames ``[count, 576]`` in order, and for each 1 (speech), 0 (pause) or -1 (not labelled)."""

    frames: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Frames:
    """Frames of seven utterances with pauses between; three other utterances calibrate."""

    def held_out(self, n: int, seed: int) -> list[Inputs]:
        return pick(_items(_track(False, NOISE[0])), n, seed)

    def calibration(self, n: int) -> list[Inputs]:
        return pick(_items(_track(True, NOISE[1])), n, seed=0)

    def evaluate(self, forward: Forward, limit: int | None) -> float:
        """Share of labelled frames judged right at 0.5, over the first ``limit`` frames a track.

        The state that a frame returns goes into the next.
        """
        right = []
        for noise in NOISE:
            track = _track(False, noise)
            state = _silence()
            for frame, label in list(zip(track.frames, track.labels, strict=True))[:limit]:
                chance, state = arrays(forward(frame[None], RATE, state))
                if label >= 0:
                    right.append((chance.item() >= 0.5) == bool(label))
        return float(np.mean(right))


def load() -> ZooModel:
    path = files.one("silero-vad", "silero_vad/data/silero_vad_op18_ifless.onnx")
    return ZooModel(
        name="silero-vad",
        task="voice activity detection",
        description="silero VAD 6, 0.55 M parameters for 8 and 16 kHz; a 32 ms frame and a state",
        model=onnx.load(path),
        example_inputs=_items(_track(False, NOISE[0]))[0],
        metric=Metric("accuracy on speech and pause frames", higher_is_better=True),
        baseline="onnxruntime",
        licence="MIT; the recordings BSD-2",
        source=str(files.wheels()["silero-vad"]),
        data=Frames(),
    )


def _silence() -> np.ndarray:
    return np.zeros((2, 1, 128), dtype=np.float32)


def _items(track: Track) -> list[Inputs]:
    """Each frame as the first of a stream, with the names' order ``input, sr, state``."""
    return [(frame[None], RATE, _silence()) for frame in track.frames]


@functools.cache
def _track(calibrates: bool, noise: float) -> Track:
    chance = np.random.default_rng(0)
    pause = np.zeros(speech.RATE // 2, dtype=np.float32)
    parts = [pause]
    for each in speech.utterances(calibrates=calibrates):
        parts += [each.samples, pause]
    clean = np.concatenate(parts)
    clean = clean[: len(clean) // FRAME * FRAME]
    noisy = clean + noise * chance.standard_normal(len(clean)).astype(np.float32)
    energy = np.sqrt((clean.reshape(-1, FRAME) ** 2).mean(axis=1))
    padded = np.concatenate([np.zeros(CONTEXT, dtype=np.float32), noisy])
    starts = np.arange(len(energy)) * FRAME
    frames = padded[starts[:, None] + np.arange(CONTEXT + FRAME)]
    labels = np.where(energy >= SPEECH, 1, np.where(energy <= PAUSE, 0, -1))
    return Track(np.ascontiguousarray(frames), labels)
