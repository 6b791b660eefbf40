"""Other CPUs: a kernel built for one, linked by its cross compiler, run by an emulator."""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from burnish.compiler.doctor.check import Check, first_line

_MAIN = Path(__file__).with_name("kernel_main.cc")
_SECONDS = 60


def aarch64() -> Check:
    """64-bit ARM under Linux."""
    return _machine("aarch64")


def x86_64() -> Check:
    """x86-64 under Linux, from a machine that is another."""
    return _machine("x86_64")


def _machine(name: str) -> Check:
    from burnish.compiler.errors import BuildError
    from burnish.compiler.linking import linker
    from burnish.targets.isa import machine_name
    from burnish.targets.target import parse_target

    if machine_name(platform.machine()) == name:
        return Check(name, "run", "this machine's own: see cpu kernel")
    target = parse_target(f"llvm -mtriple={name}-linux-gnu")
    try:
        compiler = linker(target)
    except BuildError as error:
        said, _, remedy = error.message.partition(" (Debian: ")
        remedy = f"Debian: {remedy.rstrip(')')}" if remedy else "install it"
        return Check(name, "unavailable", said, remedy)
    emulator = shutil.which(f"qemu-{name}")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "program")
        try:
            _build(target.tvm(), Path(folder, "kernel.o"), program, compiler)
        except RuntimeError as error:
            return Check(name, "broken", f"{compiler}: {first_line(error)}", "reinstall it")
        if emulator is None:
            detail = f"a kernel compiles, {compiler} links it; no qemu-{name} on PATH to run it"
            return Check(name, "compile only", detail, "Debian: apt install qemu-user")
        done = subprocess.run(
            [emulator, str(program)], capture_output=True, check=False, timeout=_SECONDS
        )
    if done.returncode:
        said = f"{emulator} ends with code {done.returncode}"
        return Check(name, "broken", said, "report this machine")
    return Check(name, "run", f"a kernel linked by {compiler} ran in {emulator}, right")


def _build(target: object, objects: Path, program: Path, compiler: str) -> None:
    """A static program of the kernel ``add_one``; ``RuntimeError`` with what the linker says."""
    import tvm
    import tvm_ffi
    from tvm import te

    source = te.placeholder((8,), "float32", name="x")
    result = te.compute((8,), lambda index: source[index] + 1.0, name="y")
    func = te.create_prim_func([source, result]).with_attr("global_symbol", "add_one")
    built = tvm.compile(tvm.IRModule({"add_one": func}), target=target)
    built.mod.write_to_file(str(objects), "o")
    include = Path(tvm_ffi.__file__).parent / "include"
    command = [compiler, "-static", "-I", str(include), "-o", str(program)]
    command += [str(_MAIN), str(objects)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    if done.returncode:
        raise RuntimeError(done.stderr)
