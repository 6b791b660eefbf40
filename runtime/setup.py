"""The wheel of burnish-runtime: the folder ``burnish/runtime`` as a package, and TVM's libraries.

The libraries come from the installed apache-tvm, and are compared with the hashes of its record.
"""

from __future__ import annotations

import base64
import hashlib
import runpy
import shutil
from importlib import metadata
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

SOURCE = Path(__file__).resolve().parents[1] / "burnish" / "runtime"
PACKAGE = "burnish_runtime"
PINS = runpy.run_path(str(SOURCE / "pins.py"))
VERSION, LIBRARIES = PINS["PINS"]["apache-tvm"], PINS["LIBRARIES"]
LICENSES = ("LICENSE", "NOTICE")


def put_libraries(folder: Path) -> None:
    """TVM's runtime libraries, as the wheel of apache-tvm has them, and its licence."""
    found = metadata.distribution("apache-tvm")
    if found.version != VERSION:
        raise SystemExit(f"apache-tvm {VERSION} is needed, not {found.version}")
    recorded = {Path(file.name).name: file for file in found.files or ()}
    folder.mkdir(parents=True, exist_ok=True)
    for name in LIBRARIES:
        file = recorded[name]
        content = Path(str(file.locate())).read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        if file.hash is None or file.hash.mode != "sha256" or file.hash.value != digest:
            raise SystemExit(f"{name} is not the one that apache-tvm {VERSION} was published with")
        (folder / name).write_bytes(content)
    for name in LICENSES:
        if name in recorded:
            shutil.copy(str(recorded[name].locate()), folder / f"TVM-{name}")


class BuildPackage(build_py):
    """The source lies beside this folder, under the name it has in the compiler."""

    def run(self) -> None:
        target = Path(self.build_lib) / PACKAGE
        shutil.rmtree(target, ignore_errors=True)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(SOURCE, target, ignore=ignored)
        put_libraries(target / "lib")


class BuildWheel(bdist_wheel):
    """For any Python 3, on the platforms that TVM's own wheel is for."""

    def get_tag(self) -> tuple[str, str, str]:
        text = metadata.distribution("apache-tvm").read_text("WHEEL") or ""
        tags = [line.partition(": ")[2] for line in text.splitlines() if line.startswith("Tag: ")]
        platforms = sorted(tag.rsplit("-", 1)[1] for tag in tags)
        return "py3", "none", ".".join(platforms)


class BinaryDistribution(Distribution):
    def has_ext_modules(self) -> bool:
        return True


setup(
    packages=[PACKAGE],
    package_dir={PACKAGE: str(Path("..") / "burnish" / "runtime")},
    cmdclass={"build_py": BuildPackage, "bdist_wheel": BuildWheel},
    distclass=BinaryDistribution,
)
