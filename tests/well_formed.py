"""Relax's rules of a module, checked before and after every pass of a test."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

NOT_YET = ("Normalize", "NormalizeGlobalVar", "ResolveGlobals")
"""Passes that make a module well formed, or one after another with others do."""


@tvm.instrument.pass_instrument
class WellFormed:
    """TVM's ``WellFormedInstrument``, which looks at a module once: a pass mostly gets what the
    one before it gave, and many change nothing.

    What is kept of a module are its maps: a change to the module in place replaces them.
    """

    def __init__(self) -> None:
        self._seen: tuple[Any, Any] | None = None

    def run_before_pass(self, mod: tvm.IRModule, info: Any) -> None:
        self._check(mod, info.name, "before")

    def run_after_pass(self, mod: tvm.IRModule, info: Any) -> None:
        self._check(mod, info.name, "after")

    def _check(self, mod: tvm.IRModule, name: str, when: str) -> None:
        if name in NOT_YET:
            return
        maps = (mod.functions, mod.global_infos)
        if self._seen and all(a.same_as(b) for a, b in zip(maps, self._seen, strict=True)):
            return
        if not relax.analysis.check_well_formed(mod, True):
            mod.show(name=f"{when} {name}")
            raise AssertionError(f"{when} {name} the module is not well formed")
        self._seen = maps
