"""Which servers this process may connect to: those that its user has named, and no file alone."""

from __future__ import annotations

import os

from burnish.targets.remote.address import Address, parse_address

VARIABLE = "BURNISH_REMOTES"
"""Addresses that are allowed in a process and in those it starts, ``HOST:PORT`` and commas."""
_named: set[Address] = set()


def allow(address: Address) -> None:
    """Let models of this process use the server."""
    _named.add(address)


def is_allowed(address: Address) -> bool:
    return address in _named or address in _listed()


def environment() -> dict[str, str]:
    """What a process that is started by this one needs, to be allowed the same."""
    known = sorted(map(str, _named | _listed()))
    return {VARIABLE: ",".join(known)} if known else {}


def _listed() -> set[Address]:
    given = os.environ.get(VARIABLE, "")
    try:
        return {parse_address(one) for one in given.split(",") if one.strip()}
    except ValueError as error:
        raise ValueError(f"{VARIABLE}: {error}") from error
