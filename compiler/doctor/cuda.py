"""CUDA: the compiler, and a GPU with a kernel on it."""

from __future__ import annotations

import ctypes

from burnish.compiler.doctor.check import Check, first_line

SOURCE = 'extern "C" __global__ void add_one(float* x) { x[threadIdx.x] += 1.0f; }'
COUNT = 32


def nvrtc() -> Check:
    """Compile a kernel for every known architecture."""
    from burnish.targets.cuda import nvrtc
    from burnish.targets.cuda.libraries import INSTALL
    from burnish.targets.cuda.target import KNOWN_ARCHITECTURES

    try:
        for arch in KNOWN_ARCHITECTURES:
            nvrtc.compile_source(SOURCE, arch)
    except RuntimeError as error:
        return Check("nvrtc", "unavailable", first_line(error), INSTALL)
    major, minor = nvrtc.version()
    known = ", ".join(KNOWN_ARCHITECTURES)
    return Check("nvrtc", "run", f"NVRTC {major}.{minor} compiles for {known}")


def kernel() -> Check:
    """Compile a kernel, and run it where a GPU is."""
    from burnish.targets.cuda import nvrtc
    from burnish.targets.cuda.libraries import INSTALL
    from burnish.targets.cuda.target import DEFAULT_ARCHITECTURES, device_capability

    here = device_capability()
    arch = f"sm_{here}" if isinstance(here, int) else DEFAULT_ARCHITECTURES[-1]
    try:
        code = nvrtc.compile_source(SOURCE, arch)
    except RuntimeError as error:
        gpu = f"a GPU of {arch} is here" if isinstance(here, int) else f"no model runs: {here}"
        return Check("cuda", "unavailable", f"{first_line(error)}; {gpu}", INSTALL)
    if isinstance(here, str):
        return Check(
            "cuda",
            "compile only",
            f"a kernel compiles; no model runs: {here}",
            "save the model, and load it on a machine with an NVIDIA GPU and driver 580 or newer",
        )
    try:
        name, values = _run(code.cubin)
    except (OSError, RuntimeError) as error:
        remedy = "check the driver with nvidia-smi"
        return Check("cuda", "compile only", f"GPU of {arch}: {first_line(error)}", remedy)
    if values != [index + 1.0 for index in range(COUNT)]:
        return Check("cuda", "broken", f"{name}: x + 1 came out wrong", "report this machine")
    return Check("cuda", "run", f"built for {arch}, ran on {name}, right")


def _run(cubin: bytes) -> tuple[str, list[float]]:
    """The first GPU's name, and 0, 1, 2, ... after ``add_one`` there."""
    driver = ctypes.CDLL("libcuda.so.1")

    def check(call: str, *arguments: object) -> None:
        code = getattr(driver, call)(*arguments)
        if code:
            raise RuntimeError(f"{call} failed with CUDA error {code}")

    device, context = ctypes.c_int(), ctypes.c_void_p()
    name = ctypes.create_string_buffer(256)
    check("cuInit", 0)
    check("cuDeviceGet", ctypes.byref(device), 0)
    check("cuDeviceGetName", name, len(name), device)
    check("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    try:
        check("cuCtxSetCurrent", context)
        module, function, memory = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_uint64()
        values = (ctypes.c_float * COUNT)(*range(COUNT))
        size = ctypes.c_size_t(ctypes.sizeof(values))
        check("cuModuleLoadData", ctypes.byref(module), cubin)
        check("cuModuleGetFunction", ctypes.byref(function), module, b"add_one")
        check("cuMemAlloc_v2", ctypes.byref(memory), size)
        check("cuMemcpyHtoD_v2", memory, values, size)
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(memory))
        shape = (1, 1, 1, COUNT, 1, 1, 0)
        check("cuLaunchKernel", function, *shape, None, arguments, None)
        check("cuMemcpyDtoH_v2", values, memory, size)
        check("cuMemFree_v2", memory)
        check("cuModuleUnload", module)
    finally:
        check("cuDevicePrimaryCtxRelease_v2", device)
    return name.value.decode(errors="replace"), list(values)
