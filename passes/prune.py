"""Pruning as an IR pass: weights change value, never shape or name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm

from burnish.passes.configs import PruneConfig
from burnish.passes.consumers import weight_uses
from burnish.passes.params import get_params, with_params
from burnish.passes.patterns import select_eligible
from burnish.passes.sparsity import MaskReport, magnitude_prune, mask_row


@tvm.transform.module_pass(opt_level=0, name="PruneWeights")
@dataclass(frozen=True)
class PruneWeights:
    """Set the weights of least magnitude to zero: ``W * 1(|W| > theta)``.

    Size only: the zeros compress, and no kernel here skips them.

    1. A wildcard chooses floating weights of two or more axes that matmul, a convolution or
       ``take`` reads; biases and norms only where ``include`` names them in full.
    2. ``threshold`` removes ``|w| <= threshold``; ``sparsity`` removes an exact count, per
       tensor or over all chosen tensors (rules of :mod:`burnish.passes.sparsity`).

    Raises ``ValueError`` for a pattern that matches nothing, a chosen weight that is not
    floating, and one that holds NaN.
    """

    config: PruneConfig

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        params = get_params(mod)
        return with_params(mod, {**params, **self.pruned(mod)})

    def pruned(self, mod: tvm.IRModule) -> dict[str, np.ndarray]:
        """Name -> new value of every chosen weight."""
        params = get_params(mod)
        config = self.config
        names = select_eligible(
            list(params), prunable(mod), config.include, config.exclude, verb="prune"
        )
        for name in names:
            if not is_floating(params[name]):
                raise ValueError(
                    f"weight {name!r} {list(params[name].shape)} is {params[name].dtype}, "
                    "and only floating weights can be pruned"
                )
        return magnitude_prune(
            {name: params[name].numpy() for name in names},
            sparsity=config.sparsity,
            threshold=config.threshold,
            scope=config.scope,
        )

    def report(self, mod: tvm.IRModule) -> MaskReport:
        """What the pass would do to ``mod``: one row a chosen weight, changed or not."""
        params = get_params(mod)
        return MaskReport(
            tuple(mask_row(n, params[n].numpy(), value) for n, value in self.pruned(mod).items())
        )


def prune_report(before: tvm.IRModule, after: tvm.IRModule) -> MaskReport:
    """One row for every prunable or changed floating weight that both modules hold."""
    old, new = get_params(before), get_params(after)
    fit = set(prunable(before))
    rows = []
    for name, tensor in old.items():
        if name not in new or not is_floating(tensor) or not is_floating(new[name]):
            continue
        was, now = tensor.numpy(), new[name].numpy()
        if was.shape == now.shape and (name in fit or np.any(was != now)):
            rows.append(mask_row(name, was, now))
    return MaskReport(tuple(rows))


def prunable(mod: tvm.IRModule) -> list[str]:
    """Names of the weights that a wildcard prunes (rule 1 of :class:`PruneWeights`)."""
    uses = weight_uses(mod)
    return [name for name, t in get_params(mod).items() if is_floating(t) and uses[name]]


def is_floating(tensor: tvm.runtime.Tensor) -> bool:
    """Whether a weight's type is float16, bfloat16, float32 or float64."""
    return str(tensor.dtype) in ("float16", "bfloat16", "float32", "float64")
