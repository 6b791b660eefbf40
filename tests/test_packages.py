"""The wheel holds every folder, and the one TVM pair that works is the one installed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import requires, version

from burnish.runtime.pins import PINS
from support import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]


def _packages_on_disk() -> set[str]:
    """Every folder with Python in it under the mapped roots, as the package it is imported as."""
    roots = SETUPTOOLS["package-dir"]
    found = set()
    for package, folder in roots.items():
        for file in (ROOT / folder).rglob("*.py"):
            if "__pycache__" not in file.parts:
                below = file.parent.relative_to(ROOT / folder).parts
                found.add(".".join((package, *below)))
    return found


def test_listed_packages_equal_the_folders() -> None:
    assert set(SETUPTOOLS["packages"]) == _packages_on_disk()


def test_each_package_has_an_init_file() -> None:
    roots = SETUPTOOLS["package-dir"]
    for package in SETUPTOOLS["packages"]:
        root = max((name for name in roots if f"{package}.".startswith(f"{name}.")), key=len)
        folder = ROOT / roots[root] / package.removeprefix(root).lstrip(".").replace(".", "/")
        assert (folder / "__init__.py").is_file(), f"{folder} lacks __init__.py"


def test_installed_tvm_pair_is_the_declared_one() -> None:
    declared = dict(
        line.split("==") for line in PYPROJECT["project"]["dependencies"] if "==" in line
    )
    assert set(declared) == {"apache-tvm", "apache-tvm-ffi"}
    for name, expected in declared.items():
        assert version(name) == expected


def test_constraints_agree_with_the_dependencies() -> None:
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    for line in PYPROJECT["project"]["dependencies"]:
        name, _, exact = line.partition("==")
        if exact:
            assert pins[name] == exact
    assert requires("burnish") is not None


def test_import_stays_light() -> None:
    """``import burnish`` and the command's help load neither torch nor TVM."""
    code = (
        "import sys, burnish, burnish.cli\n"
        "heavy = {'torch', 'tvm', 'onnx', 'onnxruntime', 'matplotlib'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_no_test_folder_hides_the_package() -> None:
    """``tests`` is on the path: a folder ``tests/burnish`` would be imported as ``burnish``."""
    assert not (ROOT / "tests" / "burnish").exists()


def test_the_runtimes_own_distribution_says_the_same() -> None:
    """``runtime/pyproject.toml``: version, the one TVM pair, and nothing else but NumPy."""
    ours, theirs = PYPROJECT, tomllib.loads((ROOT / "runtime" / "pyproject.toml").read_text())
    needed = theirs["project"]["dependencies"]
    assert theirs["project"]["version"] == ours["project"]["version"]
    assert theirs["project"]["requires-python"] == ours["project"]["requires-python"]
    assert len(needed) == 2
    assert set(needed) <= set(ours["project"]["dependencies"])
    pins = {f"{name}=={version}" for name, version in PINS.items()}
    assert pins <= {*needed, *theirs["build-system"]["requires"]}
