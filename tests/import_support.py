"""What the importers' tests share: TVM's own build of an imported module, and how far off it is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tvm
from tvm import relax

from burnish.passes.params import get_params


def compiled(mod: tvm.IRModule) -> Callable[..., list[np.ndarray]]:
    """Build once with TVM's default CPU pipeline; arrays in, flat list of arrays out."""
    # TVM's own pipeline is not under test: no instruments.
    with tvm.transform.PassContext():
        ready = relax.transform.DecomposeOpsForInference()(mod.without_attr("params"))
        machine = relax.VirtualMachine(relax.build(ready, "llvm"), tvm.cpu())
    weights = list(get_params(mod).values())

    def call(*inputs: np.ndarray) -> list[np.ndarray]:
        out = machine["main"](*(tvm.runtime.tensor(x) for x in inputs), *weights)
        return [out.numpy()] if isinstance(out, tvm.runtime.Tensor) else [x.numpy() for x in out]

    return call


def worst(got: list[np.ndarray], want: list[np.ndarray]) -> float:
    """max|got - want| / max|want| over outputs; dtypes and shapes must be the same.

    Infinities and NaN (roots and logarithms of negative numbers) are compared as numbers.
    """
    assert [(a.shape, a.dtype) for a in got] == [(b.shape, b.dtype) for b in want]
    errors = [0.0]
    for a, b in zip(got, want, strict=True):
        if a.size:
            a, b = (np.nan_to_num(x.astype(np.float64), posinf=1e9, neginf=-1e9) for x in (a, b))
            errors.append(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-9)))
    return max(errors)
