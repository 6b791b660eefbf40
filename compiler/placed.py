"""What ``placement`` of a configuration may say."""

from __future__ import annotations

from collections.abc import Mapping

from burnish.compiler.errors import ConfigError
from burnish.targets.choose import Target
from burnish.targets.hetero import HeteroTarget


def check_placement(placement: Mapping[str, str], target: Target) -> None:
    """Raise :class:`ConfigError` where there is nothing to choose from."""
    if placement and not isinstance(target, HeteroTarget):
        raise ConfigError(
            f"placement is for targets of several devices, and {target.name!r} is one: say "
            f'target="hetero:{target.name},cpu", or leave placement out'
        )
