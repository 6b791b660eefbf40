"""Errors of loading and running: what failed, where, and what to do instead."""

from __future__ import annotations

from collections.abc import Sequence


class BurnishError(Exception):
    """Base of every error that Burnish raises on purpose.

    ``stage`` is one of ``import``, ``optimize``, ``tune``, ``build``, ``run``, ``compare``,
    ``load``, ``save``, ``config``; ``pass_name``, ``op`` and ``shape`` say where in it.
    """

    stage: str | None = None

    def __init__(
        self,
        message: str,
        *,
        stage: str | None = None,
        pass_name: str | None = None,
        op: str | None = None,
        shape: Sequence[object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.stage = stage or type(self).stage
        self.pass_name = pass_name
        self.op = op
        self.shape = tuple(shape) if shape is not None else None

    def __str__(self) -> str:
        where = [
            f"{key} {value}"
            for key, value in (
                ("stage", self.stage),
                ("pass", self.pass_name),
                ("op", self.op),
                ("shape", self.shape),
            )
            if value is not None
        ]
        return f"{self.message} [{', '.join(where)}]" if where else self.message


class ArtifactError(BurnishError):
    """A saved artifact is missing, damaged, or not for this machine."""

    stage = "load"


class InvalidInputError(BurnishError, ValueError):
    """A compiled model was called with the wrong number, dtype or shape of inputs."""

    stage = "run"


class TargetError(BurnishError, ValueError):
    """The target is unknown, or cannot run here."""

    stage = "build"
