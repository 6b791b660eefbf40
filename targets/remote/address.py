"""Names of remote devices: ``rpc://HOST:PORT/DEVICE``."""

from __future__ import annotations

import re
from dataclasses import dataclass

PREFIX = "rpc://"
PORT = 9090
SYNTAX = "rpc://HOST:PORT/cpu, rpc://HOST:PORT/cpu:CPU or rpc://HOST:PORT/opencl:0"
_NAME = re.compile(r"rpc://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})/([A-Za-z0-9_:.-]+)")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Address:
    """Where a device server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def start(self) -> str:
        """The command that starts a server there, for messages."""
        host = "" if self.host in _LOOPBACK else f" --host {self.host}"
        return f"burnish serve-device{host} --port {self.port}"


def parse_remote(name: str) -> tuple[Address, str]:
    """``rpc://10.0.0.2:9090/cpu`` -> the address, and ``cpu``; ``ValueError`` for another form."""
    found = _NAME.fullmatch(name)
    if found is None or not 0 < int(found[2]) < 65536:
        raise ValueError(f"device {name!r:.120} is not of the form {SYNTAX}")
    return Address(found[1].strip("[]"), int(found[2])), found[3]


def parse_address(text: str) -> Address:
    """``10.0.0.2:9090``, with or without ``rpc://`` and a device; ``ValueError`` for others."""
    bare = text.strip().removeprefix(PREFIX).partition("/")[0]
    try:
        return parse_remote(f"{PREFIX}{bare}/cpu")[0]
    except ValueError:
        raise ValueError(f"{text!r:.120} is no address of the form HOST:PORT") from None
