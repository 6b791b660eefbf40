"""Whether OpenCL runs here: a kernel is built and run on every device, in a process of its own.

Drivers list devices that cannot build a single kernel, and some end the process that asks them.
``python -m burnish.targets.opencl.probe`` is that process: a line of JSON a device.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass

SOURCE = """__kernel void add_one(__global float* x) {
  x[get_global_id(0)] = x[get_global_id(0)] + 1.0f;
}"""
COUNT = 64
_SECONDS = 180


@dataclass(frozen=True)
class Finding:
    """One device, ``opencl:INDEX (NAME, PLATFORM)``; ``problem`` is empty where the kernel ran."""

    label: str
    problem: str = ""
    float16: bool = False


@dataclass(frozen=True)
class Survey:
    """What each device did, or why there is none, and what to do about it."""

    devices: tuple[Finding, ...]
    problem: str = ""
    remedy: str = ""

    @property
    def running(self) -> tuple[Finding, ...]:
        """Devices on which the kernel ran and was right."""
        return tuple(found for found in self.devices if not found.problem)


def survey() -> Survey:
    """Try all devices; takes about 2 seconds, and 5 more where the runtime is not compiled yet."""
    command = [sys.executable, "-P", "-m", "burnish.targets.opencl.probe"]
    environment = {**os.environ, "TVM_USE_RUNTIME_LIB": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_SECONDS, env=environment
        )
        lines, code, said = done.stdout, done.returncode, done.stderr
    except subprocess.TimeoutExpired as error:
        lines = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        code, said = 1, f"used {_SECONDS} s and was stopped"
    found, tried = {}, ""
    for line in lines.splitlines():
        if not line.startswith("{"):
            continue  # drivers print too
        row = json.loads(line)
        if "problem" not in row:
            tried = row["label"]
        elif "remedy" in row:
            return Survey((), row["problem"], row["remedy"])
        else:
            found[row["label"]] = Finding(**row)
    if code != 0:
        ended = f"signal {-code}" if code < 0 else f"code {code}"
        last = (said.strip().splitlines() or ["no message"])[-1]
        why = f"the process that tried it ended with {ended}: {last}"
        if not tried or tried in found:
            return Survey(tuple(found.values()), why, "reinstall the OpenCL driver")
        found[tried] = Finding(tried, why)
    return Survey(tuple(found.values()))


def try_device(index: int) -> str:
    """Build and run a kernel on ``tvm.opencl(index)``; what went wrong, or nothing."""
    import numpy as np
    import tvm

    from burnish.targets.opencl import payload

    values = np.arange(COUNT, dtype="float32")
    kernel = payload.Kernel("add_one", SOURCE, ["handle"])
    try:
        memory = tvm.runtime.tensor(values, tvm.opencl(index))
        payload.load(payload.write([kernel])).get_function("add_one")(memory, COUNT // 8, 8)
        right = bool((memory.numpy() == values + 1).all())
    except Exception as error:  # noqa: BLE001  (whatever goes wrong is the finding)
        return str(error)
    return "" if right else "x + 1 came out wrong"


def main() -> None:
    """Print what each device does."""
    from burnish.targets.opencl import runtime

    problem, remedy = runtime.absence()
    if problem:
        print(json.dumps({"problem": problem, "remedy": remedy}))
        return
    for device in runtime.devices():
        label = f"opencl:{device.index} ({device.name}, {device.platform})"
        print(json.dumps({"label": label}), flush=True)
        found = Finding(label, try_device(device.index), device.float16)
        print(json.dumps(asdict(found)), flush=True)


if __name__ == "__main__":
    main()
