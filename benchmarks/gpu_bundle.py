"""Make the bundle that ``gpu.py`` runs from: ``python benchmarks/gpu_bundle.py --python 3.12``.

gpu.py, gpu_*.py      the script and its parts
site/                 tvm-ffi for that Python
lib/                  TVM's runtime library and its CUDA part
burnish/models/       the networks, which need torch alone
libraries/            a compiled library for each case, and what it takes (JSON)
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import torch

import burnish
import burnish.models
from burnish.compiler.errors import BurnishError
from burnish.runtime.native import library_folder
from burnish.runtime.pins import LIBRARIES, PINS

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from gpu_cases import CASES, Case, case_id  # noqa: E402
from gpu_weights import recipes  # noqa: E402

LIMIT = 60 * 1000 * 1000
"""Bytes of the whole bundle, packed."""
SCRIPTS = ("gpu.py", "gpu_cases.py", "gpu_runtime.py", "gpu_weights.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default="3.12", help="of the machine with the GPU")
    parser.add_argument("--target", default="cuda:sm_90")
    parser.add_argument("--only", nargs="*", help="names of cases")
    parser.add_argument("--work", type=Path, default=Path("build/gpu-bundle"))
    parser.add_argument("--out", type=Path, default=Path("build/gpu-bundle.zip"))
    given = parser.parse_args()
    shutil.rmtree(given.work, ignore_errors=True)
    given.work.mkdir(parents=True)
    put_runtime(given.work, given.python)
    failed = []
    for case in CASES:
        if given.only and case_id(case) not in given.only:
            continue
        try:
            target = f"cuda:{case.arch}" if case.arch else given.target
            put_library(given.work / "libraries", case, target)
        except BurnishError as error:
            failed.append(case_id(case))
            print(f"{case_id(case)} left out: {str(error)[:2000]}", flush=True)
    size = pack(given.work, given.out)
    print(f"{given.out}: {size / 1e6:.1f} MB")
    if failed:
        raise SystemExit(f"not built: {', '.join(failed)}")


def put_runtime(folder: Path, python: str) -> None:
    """Scripts, networks, TVM's runtime and tvm-ffi for ``python``."""
    for script in SCRIPTS:
        shutil.copy(HERE / script, folder / script)
    models = Path(burnish.models.__path__[0])
    ignored = shutil.ignore_patterns("weights", "__pycache__", "*.toml", "*.txt", "*.json", "*.cc")
    shutil.copytree(models, folder / "burnish/models", ignore=ignored)
    (folder / "lib").mkdir()
    for library in LIBRARIES:
        shutil.copy(library_folder() / library, folder / "lib" / library)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    command += ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp"]
    command += [f"--platform=manylinux_2_{minor}_x86_64" for minor in (28, 24, 17)]
    command += ["--target", str(folder / "site")]
    subprocess.run([*command, f"apache-tvm-ffi=={PINS['apache-tvm-ffi']}"], check=True)
    for unused in ("src", "include", "3rdparty"):
        shutil.rmtree(folder / "site/tvm_ffi" / unused, ignore_errors=True)


def put_library(folder: Path, case: Case, target: str) -> None:
    """The compiled library of a case, and its description."""
    folder.mkdir(exist_ok=True)
    start = time.perf_counter()
    model, inputs = case.load()
    compiled = burnish.compile(model, inputs, target=target, do_no_harm=False, cache=False)
    params = {name: torch.from_dlpack(value) for name, value in compiled.params.items()}
    details = compiled.report.resources
    description: dict[str, Any] = {
        "case": case.name,
        "dtype": case.dtype,
        "target": target,
        "weights": recipes(params, model),
        "rules": {name: kernel.rule for name, kernel in compiled.kernels.items()},
        "resources": details,
        "seconds": dict(compiled.report.seconds),
    }
    shutil.copy(compiled.library, folder / f"{case_id(case)}.so")
    (folder / f"{case_id(case)}.json").write_text(json.dumps(description))
    spilled = sum(one["local"] > 0 for found in details.values() for one in found)
    rules = sorted({kernel.rule for kernel in compiled.kernels.values()})
    print(
        f"{case_id(case):32} {len(compiled.kernels):3} kernels ({', '.join(rules)}), "
        f"{spilled} with local memory, {time.perf_counter() - start:.0f} s",
        flush=True,
    )


def pack(folder: Path, out: Path) -> int:
    """One zip; ``ValueError`` where it is over the limit."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.write(path, path.relative_to(folder))
    size = out.stat().st_size
    if size > LIMIT:
        raise ValueError(f"{out} has {size} bytes, more than {LIMIT}: leave cases out with --only")
    return size


if __name__ == "__main__":
    main()
