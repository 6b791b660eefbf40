"""``--extract FOLDER``: the members of an artifact as files, for programs without Python."""

from __future__ import annotations

from pathlib import Path

from burnish.cli.files import whole_file
from burnish.compiler.errors import ArtifactError, ConfigError


def extract(artifact: str, folder: str) -> list[Path]:
    """Write every member of a whole artifact into ``folder``, which is made where there is none.

    Raises :class:`ArtifactError` before anything is written for a file that is damaged.
    """
    from burnish.runtime import manifest
    from burnish.runtime.reading import read_artifact

    if not Path(artifact).is_file():
        raise ArtifactError(f"no artifact {artifact}")
    where = Path(folder).expanduser().absolute()
    if not where.is_dir() and (where.exists() or not where.parent.is_dir()):
        raise ConfigError(f"--extract {folder}: no folder, and none can be made there")
    found = read_artifact(artifact)
    members: dict[str, bytes | memoryview] = {manifest.NAME: found.manifest.to_json()}
    members.update(found.members)
    written = []
    try:
        where.mkdir(exist_ok=True)
        for name, content in members.items():
            with whole_file(where / name) as partial:
                partial.write_bytes(content)
            written.append(where / name)
    except OSError as error:
        raise ArtifactError(f"cannot write into {where}: {error.strerror or error}") from error
    return written
