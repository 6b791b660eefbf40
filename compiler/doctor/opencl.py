"""OpenCL: a kernel on each device of each platform."""

from __future__ import annotations

from burnish.compiler.doctor.check import Check, first_line


def kernel() -> Check:
    """Build a kernel on every device and run it, in a process that a bad driver may end; where
    none runs, generate one."""
    from burnish.targets.opencl.probe import survey
    from burnish.targets.opencl.runtime import INSTALL

    found = survey()
    said = [
        f"{one.label} fails: {first_line(one.problem)}"
        if one.problem
        else f"{one.label} ran a kernel, right{', float16 too' if one.float16 else ''}"
        for one in found.devices
    ]
    if found.running:
        return Check("opencl", "run", "; ".join(said))
    try:
        _generate()
    except Exception as error:  # noqa: BLE001  (whatever goes wrong is the finding)
        remedy = found.remedy or "reinstall apache-tvm"
        return Check("opencl", "unavailable", first_line(error), remedy)
    said = ["kernels are generated, and cannot run here", *said]
    if found.problem:
        said.append(first_line(found.problem))
    return Check("opencl", "compile only", "; ".join(said), found.remedy or INSTALL)


def _generate() -> None:
    """OpenCL C of ``x + 1``; nothing of OpenCL takes part."""
    import tvm
    from tvm import te, tirx

    source = te.placeholder((64,), "float32", name="x")
    result = te.compute((64,), lambda index: source[index] + 1.0, name="y")
    func = te.create_prim_func([source, result]).with_attr("global_symbol", "add_one")
    schedule = tvm.s_tir.Schedule(func)
    block, thread = schedule.split(schedule.get_loops(schedule.get_sblock("y"))[0], [None, 8])
    schedule.bind(block, "blockIdx.x")
    schedule.bind(thread, "threadIdx.x")
    target = tvm.target.Target({"kind": "opencl", "max_threads_per_block": 64}, host="llvm")
    built = tirx.build(schedule.mod, target=target, pipeline="s_tir")
    if "__kernel" not in built.imports[0].inspect_source():
        raise RuntimeError("the code made for OpenCL holds no kernel")
