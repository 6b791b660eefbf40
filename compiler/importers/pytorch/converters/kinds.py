"""What a converter is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import fx

if TYPE_CHECKING:
    from burnish.compiler.importers.pytorch.translator import Translator

Converter = Callable[[fx.Node, "Translator"], Any]
"""A traced call and its translation -> Relax: an expression, or several for several results."""
