"""What runs inside a stage's actor. Imports little: an actor starts as fast as this does."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any


class ActorStage:
    """A stage whose artifact comes out of the object store.

    ``artifact`` is a list of one reference: Ray hands it over as it is.
    """

    def __init__(
        self,
        artifact: Sequence[Any],
        takes: Sequence[str],
        gives: Sequence[str],
        values: Mapping[str, Any],
        device: Any,
        limit_s: float,
    ) -> None:
        import ray

        if "torch" not in sys.modules:  # tvm-ffi would import it, for nothing
            sys.modules["torch"] = None  # type: ignore[assignment]
        from burnish.compiler.pipelines.stage import open_stage, warm

        device.bind()
        content = ray.get(artifact[0], timeout=limit_s)
        with tempfile.NamedTemporaryFile(prefix="burnish-stage-", suffix=".burnish") as file:
            file.write(content)
            file.flush()
            self._model = open_stage(file.name, takes, gives, values, device.threads)
        self._outputs = [values[name] for name in gives]
        warm(self._model, values, takes)

    def about(self) -> tuple[int, str, bool]:
        """Its process, its node, and whether it was started again."""
        import ray

        context = ray.get_runtime_context()
        return os.getpid(), context.get_node_id(), context.was_current_actor_reconstructed

    def run(self, *inputs: Any) -> tuple[Any, ...]:
        """The values it gives, and when it began and ended by the node's clock."""
        from burnish.runtime.tensors import aligned, numpy_dtype

        outputs = [
            aligned(tuple(map(int, spec.shape)), numpy_dtype(spec.dtype)) for spec in self._outputs
        ]
        start = time.time()
        self._model.fill(inputs, outputs)
        return (*outputs, (start, time.time()))
