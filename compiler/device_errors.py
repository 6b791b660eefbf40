"""A device that fails in the middle of a call: which one, in which region, at what."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import tvm

from burnish.compiler.errors import BurnishError


class Devices(Protocol):
    """``main`` of a model on devices with memories of their own."""

    @property
    def memories(self) -> Sequence[tvm.runtime.Device]:
        """Its devices."""

    def __call__(self, *arguments: Any) -> Any: ...
    def noted(self, note: Any, *arguments: Any) -> None:
        """The same call, each function it runs told to ``note`` (TVM's instrument)."""


HANGS = "has not answered"
"""What the runtime says of a device that let its limit pass."""


class DeviceError(BurnishError, RuntimeError):
    """A device failed while a model ran; ``device`` and ``region`` are empty where not known."""

    stage = "run"

    def __init__(self, message: str, device: str = "", region: str = "") -> None:
        super().__init__(message)
        self.device, self.region = device, region


class Watched:
    """Calls ``main`` of a model on devices; what fails there is told with its place.

    Nothing is watched while all goes well. Where an error names no kernel, the same call is made
    once more, each function noted and waited for, to see where it fails; its results are dropped.
    ``regions`` has the device of each region by name, ``text`` the functions that call kernels.
    """

    def __init__(
        self, main: Devices, regions: Mapping[str, str], kernels: Sequence[str], text: str
    ) -> None:
        self._main, self._regions = main, regions
        self._kernels, self._text = kernels, text

    def __call__(self, *arguments: Any) -> Any:
        """Outputs as of ``main``; raises :class:`DeviceError`."""
        try:
            return self._main(*arguments)
        except BurnishError:
            raise
        except Exception as error:
            raise self._told(error, arguments) from error

    def _told(self, error: Exception, arguments: Sequence[Any]) -> DeviceError:
        said = str(error).strip() or type(error).__name__
        at = _kernel_of(said, self._kernels)
        region = _caller_of(at, self._text, self._regions) if at else ""
        again = ""
        if not at and HANGS not in said:  # what hung is not tried again
            region, at = self._place(arguments)
            again = "" if at else "; the same call went through when it was tried once more"
        device = self._regions.get(region, "")
        others = [one for one in self._main.memories if one.type != "cpu"]
        if not device and len(others) == 1:
            device = _name(others[0])
        lost = [_name(one) for one in others if not _answers(one)]
        parts = [f"on {device}"] if device else []
        parts += [f"in {region}"] if region else []
        parts += [f"at {at}"] if at and at != region else []
        gone = (
            f"The device {', '.join(lost)} is lost: start the process again, and where it stays "
            "away, compile with another placement"
            if lost
            else "Its devices answer still: where memory is short, place less there"
        )
        where = f" {' '.join(parts)}" if parts else ""
        return DeviceError(f"the model failed{where}: {said}{again}. {gone}", device, region)

    def _place(self, arguments: Sequence[Any]) -> tuple[str, str]:
        """The region and the function that fail when the call is made again, if it does."""
        inside: list[str] = []
        others = [one for one in self._main.memories if one.type != "cpu"]

        def note(_func: Any, name: str, before: bool, *_: Any) -> None:
            if before:
                inside.append(str(name))
                return
            for device in others:  # what it gave them is its own failure, not the next one's
                device.sync()
            inside.pop()

        with suppress(Exception):  # the first failure is the one that is told
            self._main.noted(note, *arguments)
            return "", ""
        region = next((name for name in inside if name in self._regions), "")
        return region, inside[-1] if inside else ""


def _kernel_of(said: str, kernels: Sequence[str]) -> str:
    """The kernel that an error names, as ``'NAME'`` or ``'NAME_kernel'``."""
    quoted = re.findall(r"'(\w+)'", said)
    names = {name for one in quoted for name in (one, re.sub(r"_kernel(_\d+)?$", "", one))}
    return next((name for name in kernels if name in names), "")


def _caller_of(kernel: str, text: str, regions: Mapping[str, str]) -> str:
    """The region that calls a kernel, by the text of the functions; the first of several."""
    for part in re.split(r"\bdef (?=\w+\()", text):
        name = part.partition("(")[0]
        if name in regions and re.search(rf"\bcls\.{re.escape(kernel)}\b", part):
            return name
    return ""


def _answers(device: tvm.runtime.Device) -> bool:
    """Whether a device still takes a value and gives it back."""
    with suppress(Exception):
        tvm.runtime.empty((1,), "float32", device).copyto(tvm.cpu())
        device.sync()
        return True
    return False


def _name(device: tvm.runtime.Device) -> str:
    return f"{device.type}:{device.index}"


__all__ = ["DeviceError", "Devices", "Watched"]
