"""What tests of the CUDA target share."""

from __future__ import annotations

from burnish.targets.cuda import disassemble, libraries
from support import require


def require_compiler() -> None:
    """Skip where NVIDIA's compiler libraries are not installed; fail under ``BURNISH_CI=1``."""
    try:
        libraries.library("libnvrtc.so.13")
        libraries.library("libnvfatbin.so.13")
        disassemble.disassembler()
        missing = ""
    except (libraries.MissingLibraryError, disassemble.MissingDisassemblerError) as error:
        missing = str(error)
    require(not missing, missing)
