"""What ``libraries`` of a configuration may say, and which products that means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from burnish.compiler.errors import ConfigError, TargetError

if TYPE_CHECKING:
    from burnish.targets.choose import Target
    from burnish.targets.cuda.called import Operation

TENSORRT = "tensorrt"
AUTO = "auto"


def as_libraries(given: object) -> tuple[str, ...]:
    """``"cublas"`` -> that one; a list -> its names; raises :class:`ConfigError`."""
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"libraries must be a list of names, got {given!r}")
    from burnish.targets.cuda.called import LIBRARIES, check_name

    for name in names:
        if name == TENSORRT or (name == AUTO and len(names) == 1):
            continue
        try:
            check_name(name)
        except ValueError as error:
            known = ", ".join([*LIBRARIES, f"{LIBRARIES[0]}:OPERATION", TENSORRT])
            raise ConfigError(f"libraries: {error}; known: {known}, and {AUTO} alone") from error
    return tuple(names)


def check_libraries(libraries: Sequence[str], target: Target) -> None:
    """Raise where ``target`` has no such library, or where there is nothing to measure on."""
    from burnish.targets.cuda.target import CudaTarget

    if libraries and not isinstance(target, CudaTarget):
        raise ConfigError(
            f"libraries={list(libraries)!r} is for CUDA; the target {target.name!r} has no library "
            "to call: leave it out, or build for cuda"
        )
    why = target.why_not_here() if {AUTO, TENSORRT}.intersection(libraries) else ""
    if why and TENSORRT in libraries:
        raise TargetError(
            f"an engine of TensorRT is built on the GPU that runs it, but {why}: compile there, or "
            "without it"
        )
    if why:
        raise TargetError(
            f'libraries="{AUTO}" measures on this machine, but {why}: say libraries="cublas", '
            "or give a recipe that was finished on a machine with the GPU"
        )


def chooser(libraries: Sequence[str]) -> Callable[[Operation], bool]:
    """Whether an operation is a library's."""
    names = frozenset(libraries)
    return lambda one: one.library in names or f"{one.library}:{one.key}" in names
