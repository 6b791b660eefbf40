"""A pipeline as plain data: its stages, what goes between them, and what is expected of it.

Saved as ``pipeline.json`` beside the stages' artifacts; read back without running code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from burnish.compiler.errors import ArtifactError
from burnish.compiler.pipelines.core_sets import CoreSet
from burnish.runtime.errors import InvalidInputError
from burnish.runtime.jsons import has_keys, parsed
from burnish.runtime.signature import Signature, TensorSpec

SCHEMA = 1
FILE = "pipeline.json"
_LIMIT = 64 << 20


@dataclass(frozen=True)
class StagePlan:
    """A stage: its device, the file of its artifact, and the values it takes and gives.

    ``seconds`` are those expected of a micro-batch, from the costs of its operators;
    ``operators`` how many kernels it has, ``weight_bytes`` as stored, ``sent_bytes`` of the values
    it gives.
    """

    device: CoreSet
    artifact: str
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    seconds: float
    operators: int
    weight_bytes: int
    sent_bytes: int


@dataclass(frozen=True)
class Plan:
    """All of a pipeline but its artifacts.

    ``signature`` is that of one micro-batch, ``rows`` its share of the batch axis;
    ``micro_batches`` is how many the batch it was made for is split into, and ``why`` says how
    that was chosen. ``whole`` are inputs given to every micro-batch as they are; ``values`` are
    the tensors that go between caller and stages, ``inputs`` and ``results`` those of the model.
    """

    name: str
    signature: Signature
    rows: int
    micro_batches: int
    why: str
    whole: tuple[str, ...]
    values: Mapping[str, TensorSpec]
    inputs: tuple[str, ...]
    results: tuple[str, ...]
    stages: tuple[StagePlan, ...]
    costs: str

    def __post_init__(self) -> None:
        known = set(self.inputs)
        for number, stage in enumerate(self.stages):
            unmade = [name for name in stage.takes if name not in known]
            if unmade:
                raise InvalidInputError(
                    f"stage {number} takes {unmade}, which no stage before it gives"
                )
            known.update(stage.gives)
        unmade = [name for name in (*self.results, *known) if name not in self.values]
        if unmade or not set(self.results) <= known:
            raise InvalidInputError(f"no stage gives {unmade or list(self.results)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; :meth:`from_dict` reads it back."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        data["signature"] = self.signature.to_dict()
        data["values"] = {
            name: {"shape": list(spec.shape), "dtype": spec.dtype}
            for name, spec in self.values.items()
        }
        data["stages"] = [asdict(stage) for stage in self.stages]
        return {"schema": SCHEMA, **data}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """The plan that :meth:`to_dict` wrote; ``ValueError`` for anything else."""
        names = [field.name for field in fields(cls)]
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise ValueError(f"it is no pipeline of schema {SCHEMA}")
        has_keys(data, "a pipeline", ("schema", *names))
        values = {name: data[name] for name in names}
        values["signature"] = Signature.from_dict(data["signature"])
        values["values"] = {
            name: TensorSpec(name, tuple(int(n) for n in item["shape"]), str(item["dtype"]))
            for name, item in data["values"].items()
        }
        for name in ("whole", "inputs", "results"):
            values[name] = tuple(map(str, data[name]))
        values["stages"] = tuple(map(_stage, data["stages"]))
        return cls(**values)

    def save(self, folder: Path) -> Path:
        """Write ``pipeline.json`` into the folder of the artifacts."""
        path = folder / FILE
        path.write_text(json.dumps(self.to_dict(), indent=1) + "\n")
        return path

    @classmethod
    def load(cls, folder: Path) -> Plan:
        """The plan of a folder; :class:`ArtifactError` where there is none, or it is damaged."""
        path = folder / FILE
        try:
            return cls.from_dict(parsed(memoryview(path.read_bytes()), FILE, _LIMIT))
        except OSError as error:
            raise ArtifactError(f"no pipeline in {folder}: {error.strerror}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(f"{path} is damaged: {error}") from error


def _stage(data: Mapping[str, Any]) -> StagePlan:
    values = {field.name: data[field.name] for field in fields(StagePlan)}
    device = data["device"]
    values["device"] = CoreSet(str(device["name"]), tuple(map(int, device["cores"])))
    values["takes"], values["gives"] = tuple(data["takes"]), tuple(data["gives"])
    name = str(data["artifact"])
    if Path(name).name != name:
        raise ValueError(f"an artifact lies beside its plan, and {name!r:.80} does not")
    return StagePlan(**values)
