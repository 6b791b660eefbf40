"""Example inputs by the names that a model file gives its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from burnish.compiler.errors import ImportModelError


def by_name(names: Sequence[str], examples: Any) -> dict[str, Any]:
    """A mapping, a sequence or a single value as name -> value; ``None`` gives nothing.

    A mapping may leave inputs out. Raises ImportModelError for an unknown name, or for a sequence
    of another length.
    """
    if examples is None:
        return {}
    if isinstance(examples, Mapping):
        unknown = [name for name in examples if name not in names]
        if unknown:
            raise ImportModelError(
                f"the model has no input {unknown[0]!r}; its inputs are: {', '.join(names)}"
            )
        return dict(examples)
    values = examples if isinstance(examples, (tuple, list)) else (examples,)
    if len(values) != len(names):
        raise ImportModelError(
            f"got {len(values)} example inputs, the model has {len(names)}: {', '.join(names)}"
        )
    return dict(zip(names, values, strict=True))
