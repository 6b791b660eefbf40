"""Devices of a pipeline: ``cpu``, and sets of its cores, ``cpu@0`` or ``cpu@0-3+6``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from burnish.compiler.errors import ConfigError
from burnish.runtime.cores import usable_cores
from burnish.targets.core_sets import FORM, bind, parse_cores, usable


@dataclass(frozen=True)
class CoreSet:
    """A device: its name as given, and the ``cores`` its stage is bound to; none binds it."""

    name: str
    cores: tuple[int, ...] = ()

    @property
    def threads(self) -> int:
        """Threads of its kernels: one a core."""
        return len(self.cores) or usable_cores()

    def bind(self) -> None:
        """Keep the calling thread, and those that it starts later, on these cores.

        Raises :class:`ConfigError` where this machine has not all of them.
        """
        if not self.cores:
            return
        try:
            bind(self.cores)
        except ValueError as error:
            raise ConfigError(f"{self.name!r}: {error}") from error


def parse_device(text: str) -> CoreSet:
    """The device of this name; :class:`ConfigError` says which there are."""
    try:
        if not isinstance(text, str):
            raise ValueError(f"{text!r:.80} is none of {FORM}")
        return CoreSet(text.strip(), parse_cores(text))
    except ValueError as error:
        raise ConfigError(
            f"stages of a pipeline, and ranks, run on CPU cores: {error}; for other devices in "
            "one model, compile it with target='hetero:...'"
        ) from error


def parse_devices(texts: Sequence[str], *, here: bool) -> tuple[CoreSet, ...]:
    """The devices of a pipeline in the order of its stages.

    ``here`` says that they are of this machine. Raises :class:`ConfigError` for cores that it has
    not, and for a core in two sets, whose stages would wait for each other.
    """
    if isinstance(texts, str) or not isinstance(texts, Sequence) or not texts:
        raise ConfigError(f"devices must be a list of {FORM}; got {texts!r:.80}")
    found = tuple(map(parse_device, texts))
    if not here:
        return found
    known = usable()
    seen: dict[int, str] = {}
    for device in found:
        missing = sorted(set(device.cores) - known)
        if missing:
            raise ConfigError(
                f"{device.name!r}: this machine lets us have the cores {sorted(known)}, "
                f"not {missing}"
            )
        for core in device.cores:
            if core in seen:
                raise ConfigError(f"core {core} is in {seen[core]!r} and in {device.name!r}")
            seen[core] = device.name
    return found
