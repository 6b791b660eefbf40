"""The Keras and TFLite fixtures: where they are, and what TensorFlow made of their inputs."""

from __future__ import annotations

import numpy as np

from support import ROOT

FIXTURES = ROOT / "tests" / "compiler" / "tensorflow" / "fixtures"
INPUT = {"cnn": "image", "unet": "image", "text": "ids", "lstm": "steps", "gru": "steps"}


def expected(name: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Inputs and outputs, as stored beside a fixture."""
    with np.load(FIXTURES / f"{name}.npz") as data:
        return (
            [data[key] for key in data.files if key.startswith("in_")],
            [data[key] for key in data.files if key.startswith("out_")],
        )
