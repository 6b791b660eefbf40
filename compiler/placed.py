"""The devices of a configuration: what each supports, and the passes that lower for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from burnish.compiler.config import CompileConfig
from burnish.compiler.errors import ConfigError, wrap_errors
from burnish.passes.backends import Backend, register, registered
from burnish.passes.place import AUTO
from burnish.passes.regions import Region
from burnish.passes.support import DeviceSupport, Support
from burnish.targets.choose import Target
from burnish.targets.hetero import PREFIX, REMOTE, HeteroTarget, Place
from burnish.targets.remote.address import PREFIX as RPC
from burnish.targets.remote.address import parse_remote
from burnish.targets.remote.allowed import VARIABLE, is_allowed

CUBLAS, TENSORRT = "cublas", "tensorrt"


def of_devices(target: str | Target, devices: Sequence[str]) -> str | Target:
    """The target of a recipe's devices, where just ``cpu`` or the same is asked.

    Raises :class:`ConfigError` for another.
    """
    if not devices:
        return target
    for name in devices:
        if name.startswith(RPC) and not is_allowed(parse_remote(name)[0]):
            raise ConfigError(
                f"the recipe names the device {name!r}, and a recipe alone does not let a server "
                f"have code, weights and inputs: say target={PREFIX + ','.join(devices)!r}, or "
                f"{VARIABLE}={parse_remote(name)[0]} in the environment"
            )
    found = PREFIX + ",".join(devices)
    asked = target.strip() if isinstance(target, str) else target.name
    if asked not in ("cpu", found):
        raise ConfigError(
            f"devices are {', '.join(devices)}, and the target is {asked!r}: leave one of them out"
        )
    return target if asked == found else found


def check_placement(placement: Mapping[str, str], target: Target) -> None:
    """Raise :class:`ConfigError` where there is nothing to choose from."""
    if placement and not isinstance(target, HeteroTarget):
        other = "opencl:0" if target.kind == "cpu" else "cpu"
        raise ConfigError(
            f"placement is for targets of several devices, and {target.name!r} is one: say "
            f'target="hetero:{target.name},{other}", or leave placement out'
        )


def register_device(backend: Backend) -> None:
    """Make a code generator of your own a device, by its name: ``target="hetero:NAME,cpu"``.

    :class:`ConfigError` for a name that is taken, and for one that lacks a method of
    :class:`~burnish.passes.backends.Backend`.
    """
    with wrap_errors(ConfigError):
        register(backend)


def check_memory(config: CompileConfig, target: Target) -> None:
    """Raise :class:`ConfigError` for a limit of a device that the target has not, or unheeded."""
    memory = config.memory
    known = target.devices if isinstance(target, HeteroTarget) else ()
    for name in memory:
        if name not in known:
            raise ConfigError(
                f"memory limits {name!r}, which is no device of the target {target.name!r}"
                + (f": its devices are {', '.join(known)}" if known else "; leave memory out")
            )
    if memory and AUTO not in config.placement.values() and config.resolved is None:
        raise ConfigError(
            "memory limits what a placement by cost may use, and this placement is by names: "
            'say "auto" in the place of a device (placement={"*": "auto"}), or leave memory out'
        )


def supports(target: HeteroTarget) -> dict[str, Support]:
    """The support of each device of a target, by name, in its order."""
    return {one.name: support_of(one) for one in target.places}


def support_of(place: Place) -> Support:
    """Whether a device can compute a call, and why not."""
    if place.backend == CUBLAS:
        from burnish.compiler.external.cublas import CublasSupport

        return CublasSupport()
    return backend_of(place) if place.backend else DeviceSupport(place)


def backend_of(place: Place, config: CompileConfig | None = None) -> Backend:
    """The code generator of an external device, for a model compiled with ``config``."""
    if place.backend == REMOTE:
        from burnish.compiler.remote.backend import Remote

        return Remote(place, config or CompileConfig())
    if place.backend == TENSORRT:
        # ONNX, in which regions are written, is an extra.
        from burnish.compiler.external.tensorrt import Tensorrt, build_here

        return Tensorrt(build_here)
    found = registered.get(place.backend)
    if found is None:
        raise ConfigError(
            f"the device {place.name!r} is not registered in this process: call "
            "burnish.register_device with it first"
        )
    return found


def seconds_of(place: Place, region: Region) -> float | None:
    """What an external device expects a region to take; ``None`` where it tells nothing.

    :class:`ConfigError` where it tells what is no time.
    """
    if place.backend == CUBLAS:
        return None
    found = backend_of(place).seconds(region)
    number = isinstance(found, int | float) and not isinstance(found, bool)
    if found is not None and not (number and 0 <= found < math.inf):
        raise ConfigError(
            f"the device {place.name!r} says that a region takes {found!r}: its method seconds "
            "gives a finite number of seconds, 0 or more, or None where it knows none"
        )
    return found
