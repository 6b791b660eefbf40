"""Weights of a traced program in the form that a kernel reads them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx
from tvm import relax

from burnish.compiler.importers.tensors import to_numpy

if TYPE_CHECKING:
    from burnish.compiler.importers.pytorch.translator import Translator


class Derived:
    """What converters made of weights at import, each once.

    It keeps the name of its source where nothing but calls of ``readers`` reads that; else a
    number is added.
    """

    def __init__(self, t: Translator, readers: Container[Any]) -> None:
        self.t, self.readers = t, readers
        self.made: dict[tuple[Any, ...], relax.Var] = {}
        self.sources: dict[relax.Var, torch.Tensor] = {}
        self.replaced: set[relax.Var] = set()

    def array(self, value: relax.Expr) -> np.ndarray | None:
        """The elements of a weight; ``None`` of any other expression."""
        if not isinstance(value, relax.Var):
            return None
        if value not in self.sources:
            if value not in self._readers_of:
                return None
            self.sources[value] = self.t.weights[value.name]
        return to_numpy(self.sources[value])

    def weight(self, sources: Sequence[fx.Node], form: str, array: np.ndarray) -> relax.Var:
        """``array``, which is ``form`` of the weights ``sources``, as a weight of the module."""
        weights = [self.t.env[source] for source in sources]
        key = (form, array.shape, *weights)
        if key not in self.made:
            name = self._name(weights[0])
            tensor = torch.from_numpy(np.ascontiguousarray(array))
            self.t.weights[name] = tensor
            self.made[key] = relax.Var(name, relax.TensorType(list(array.shape), str(array.dtype)))
        return self.made[key]

    def parameters(self, weights: Sequence[relax.Var]) -> list[relax.Var]:
        """The module's weights, after all calls are converted."""
        return [*(w for w in weights if w not in self.replaced), *self.made.values()]

    def _name(self, source: relax.Var) -> str:
        if source not in self.replaced and self._readers_of[source] <= 0:
            self.replaced.add(source)
            return str(source.name)
        taken = self.t.weights
        return next(n for i in itertools.count(1) if (n := f"{source.name}~{i}") not in taken)

    @functools.cached_property
    def _readers_of(self) -> dict[relax.Var, int]:
        """How many calls of other operators read each weight."""
        counts: dict[relax.Var, int] = {}
        for node in self.t.program.graph.nodes:
            weight = self.t.env.get(node) if node.op == "placeholder" else None
            if isinstance(weight, relax.Var) and weight.name in self.t.weights:
                others = sum(user.target not in self.readers for user in node.users)
                counts[weight] = counts.get(weight, 0) + others
        return counts
