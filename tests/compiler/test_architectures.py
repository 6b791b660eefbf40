"""Models of ``transformers`` against eager: sizes fixed, sizes open.

Each model is read, optimized, built and run. With open sizes it runs at three that were not seen
when it was exported. Parity is max|y - eager| / max|eager| over each output.
"""

from __future__ import annotations

import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, Architecture
from torch import nn

import burnish
from burnish.compiler.errors import BurnishError
from burnish.compiler.parity import parity

PARITY = 1e-4
REFUSED: Mapping[str, Mapping[str, str]] = tomllib.loads(
    (Path(__file__).parent / "architectures_refused.toml").read_text()
)
QUICK = ("bert", "llama")
CASES = [
    pytest.param(case, id=str(case), marks=[pytest.mark.heavy] * (case.model_type not in QUICK))
    for case in ARCHITECTURES
]


def outputs(model: nn.Module, inputs: Mapping[str, Any]) -> Any:
    with torch.no_grad():
        result = model(**inputs)
    return dict(result) if isinstance(result, Mapping) else result


def compiled(model: nn.Module, inputs: Mapping[str, Any], dynamic: Any = None) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of transformers while it is traced
        return burnish.compile(model, inputs, dynamic=dynamic, do_no_harm=False, threads=2)


@pytest.mark.parametrize("case", CASES)
def test_fixed_sizes(case: Architecture) -> None:
    model = case.model()
    inputs = case.inputs(model)
    ready = compiled(model, inputs)
    assert parity(ready(**inputs), outputs(model, inputs)).rel <= PARITY


@pytest.mark.parametrize("case", CASES)
def test_open_sizes(case: Architecture) -> None:
    model, dynamic = case.model(), dict(case.kind.dynamic)
    if case.model_type in REFUSED:
        refuses(model, case.inputs(model), dynamic, case.model_type)
        return
    ready = compiled(model, case.inputs(model), dynamic)
    assert set(ready.signature.symbols) == set(case.kind.example)
    for sizes in case.kind.unseen:
        inputs = case.inputs(model, sizes)
        assert parity(ready(**inputs), outputs(model, inputs)).rel <= PARITY, sizes


def refuses(model: nn.Module, inputs: Any, dynamic: Any, name: str) -> None:
    with pytest.raises(BurnishError) as caught:
        compiled(model, inputs, dynamic)
    assert REFUSED[name]["message"] in str(caught.value)
    assert ("torch.export refused" in str(caught.value)) == (REFUSED[name]["by"] == "torch.export")


@pytest.mark.heavy
def test_the_best_places_of_rt_detr_are_no_matter_of_rounding() -> None:
    """Seven of 84 places become its queries: they and the next lie apart, a hundred errors and
    more."""
    (case,) = [case for case in ARCHITECTURES if case.model_type == "rt_detr"]
    model = case.model()
    for sizes in (case.kind.example, *case.kind.unseen):
        scores = outputs(model, case.inputs(model, sizes))["enc_outputs_class"].amax(-1)
        assert scores.shape[1] == 84
        best = scores.sort(descending=True).values[:, :8]
        assert float((best[:, :-1] - best[:, 1:]).min()) > 3e-5 * float(best.abs().max())


def test_at_least_forty_types_and_twenty_open() -> None:
    types = {case.model_type for case in ARCHITECTURES}
    assert len(types) == len(ARCHITECTURES) >= 40
    assert len(types - set(REFUSED)) >= 20
    assert set(REFUSED) <= types
