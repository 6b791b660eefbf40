"""Inputs of a model: made from its signature, or read from an ``.npz`` file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burnish.compiler.errors import ConfigError, InvalidInputError
from burnish.compiler.registry import near

if TYPE_CHECKING:
    import numpy as np

SPEC = re.compile(
    r"(?P<name>.+)=(?P<shape>scalar|\d+(?:[x,]\d+)*):(?P<dtype>[a-z]+\d*)"
    r"(?::(?P<low>-?\d+)\.\.(?P<high>-?\d+))?"
)
SPEC_FORM = "NAME=SHAPE:DTYPE[:LOW..HIGH], as in ids=1x128:int64:0..30522"
AXES_FORM = "NAME:AXIS=SYMBOL,..., as in ids:0=batch,1=seq"
DTYPES = (
    *("float16", "float32", "float64", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)


@dataclass(frozen=True)
class InputSpec:
    """One input: its name, shape (elements an axis) and dtype.

    Integers are drawn from ``low`` to ``high``, both possible; floats are standard normal.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: int = 0
    high: int = 1

    def random(self, rng: np.random.Generator) -> np.ndarray:
        """An array of this shape and dtype."""
        if self.dtype.startswith("float"):
            return rng.standard_normal(self.shape).astype(self.dtype)
        if self.dtype == "bool":
            return rng.integers(0, 2, self.shape).astype(bool)
        return rng.integers(self.low, self.high, self.shape, endpoint=True).astype(self.dtype)


def parse_specs(texts: Iterable[str] | None) -> dict[str, InputSpec]:
    """``["ids=1x128:int64:0..30522"]`` -> name -> spec; raises :class:`ConfigError`."""
    found = {}
    for text in texts or ():
        match = SPEC.fullmatch(text)
        if match is None:
            raise ConfigError(f"--input {text!r} is not {SPEC_FORM}")
        name, shape, dtype, low, high = match.group("name", "shape", "dtype", "low", "high")
        if dtype not in DTYPES:
            raise ConfigError(f"--input {text!r}: dtype {dtype!r}{near(dtype, DTYPES)}")
        dims = () if shape == "scalar" else tuple(map(int, re.split("[x,]", shape)))
        spec = InputSpec(name, dims, dtype)
        if low is not None:
            spec = InputSpec(name, dims, dtype, int(low), int(high))
            if spec.low > spec.high:
                raise ConfigError(f"--input {text!r}: {low} is above {high}")
        found[name] = spec
    return found


def parse_dynamic(texts: Iterable[str] | None) -> dict[str, dict[int, str]] | None:
    """``["ids:0=batch,1=seq"]`` -> ``{"ids": {0: "batch", 1: "seq"}}``, ``None`` for nothing."""
    found: dict[str, dict[int, str]] = {}
    for text in texts or ():
        name, _, axes = text.rpartition(":")
        pairs = [re.fullmatch(r"(\d+)=([A-Za-z_]\w*)", item) for item in axes.split(",")]
        if not name or not all(pairs):
            raise ConfigError(f"--dynamic {text!r} is not {AXES_FORM}")
        found[name] = {int(pair[1]): pair[2] for pair in pairs if pair}
    return found or None


def make(specs: Sequence[InputSpec], seed: int) -> tuple[np.ndarray, ...]:
    """Random inputs, one a spec, in order."""
    import numpy as np

    rng = np.random.default_rng(seed)
    return tuple(spec.random(rng) for spec in specs)


def overridden(
    specs: Sequence[InputSpec], overrides: Mapping[str, InputSpec]
) -> tuple[InputSpec, ...]:
    """The specs, with those that ``--input`` named replaced; an unknown name is an error."""
    known = [spec.name for spec in specs]
    for name in overrides:
        if name not in known:
            raise ConfigError(f"--input names {name!r}, no input of the model{near(name, known)}")
    return tuple(overrides.get(spec.name, spec) for spec in specs)


def read_npz(path: Path, names: Sequence[str]) -> tuple[np.ndarray, ...]:
    """The arrays of an ``.npz`` file in the order of ``names``.

    An array saved without a name (``arr_0``, ``arr_1``, ...) is taken by its place. Raises
    :class:`InvalidInputError` for a file that is no ``.npz``, or lacks or adds an input.
    """
    import numpy as np

    if not path.is_file():
        raise InvalidInputError(f"no input file {path}")
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
    except Exception as error:
        raise InvalidInputError(f"{path} is no .npz file of plain arrays: {error}") from error
    if set(arrays) == {f"arr_{index}" for index in range(len(names))}:
        return tuple(arrays[f"arr_{index}"] for index in range(len(names)))
    missing = [name for name in names if name not in arrays]
    extra = [name for name in arrays if name not in names]
    if missing or extra:
        said = [f"lacks {', '.join(missing)}"] if missing else []
        said += [f"has {', '.join(extra)} besides"] if extra else []
        raise InvalidInputError(
            f"{path} {' and '.join(said)}; the model's inputs are {', '.join(names)}"
        )
    return tuple(arrays[name] for name in names)


def flat(outputs: Any, name: str = "output") -> dict[str, np.ndarray]:
    """Outputs of any nesting -> path (``output.0.logits``) -> NumPy array."""
    import numpy as np

    if isinstance(outputs, Mapping):
        items: Iterable[tuple[Any, Any]] = outputs.items()
    elif isinstance(outputs, list | tuple):
        items = enumerate(outputs)
    else:
        array = outputs.detach().cpu().numpy() if hasattr(outputs, "detach") else outputs
        return {name: np.asarray(array)}
    found: dict[str, np.ndarray] = {}
    for key, value in items:
        found |= flat(value, f"{name}.{key}")
    return found
