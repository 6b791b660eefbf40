"""Scripts that build systems call, one a kind of target: ``python -m burnish.build.cpu``.

``burnish.build(stage)`` is a verb of the Python API too, and a package of the same name takes its
place once one of these modules is imported: so this package can be called, and is that verb.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from burnish.compiler.compiled import Compiled
    from burnish.compiler.stages import Optimized, Tuned


class _Verb(ModuleType):
    def __call__(self, stage: Tuned | Optimized) -> Compiled:
        """Generate code and load it."""
        from burnish.compiler.driver import build

        return build(stage)


sys.modules[__name__].__class__ = _Verb
