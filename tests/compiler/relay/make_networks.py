"""Write ``networks/``: whole networks in Relay, as TVM 0.19 wrote and computed them.

Run once, in the environment that ``make_attributes.py`` names:

    TOPHUB_LOCATION=NONE python make_networks.py networks

``NAME.json``, ``NAME.relay``, ``NAME.params`` where the network has parameters, and ``NAME.npz``
with the inputs (by name) and the outputs (``out.0``, ...). JSON is compressed (``.json.xz``).
"""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from make_operators import run
from network_cases import NETWORKS
from tvm import relay


def main(folder: str) -> None:
    target = Path(folder)
    target.mkdir(exist_ok=True)
    for name, make in NETWORKS.items():
        module, inputs, params = make(np.random.default_rng(sum(name.encode())))
        module = relay.transform.InferType()(module)
        values = {key: tvm.nd.array(value) for key, value in params.items()}
        outputs = {f"out.{i}": value for i, value in enumerate(run(module, {**inputs, **values}))}
        text = json.dumps(json.loads(tvm.ir.save_json(module)), separators=(",", ":"))
        write(target / f"{name}.json.xz", lzma.compress(text.encode(), preset=9))
        write(target / f"{name}.relay.xz", lzma.compress(
            module.astext(show_meta_data=True).encode(), preset=9))  # fmt: skip
        if params:
            write(target / f"{name}.params", bytes(relay.save_param_dict(values)))
        np.savez(target / f"{name}.npz", **inputs, **outputs)
        print(name, sum(f.stat().st_size for f in target.glob(f"{name}.*")), flush=True)


def write(path: Path, data: Any) -> None:
    path.write_bytes(data)


if __name__ == "__main__":
    main(sys.argv[1])
