"""What a model of the zoo is, and the names of them all."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

Inputs = tuple[Any, ...]
Forward = Callable[..., Any]

# Name -> module of this package and the function in it that loads the model.
PLACES = {
    "minilm": ("minilm", "load"),
    "efficientnet-lite0": ("efficientnet", "load"),
    "fashion-cnn": ("fashion", "load"),
    "magika": ("magika", "load"),
    "silero-vad": ("silero", "load"),
    "whisper-encoder": ("whisper", "load_encoder"),
    "whisper-decoder": ("whisper", "load_decoder"),
    "smollm2": ("smollm2", "load"),
    "pp-ocr-rec": ("ocr", "load"),
    "layout": ("layout", "load"),
    "dlrm": ("dlrm", "load"),
    "tiny-llama": ("tiny_llama", "load"),
}


@dataclass(frozen=True)
class Metric:
    """What ``evaluate`` returns: its name, and whether more of it is better."""

    name: str
    higher_is_better: bool


class Data(Protocol):
    """Real data for one model. Calibration and held-out items never overlap.

    An item is a tuple of the model's inputs. A source with fewer than ``n`` items repeats them.
    """

    def held_out(self, n: int, seed: int) -> list[Inputs]: ...

    def calibration(self, n: int) -> list[Inputs]: ...

    def evaluate(self, forward: Forward, limit: int | None) -> float: ...


@dataclass(frozen=True)
class ZooModel:
    """One trained network with its data.

    ``model`` is an ``nn.Module`` in eval mode, with torch tensors for inputs, or an
    ``onnx.ModelProto`` as shipped, with numpy arrays for inputs. ``baseline`` names the runtime it
    is compared with: ``"eager"`` or ``"onnxruntime"``.
    """

    name: str
    task: str
    description: str
    model: Any
    example_inputs: Inputs
    metric: Metric
    baseline: str
    licence: str
    source: str
    data: Data = field(repr=False)

    def inputs(self, n: int, seed: int = 0) -> list[Inputs]:
        """``n`` tuples of real inputs, none of which calibrates; ``seed`` chooses them."""
        return self.data.held_out(_positive(n, "n"), seed)

    def calibration(self, n: int) -> list[Inputs]:
        """``n`` tuples of real inputs, none of which evaluates."""
        return self.data.calibration(_positive(n, "n"))

    def evaluate(self, fn: Forward, limit: int | None = None) -> float:
        """The metric of ``fn`` on real data, on at most ``limit`` items of it.

        ``fn`` takes the model's inputs by position, one item at a time unless the model's
        description says otherwise, and returns its outputs as torch tensors or numpy arrays.
        """
        return float(self.data.evaluate(fn, None if limit is None else _positive(limit, "limit")))


def names() -> list[str]:
    """The names that ``load`` takes."""
    return list(PLACES)


def load(name: str) -> ZooModel:
    """The model called ``name``; its files are fetched first if the cache lacks them.

    KeyError for a name that is not in the zoo, FileNotFoundError for a file that can be neither
    found nor fetched.
    """
    if name not in PLACES:
        near = difflib.get_close_matches(name, PLACES, n=3, cutoff=0.4)
        hint = f"near it: {', '.join(near)}" if near else f"known: {', '.join(PLACES)}"
        raise UnknownModel(f"no model {name!r} in the zoo; {hint}")
    module, function = PLACES[name]
    return getattr(importlib.import_module(f"burnish.models.{module}"), function)()


class UnknownModel(KeyError):
    """A name that is not in the zoo; prints as a sentence, not as a quoted key."""

    def __str__(self) -> str:
        return str(self.args[0])


def optional(module: str) -> Any:
    """A module of the extra ``zoo``; ModuleNotFoundError says how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{module.partition('.')[0]} is not installed, and this model of the zoo needs it: "
            "pip install 'burnish[zoo]'"
        ) from error


def arrays(outputs: Any) -> list[np.ndarray]:
    """The outputs of a model, whatever their nesting, as a flat list of numpy arrays."""
    if isinstance(outputs, torch.Tensor):
        return [outputs.detach().cpu().numpy()]
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if isinstance(outputs, list | tuple):
        return [array for output in outputs for array in arrays(output)]
    return [np.asarray(outputs)]


def pick(pool: Any, n: int, seed: int | None = None) -> list[Any]:
    """``n`` items of ``pool``, in order or in the order of ``seed``; starts over at the end."""
    order = list(range(len(pool)))
    if seed is not None:
        np.random.default_rng(seed).shuffle(order)
    return [pool[order[i % len(order)]] for i in range(n)]


def _positive(count: int, name: str) -> int:
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {count!r}")
    return count
