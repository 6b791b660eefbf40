"""``--emit KIND``: the code of kernels, to a folder or to stdout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from burnish.cli import console
from burnish.cli.files import whole_file
from burnish.compiler.errors import ConfigError

if TYPE_CHECKING:
    from burnish.compiler.stages import Optimized, Tuned
    from burnish.targets.choose import Target


@dataclass(frozen=True)
class Emission:
    """What code was asked for; false where none was. ``folder`` none is stdout."""

    kinds: tuple[str, ...] = ()
    pattern: str = "*"
    folder: Path | None = None

    @classmethod
    def of(cls, kinds: Sequence[str] | None, pattern: str, folder: str | None) -> Emission:
        """From the flags; :class:`ConfigError` where one needs another."""
        if not kinds and (folder is not None or pattern != "*"):
            flag = "--kernel" if folder is None else "--emit-to"
            raise ConfigError(f"{flag} needs --emit KIND")
        split = [kind.strip() for said in kinds or () for kind in said.split(",")]
        path = None if folder is None else Path(folder).expanduser().absolute()
        if path is not None and not path.is_dir() and (path.exists() or not path.parent.is_dir()):
            raise ConfigError(f"--emit-to {folder}: no folder, and none can be made there")
        return cls(tuple(dict.fromkeys(split)), pattern, path)

    def __bool__(self) -> bool:
        return bool(self.kinds)

    def check(self, target: Target) -> None:
        """:class:`ConfigError` for code that the target's kernels do not have."""
        if self:
            from burnish.compiler.emit import check_kinds

            check_kinds(self.kinds, target)

    def emit(self, stage: Tuned | Optimized) -> list[dict[str, str]]:
        """Write or print the code; what there is, for ``--json``: with a path, else the text."""
        from burnish.compiler.emit import emit

        found = []
        for code in emit(stage, self.kinds, self.pattern):
            said = {"kernel": code.kernel, "kind": code.kind}
            if code.arch:
                said["arch"] = code.arch
            if self.folder is not None:
                self.folder.mkdir(exist_ok=True)
                path = self.folder / code.file_name
                with whole_file(path) as partial:
                    partial.write_text(code.text)
                said["path"] = str(path)
            elif console.flags.json:
                said["text"] = code.text
            else:
                print(f"==> {code.file_name} <==\n{code.text}", flush=True)
            found.append(said)
        return found
