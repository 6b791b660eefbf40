"""A model file that is read in a child process: what of it this process gets to see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from burnish.compiler.importers.contained import Arrays, Data, Limits, contained
from burnish.compiler.importers.formats import FORMATS, Format, Input
from burnish.compiler.importers.survey import Survey, surveyed
from burnish.compiler.signature import Signature
from burnish.passes.params import get_params, with_params, without_params


@dataclass(frozen=True)
class ModelFile:
    """A file of one of :data:`~burnish.compiler.importers.formats.FORMATS`.

    ``params`` are weights that lie beside the file, where its format has them so.
    ``keep_alive`` is what must live as long as the file is wanted, such as its folder.
    """

    path: Path
    kind: str
    keep_alive: Any = field(default=None, repr=False, compare=False)
    params: Any = field(default=None, repr=False, compare=False)

    @property
    def format(self) -> Format:
        return FORMATS[self.kind]

    @cached_property
    def facts(self) -> Data:
        """Digest and declared inputs; raises what is wrong with the file."""
        return self._contained(self._facts)[0]

    @property
    def digest(self) -> str:
        """sha256 of the content."""
        return str(self.facts["digest"])

    @property
    def inputs(self) -> list[Input]:
        """What the model takes, as declared."""
        return [Input(name, tuple(shape), dtype) for name, shape, dtype in self.facts["inputs"]]

    def convert(
        self, example_inputs: Any, dynamic: Mapping[str, Any] | None, *, fold: bool
    ) -> tuple[tvm.IRModule, Signature]:
        """Module under the IR convention, and signature.

        Raises :class:`~burnish.compiler.errors.ImportModelError` with what is wrong with the
        file, a crash of its reader included.
        """

        def work() -> tuple[Data, Arrays]:
            content = self._read()
            function = self.format.function("convert")
            mod, signature = function(content, example_inputs, dynamic, fold=fold)
            weights = {name: value.numpy() for name, value in get_params(mod).items()}
            text = tvm.ir.save_json(without_params(mod))
            return {"mod": text, "signature": signature.to_dict()}, weights

        data, arrays = self._contained(work)
        weights = {name: _tensor(array) for name, array in arrays.items()}
        mod = with_params(tvm.ir.load_json(data["mod"]), weights)
        return mod, Signature.from_dict(data["signature"])

    def survey(
        self, example_inputs: Any, dynamic: Mapping[str, Any] | None, *, fold: bool
    ) -> Survey:
        """What of the model can be imported."""

        def work() -> tuple[Data, Arrays]:
            content = self._read()
            convert = self.format.function("convert")
            found = surveyed(
                self.kind,
                self.format.function("work")(content, example_inputs),
                lambda: convert(content, example_inputs, dynamic, fold=fold),
            )
            return found.to_dict(), {}

        return Survey.from_dict(self._contained(work)[0])

    def _facts(self) -> tuple[Data, Arrays]:
        content = self._read()
        inputs = self.format.function("inputs")(content)
        return {
            "digest": self.format.function("digest")(content),
            "inputs": [[item.name, list(item.shape), item.dtype] for item in inputs],
        }, {}

    def _read(self) -> Any:
        read = self.format.function("read")
        return read(self.path) if self.params is None else read(self.path, self.params)

    def _contained(self, work: Any) -> tuple[Data, Arrays]:
        return contained(work, str(self.path), Limits.of(self.path.stat().st_size))


def _tensor(array: np.ndarray) -> tvm.runtime.Tensor:
    """Without a copy where NumPy's types have a form in DLPack."""
    if array.size == 0 or array.dtype.kind not in "iuf" or array.dtype.isbuiltin != 1:
        return tvm.runtime.tensor(array)
    return tvm.runtime.from_dlpack(array)
