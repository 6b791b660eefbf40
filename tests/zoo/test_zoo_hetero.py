"""Zoo models cut at random over several devices give what their own runtime gives.

Which models, and where their operators go, is drawn anew each day, and said where it fails;
``BURNISH_PLACEMENT_SEED`` draws the same again, and ``placements.py`` beside this runs all models.
"""

from __future__ import annotations

import datetime
import importlib.util
import os
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

from burnish import models
from opencl_support import require_device

SEED = int(os.environ.get("BURNISH_PLACEMENT_SEED", datetime.date.today().toordinal()))
PARITY = 1e-4
LIGHT = ("fashion-cnn", "magika", "dlrm", "silero-vad", "tiny-llama", "minilm", "pp-ocr-rec")
"""Models whose kernels a driver compiles in seconds."""
CASES = (("first", "TWO"), ("second", "TWO"), ("third", "THREE"))


def beside(name: str) -> ModuleType:
    """A module in this folder, which is no package."""
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"zoo_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.heavy
@pytest.mark.parametrize(("case", "devices"), CASES)
def test_random_placements_give_the_same(case, devices):
    require_device()
    placements, whole = beside("placements"), beside("test_zoo_opencl")
    place = [name for name, _ in CASES].index(case)
    name = random.Random(SEED).sample(LIGHT, len(CASES))[place]
    zoo = models.load(name)
    inputs = whole.shortened(zoo)
    expected = whole.reference(zoo, inputs)
    error, cut = placements.error_of(
        name, inputs, expected, getattr(placements, devices), SEED + place
    )
    said = f"{name}, BURNISH_PLACEMENT_SEED={SEED}: {cut['regions']}"
    assert error <= PARITY, said
