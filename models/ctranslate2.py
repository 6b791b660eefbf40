"""Read Whisper's weights out of a CTranslate2 file (version 6): a flat list of named arrays."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

# CTranslate2's type codes; a Whisper file holds floats, and small integers that describe it.
TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
NORM = {"gamma": "weight", "beta": "bias"}
PARTS = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_0": "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
    "self_attention/linear_1": "self_attn.out_proj",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "attention/linear_0": "encoder_attn.q_proj",
    "attention/linear_1": "encoder_attn.k_proj encoder_attn.v_proj",
    "attention/linear_2": "encoder_attn.out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
    "embeddings": "embed_tokens",
    "position_encodings": "embed_positions",
}


def whisper_state(path: Path, half: str) -> dict[str, Tensor]:
    """The ``encoder`` or ``decoder`` as float32 under its checkpoint's names.

    Fused projections are split; the keys' biases, zero by construction, are dropped.
    """
    state = {}
    for name, values in read(path).items():
        side, _, inner = name.partition("/")
        if side != half or values.dtype != np.float16:
            continue
        module, _, kind = inner.rpartition("/")
        prefix = ""
        if module.startswith("layer_") and "/" in module:
            layer, _, module = module.partition("/")
            prefix = f"layers.{layer.removeprefix('layer_')}."
        targets = PARTS.get(module, module).split()
        kind = "weight" if kind == "encodings" else NORM.get(kind, kind)
        for target, part in zip(targets, np.split(values, len(targets)), strict=True):
            if not target.endswith("k_proj") or kind == "weight":
                state[f"{prefix}{target}.{kind}"] = torch.from_numpy(part.astype(np.float32))
    return state


def read(path: Path) -> dict[str, np.ndarray]:
    """Every array of the file by name; ValueError for another version or a truncated file."""
    with path.open("rb") as stream:
        (version,) = _unpack(stream, "I")
        if version != 6:
            raise ValueError(f"{path} has CTranslate2 version {version}; only 6 is read")
        _name(stream)
        _, count = _unpack(stream, "II")
        found = {}
        for _ in range(count):
            name = _name(stream)
            (rank,) = _unpack(stream, "B")
            shape = _unpack(stream, f"{rank}I")
            code, size = _unpack(stream, "BI")
            found[name] = np.frombuffer(_take(stream, size), TYPES[code]).reshape(shape)
    return found


def _name(stream: BinaryIO) -> str:
    (size,) = _unpack(stream, "H")
    return _take(stream, size).rstrip(b"\0").decode()


def _unpack(stream: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(f"<{form}", _take(stream, struct.calcsize(f"<{form}")))


def _take(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise ValueError(f"{stream.name} ends early: {size} bytes expected, {len(data)} found")
    return data
