"""The code of each kernel as text: scheduled TensorIR, LLVM's, assembly, CUDA, PTX, SASS, OpenCL C.

Each kernel is compiled alone, by the same passes and options as for the library.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.ir import Call

from burnish.compiler.build import scheduled
from burnish.compiler.errors import BuildError, ConfigError, wrap_errors
from burnish.compiler.stages import Optimized, Tuned
from burnish.targets.choose import Target
from burnish.targets.cpu import pool
from burnish.targets.cpu.lowering import PIPELINE
from burnish.targets.cpu.stages import walk
from burnish.targets.cuda import disassemble, nvrtc
from burnish.targets.cuda.source import prepared
from burnish.targets.cuda.target import CudaTarget
from burnish.targets.device_lowering import PIPELINE as DEVICE_PIPELINE
from burnish.targets.target import CpuTarget

KINDS: Mapping[str, Mapping[str, str]] = {
    "cpu": {"asm": ".s", "llvm": ".ll", "ir": ".py"},
    "cuda": {"cuda": ".cu", "ptx": ".ptx", "sass": ".sass", "ir": ".py"},
    "opencl": {"cl": ".cl", "ir": ".py"},
}
"""What there is to see, by kind of target, and the suffix of its files. ``ir`` is TVMScript."""
HOST_ONLY = "tirx.is_host_func"
"""Mark of what computes sizes for the virtual machine, and is no kernel."""


@dataclass(frozen=True)
class Code:
    """The code of one kernel; ``arch`` where there is one for each architecture."""

    kernel: str
    kind: str
    suffix: str
    text: str
    arch: str = ""

    @property
    def file_name(self) -> str:
        """``fused_conv2d_relu.sm_90.ptx``."""
        stem = re.sub(r"[^\w.-]", "_", self.kernel)
        return f"{stem}{f'.{self.arch}' if self.arch else ''}{self.suffix}"


def check_kinds(kinds: Iterable[str], target: Target) -> None:
    """:class:`ConfigError` for code that kernels of ``target`` do not have."""
    known = KINDS[target.kind]
    for kind in kinds:
        if kind not in known:
            elsewhere = [name for name, other in KINDS.items() if kind in other]
            hint = f"; {kind} is of the target {' or '.join(elsewhere)}" if elsewhere else ""
            raise ConfigError(
                f"no {kind!r} of kernels for {target.name!r}, only {', '.join(known)}{hint}"
            )
    if "sass" in kinds:
        with wrap_errors(BuildError):
            disassemble.disassembler()


def emit(stage: Tuned | Optimized, kinds: Iterable[str], pattern: str = "*") -> Iterator[Code]:
    """The code of every kernel whose name matches the shell pattern, in the module's order.

    Raises :class:`ConfigError` for a kind the target has not, and for a pattern no kernel
    matches; :class:`BuildError` where a kernel does not compile.
    """
    optimized = stage.optimized if isinstance(stage, Tuned) else stage
    best = stage.best if isinstance(stage, Tuned) else {}
    target, kinds = optimized.target, tuple(kinds)
    check_kinds(kinds, target)
    opt_level = optimized.config.opt_level
    with wrap_errors(BuildError):
        mod = scheduled(optimized.mod, target, opt_level=opt_level, best=best)
    names = _matching(mod, pattern)

    def found() -> Iterator[Code]:
        for name in names:
            alone = _alone(mod, name)
            for kind in kinds:
                suffix = KINDS[target.kind][kind]
                with wrap_errors(BuildError), tvm.transform.PassContext(opt_level=opt_level):
                    texts = dict(_texts(alone, name, kind, target))
                for arch, text in texts.items():
                    yield Code(name, kind, suffix, text, arch)

    return found()


def _matching(mod: tvm.IRModule, pattern: str) -> list[str]:
    names = [
        str(var.name_hint)
        for var, func in mod.functions.items()
        if isinstance(func, tirx.PrimFunc) and HOST_ONLY not in (func.attrs or {})
    ]
    chosen = sorted(fnmatch.filter(names, pattern))
    if not chosen:
        raise ConfigError(f"no kernel matches {pattern!r}; there are {', '.join(sorted(names))}")
    return chosen


def _alone(mod: tvm.IRModule, name: str) -> tvm.IRModule:
    """The kernel ``name`` with the functions that it calls."""
    kept: dict[tvm.ir.GlobalVar, tirx.PrimFunc] = {}
    left = [mod.get_global_var(name)]
    while left:
        var = left.pop()
        if var in kept:
            continue
        kept[var] = mod[var]
        ops = (call.op for call in walk(mod[var].body, Call))
        left += [op for op in ops if isinstance(op, tvm.ir.GlobalVar)]
    return tvm.IRModule(kept)


def _texts(alone: tvm.IRModule, name: str, kind: str, target: Target) -> Iterator[tuple[str, str]]:
    """Text by architecture."""
    if kind == "ir":
        yield "", alone[name].script()
    elif isinstance(target, CpuTarget):
        if pool.AVAILABLE:
            alone = pool.announce_iterations(alone)
        built = tirx.build(alone, target=target.tvm(), pipeline=PIPELINE)
        yield "", built.inspect_source({"asm": "asm", "llvm": "ll"}[kind])
    elif isinstance(target, CudaTarget):
        yield from _cuda(_device_source(alone, target), kind, target)
    else:
        yield "", _device_source(alone, target)


def _cuda(source: str, kind: str, target: CudaTarget) -> Iterator[tuple[str, str]]:
    source = prepared(source)
    if kind == "cuda":
        yield "", source
        return
    show: Callable[[nvrtc.Code], str] = {
        "ptx": lambda code: code.ptx.decode().rstrip("\0"),
        "sass": lambda code: disassemble.sass(code.cubin),
    }[kind]
    for arch in target.arches:
        yield arch, show(nvrtc.compile_source(source, arch))


def _device_source(alone: tvm.IRModule, target: Target) -> str:
    """What TVM writes for the device; nothing for a kernel that its host computes."""
    newer = isinstance(target, CudaTarget) and target.capability >= 80
    config = {"tirx.use_async_copy": True} if newer else {}
    level = tvm.transform.PassContext.current().opt_level
    with target.tvm(), tvm.transform.PassContext(opt_level=level, config=config):
        built = tirx.build(alone, target=target.tvm(), pipeline=DEVICE_PIPELINE)
    return "\n".join(module.inspect_source() for module in built.imports)
