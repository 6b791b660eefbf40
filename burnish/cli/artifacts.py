"""Saved artifacts on the command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burnish.cli.console import notes
from burnish.cli.inputs import InputSpec, make, overridden, parse_specs
from burnish.compiler.errors import ArtifactError
from burnish.compiler.signature import Signature, TensorSpec, evaluate

if TYPE_CHECKING:
    import numpy as np

SUFFIX = ".burnish"


def load(path: str, *, sha256: str | None = None) -> Any:
    """``burnish.load``; a missing file is named before anything heavy is imported."""
    if not Path(path).is_file():
        raise ArtifactError(f"no artifact {path}")
    import burnish

    return burnish.load(path, sha256=sha256)


def signature_names(compiled: Any) -> list[str]:
    """Names of the input tensors, in order."""
    return [spec.name for spec in compiled.signature.inputs]


def arguments(compiled: Any, tensors: Sequence[Any]) -> tuple[Any, ...]:
    """Input tensors in the order of the signature -> the arguments the model was written for."""
    from burnish.runtime.trees import decode

    return tuple(decode(node, tensors) for _, node in compiled.signature.arguments)


def random_inputs(compiled: Any, inputs: Iterable[str] | None, seed: int) -> tuple[np.ndarray, ...]:
    """Random input tensors of the artifact's shapes; a symbolic size takes its least value."""
    specs = [_spec(compiled.signature, item) for item in compiled.signature.inputs]
    return make(overridden(specs, parse_specs(inputs)), seed)


def _spec(signature: Signature, tensor: TensorSpec) -> InputSpec:
    least = {name: max(1, low) for name, (low, _) in signature.symbols.items()}
    shape = []
    for axis, dim in enumerate(tensor.shape):
        if isinstance(dim, str):
            value = evaluate(dim, least) or 1
            notes().print(f"input {tensor.name!r}: axis {axis} ({dim}) is taken as {value}")
        shape.append(dim if isinstance(dim, int) else value)
    return InputSpec(tensor.name, tuple(shape), tensor.dtype)
