"""The wheel of burnish-runtime: the folder ``burnish/runtime`` as a package, and libraries.

TVM's come from the installed apache-tvm, and are compared with the hashes of its record. The
OpenCL part is compiled here against the headers of the same: what it is handed to is what the
wheel carries. It takes a C++ compiler, ``$CXX`` or ``g++``, and runs where the C library is as new.
"""

from __future__ import annotations

import base64
import hashlib
import os
import runpy
import shlex
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "burnish" / "runtime"
OPENCL = ROOT / "targets" / "opencl" / "runtime.cc"
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


def put_opencl(folder: Path) -> None:
    """The OpenCL part, compiled against the headers of the installed TVM and its FFI."""
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    if shutil.which(compiler[0]) is None:
        raise SystemExit(f"the OpenCL part is C++, and there is no {compiler[0]}: install g++")
    tvm, ffi = (metadata.distribution(name) for name in ("apache-tvm", "apache-tvm-ffi"))
    if ffi.version != PINS["PINS"]["apache-tvm-ffi"]:
        raise SystemExit(f"apache-tvm-ffi {PINS['PINS']['apache-tvm-ffi']} is needed")
    headers = {Path(str(tvm.locate_file("tvm/include")))}
    for file in ffi.files or ():
        parts = Path(str(file)).parts
        if "include" in parts and file.suffix == ".h":
            inside = Path(*parts[: parts.index("include") + 1])
            headers.add(Path(str(ffi.locate_file(inside))))
    command = [*compiler, *PINS["OPENCL_FLAGS"], *(f"-I{path}" for path in sorted(headers))]
    library = Path(str(ffi.locate_file("tvm_ffi/lib")))
    command += [str(OPENCL), "-o", str(folder / PINS["OPENCL_LIBRARY"])]
    command += [f"-L{folder}", "-ltvm_runtime", f"-L{library}", "-ltvm_ffi", "-ldl"]
    subprocess.run(command, check=True)


class BuildPackage(build_py):
    """The source lies beside this folder, under the name it has in the compiler."""

    def run(self) -> None:
        target = Path(self.build_lib) / PACKAGE
        shutil.rmtree(target, ignore_errors=True)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(SOURCE, target, ignore=ignored)
        put_libraries(target / "lib")
        put_opencl(target / "lib")


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
