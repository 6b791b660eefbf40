"""Devices of a pipeline: ``cpu``, and sets of its cores, ``cpu@0`` or ``cpu@0-3,6``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from burnish.compiler.errors import ConfigError
from burnish.runtime.cores import usable_cores

_SET = re.compile(r"cpu(?:@(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*))?")
FORM = "cpu, or cores of it by number: cpu@0, cpu@0-3, cpu@0,2"


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
            os.sched_setaffinity(0, self.cores)
            kept = os.sched_getaffinity(0)
        except (AttributeError, OSError) as error:
            raise ConfigError(
                f"{self.name!r}: cannot run on the cores {list(self.cores)}: {error}"
            ) from error
        if kept != set(self.cores):
            missing = sorted(set(self.cores) - kept)
            raise ConfigError(f"{self.name!r}: there are no cores {missing} to run on")


def parse_device(text: str) -> CoreSet:
    """The device of this name; :class:`ConfigError` says which there are."""
    match = _SET.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            f"a pipeline's stages run on CPU cores: {text!r:.80} is none of {FORM}; for other "
            "devices in one model, compile it with target='hetero:...'"
        )
    cores: list[int] = []
    for part in (match[1] or "").split(","):
        first, _, last = part.partition("-")
        if part:
            cores.extend(range(int(first), int(last or first) + 1))
    if match[1] and (not cores or len(set(cores)) != len(cores)):
        raise ConfigError(f"{text!r} names no core, or one twice; {FORM}")
    return CoreSet(text.strip(), tuple(cores))


def parse_devices(texts: Sequence[str], *, here: bool) -> tuple[CoreSet, ...]:
    """The devices of a pipeline in the order of its stages.

    ``here`` says that they are of this machine. Raises :class:`ConfigError` for cores that it has
    not, and for a core in two sets, whose stages would wait for each other.
    """
    if isinstance(texts, str) or not texts:
        raise ConfigError(f"devices must be a list of {FORM}; got {texts!r:.80}")
    found = tuple(map(parse_device, texts))
    if not here:
        return found
    known = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
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
