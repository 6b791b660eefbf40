"""The devices of a target as ``burnish devices`` lists them, those of other machines too.

A device there is measured by its server, and the link to it from here.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

from burnish.compiler.errors import MeasureError, TargetError, wrap_errors
from burnish.compiler.placement import devices
from burnish.compiler.placement.devices import DeviceRates, Progress, rated
from burnish.compiler.remote.costs import link_to
from burnish.targets.hetero import PREFIX, parse_place
from burnish.targets.remote import allowed
from burnish.targets.remote.address import PREFIX as RPC
from burnish.targets.remote.address import parse_remote
from burnish.targets.remote.machine import machine_at
from burnish.targets.remote.session import DeviceLost, Refused, session_to

OTHERS = "burnish devices lists what there is"
MEASURE_S = 300.0
"""Seconds that a server may take to measure a device."""


def target_devices(
    target: str,
    *,
    again: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = lambda doing: None,
) -> tuple[DeviceRates, ...]:
    """The devices of ``hetero:cpu,rpc://HOST:PORT/cpu``, or of one of them, in order.

    Raises TargetError for a target that cannot be read.
    """
    found: list[DeviceRates] = []
    for given in target.strip().removeprefix(PREFIX).split(","):
        name = given.strip()
        if name.startswith(RPC):
            progress(f"measuring {name}")
            found.append(remote_rates(name, again=again, cache_dir=cache_dir))
            continue
        own = _listed_as(name)
        here = tuple(one for one in devices.present() if one.name == own)
        missing = (DeviceRates(own, name, reason="there is none here", remedy=OTHERS),)
        found += rated(
            here or missing,
            devices.measured,
            again=again,
            cache_dir=cache_dir,
            progress=progress,
        )
    return tuple(found)


def _listed_as(name: str) -> str:
    """``opencl:0`` for ``opencl:mali:0``."""
    with wrap_errors(TargetError):
        place = parse_place(name)
    own = place.target.kind == "cpu" and not place.backend
    return place.name.partition(":")[0] if own else place.memory


def remote_rates(
    name: str, *, again: bool = False, cache_dir: str | os.PathLike[str] | None = None
) -> DeviceRates:
    """``rpc://HOST:PORT/cpu`` with its rates, or with the reason that it cannot be used."""
    with wrap_errors(TargetError):
        address, device = parse_remote(name)
    allowed.allow(address)
    remedy = f"start `{address.start}` there"
    try:
        machine = machine_at(address)
        said = session_to(address).call("rates", device, int(again), limit=MEASURE_S)
        found = _read(str(said))
        latency, there, _ = link_to(address, cache_dir=cache_dir, again=again)
    except DeviceLost as error:
        return DeviceRates(name, "another machine", reason=str(error), remedy=remedy)
    except (Refused, MeasureError, ValueError) as error:
        return DeviceRates(name, "another machine", reason=str(error), remedy=OTHERS)
    what = found.what if machine.name == found.what else f"{found.what}, of {machine.name}"
    return replace(found, name=name, what=what, latency_s=latency, link_gbytes=there / 1e9)


def _read(text: str) -> DeviceRates:
    try:
        given: dict[str, Any] = json.loads(text)
        return DeviceRates(**given)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the server tells no rates: {error}") from error
