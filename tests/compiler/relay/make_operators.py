"""Write ``operators.tar.xz``: single operators, as TVM 0.19 wrote and computed them.

Run once, in the environment that ``make_attributes.py`` names:

    TOPHUB_LOCATION=NONE python make_operators.py operators.tar.xz

Each case is a folder of the archive: ``module.json``, ``module.relay``, and ``data.npz`` with
the inputs (by parameter name) and the outputs (``out.0``, ...). Inputs are small: what is tested
is what an operator means, at odd sizes.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from base64 import b64decode, b64encode
from typing import Any

import numpy as np
import tvm
from operator_cases import CASES
from tvm import relay


def main(path: str) -> None:
    failed = []
    with tarfile.open(path, "w:xz", preset=9) as archive:
        made = {name: in_child(name, make) for name, make in CASES.items()}
        failed = [name for name, files in made.items() if files is None]
        for file in ("module.json", "module.relay", "data.npz"):
            for name, files in made.items():
                if files is not None:
                    info = tarfile.TarInfo(f"{name}/{file}")
                    info.size = len(files[file])
                    archive.addfile(info, io.BytesIO(files[file]))
    print(len(CASES) - len(failed), "written,", len(failed), "failed")


def in_child(name: str, make: Any) -> dict[str, bytes] | None:
    """:func:`written` in a fork: some operators of 0.19 end the process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            files = {key: b64encode(value).decode() for key, value in written(name, make).items()}
            data = json.dumps(files).encode()
        except Exception as error:  # noqa: BLE001 - the other cases go on
            data = b""
            print("FAILED", name, str(error).strip()[-400:], flush=True)
        with os.fdopen(writing, "wb") as stream:
            stream.write(data)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        data = stream.read()
    _, status = os.waitpid(child, 0)
    if status:
        print("DIED", name, status, flush=True)
    return {key: b64decode(value) for key, value in json.loads(data).items()} if data else None


def written(name: str, make: Any) -> dict[str, bytes]:
    rng = np.random.default_rng(sum(name.encode()))
    module, inputs = make(rng)
    module = relay.transform.InferType()(module)
    arrays = {f"out.{i}": value for i, value in enumerate(run(module, inputs))}
    data = io.BytesIO()
    np.savez(data, **inputs, **arrays)
    text = json.dumps(json.loads(tvm.ir.save_json(module)), separators=(",", ":"))
    return {
        "module.json": text.encode(),
        "module.relay": module.astext(show_meta_data=True).encode(),
        "data.npz": data.getvalue(),
    }


def run(module: tvm.IRModule, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    with tvm.transform.PassContext(opt_level=1, config={"tir.disable_cse_tir": True}):
        executor = relay.create_executor("vm", mod=module, device=tvm.cpu(), target="llvm")
        result = executor.evaluate()(**inputs)
    return flat(result)


def flat(value: Any) -> list[np.ndarray]:
    if isinstance(value, tvm.nd.NDArray):
        return [value.numpy()]
    return [array for field in value for array in flat(field)]


if __name__ == "__main__":
    main(sys.argv[1])
