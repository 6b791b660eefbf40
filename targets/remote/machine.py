"""What a device server says of its machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from burnish.targets.described import described, of_fields
from burnish.targets.isa import machine_name
from burnish.targets.remote.address import Address
from burnish.targets.remote.session import session_to
from burnish.targets.target import ARCHITECTURES, CpuTarget, host


@dataclass(frozen=True)
class Machine:
    """A server's machine: its CPU as a target, and words that tell it from others.

    ``identity`` is what times are kept under; ``memory_bytes`` is all of its memory.
    """

    cpu: CpuTarget
    architecture: str
    name: str
    identity: str
    memory_bytes: int

    def to_json(self) -> str:
        said = {
            "cpu": described(self.cpu),
            "architecture": self.architecture,
            "name": self.name,
            "identity": self.identity,
            "memory_bytes": self.memory_bytes,
        }
        return json.dumps(said, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Machine:
        """What :meth:`to_json` wrote; ``ValueError`` for anything else."""
        try:
            said: Mapping[str, Any] = json.loads(text)
            cpu = of_fields(CpuTarget, said["cpu"])
            words = [said[name] for name in ("architecture", "name", "identity")]
            size = said["memory_bytes"]
            sound = all(isinstance(word, str) for word in words) and type(size) is int
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"the server describes no machine: {error!r:.200}") from error
        if not sound or words[0] not in ARCHITECTURES:
            raise ValueError(f"the server describes a machine of no known kind: {text!r:.200}")
        architecture, name, identity = words
        return cls(cpu, architecture, name, identity, size)

    def target(self) -> CpuTarget:
        """Its CPU, as code is made for it on this machine."""
        if self.architecture == host().machine:
            return self.cpu
        return replace(self.cpu, mtriple=f"{self.architecture}-linux-gnu")


def machine_at(address: Address) -> Machine:
    """What the server there says; raises :class:`~.session.DeviceLost` where there is none."""
    return Machine.from_json(str(session_to(address).call("describe")))


def this_machine(name: str, identity: str, memory_bytes: int) -> Machine:
    """What a server says of the machine it runs on."""
    own = host()
    return Machine(own, machine_name(own.machine), name, identity, memory_bytes)
