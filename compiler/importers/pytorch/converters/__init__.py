"""Converters of ours for torch operators that TVM lacks, or computes otherwise than torch."""

from __future__ import annotations

from burnish.compiler.importers.pytorch.converters.control import CONTROL
from burnish.compiler.importers.pytorch.converters.creation import CREATION
from burnish.compiler.importers.pytorch.converters.draws import DRAWS
from burnish.compiler.importers.pytorch.converters.experts import EXPERTS
from burnish.compiler.importers.pytorch.converters.indexing import INDEXING
from burnish.compiler.importers.pytorch.converters.kinds import Converter
from burnish.compiler.importers.pytorch.converters.layers import LAYERS
from burnish.compiler.importers.pytorch.converters.recurrent import RECURRENT
from burnish.compiler.importers.pytorch.converters.tensors import TENSORS

CONVERTERS: dict[str, Converter] = {
    **CONTROL,
    **CREATION,
    **DRAWS,
    **EXPERTS,
    **INDEXING,
    **LAYERS,
    **RECURRENT,
    **TENSORS,
}

__all__ = ["CONVERTERS", "Converter"]
