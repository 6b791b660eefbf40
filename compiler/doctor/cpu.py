"""This machine's CPU, and a kernel on it."""

from __future__ import annotations

from burnish.compiler.doctor.check import Check, first_line
from burnish.compiler.doctor.machine import tvm_pair


def describe() -> Check:
    from burnish.compiler.measure.machine import describe_machine

    machine = describe_machine()
    sets = " ".join(machine["isa"]) or "no vector instructions"
    detail = f"{machine['cpu']}, {machine['cores']} cores for this process; {sets}"
    return Check("cpu", "ok", detail, needed=True)


def instruction_set() -> Check:
    """What code for ``cpu`` is made for: LLVM's name of this CPU, its vectors and its caches."""
    name = "instruction set"
    if not tvm_pair().fine:
        return Check(name, "broken", "not tried: the TVM pair is wrong", needed=True)
    from burnish.targets.target import host

    found = host()
    sets = [f for f in ("avx512f", "avx2", "avx", "sse4.2", "sse2", "neon") if f in found.isa()]
    caches = " + ".join(
        f"{size // 1024} KiB" if size < 2**20 else f"{size / 2**20:g} MiB"
        for size in (found.l1, found.l2, found.l3)
    )
    without = f", without {', '.join(f[1:] for f in found.mattr)}" if found.mattr else ""
    detail = (
        f"{found.mcpu}{without}: {sets[0] if sets else 'no vectors'}, {found.lanes} floats a "
        f"vector, {found.registers} vector registers, caches {caches}"
    )
    return Check(name, "ok", detail, needed=True)


def kernel() -> Check:
    """Build one kernel with the LLVM inside TVM for this CPU, and run it."""
    name = "cpu kernel"
    if not tvm_pair().fine:
        return Check(name, "broken", "not tried: the TVM pair is wrong", needed=True)
    try:
        import numpy as np
        import tvm
        from tvm import te

        from burnish.compiler.environment import set_threads
        from burnish.targets.target import host

        set_threads()
        source = te.placeholder((8,), "float32", name="x")
        result = te.compute((8,), lambda index: source[index] + 1.0, name="y")
        with tvm.target.Target(host().tvm()) as target:
            built = tvm.compile(te.create_prim_func([source, result]), target=target)
        given = tvm.runtime.tensor(np.arange(8, dtype="float32"))
        got = tvm.runtime.tensor(np.zeros(8, "float32"))
        built(given, got)
        right = bool((got.numpy() == given.numpy() + 1).all())
    except Exception as error:  # noqa: BLE001  (whatever goes wrong is the finding)
        return Check(name, "broken", first_line(error), "reinstall apache-tvm", needed=True)
    if not right:
        return Check(name, "broken", "x + 1 came out wrong", "report this machine", needed=True)
    return Check(name, "run", f"built for {host().mcpu}, ran, right", needed=True)
