"""Check and time compiled models on a GPU, beside eager and ``torch.compile``; no network.

    unzip gpu-bundle.zip -d bundle && python bundle/gpu.py --out result.json

Needs torch with CUDA, of any Python that the bundle was made for. Each case is checked first:
outputs against the same model in float32 on the GPU (TF32 off), eager's own error beside ours.
Then all of it is timed in turns, by CUDA events over replays of a CUDA graph, and by plain calls.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from gpu_cases import CASES, Case, case_id, runs_on  # noqa: E402
from gpu_runtime import Loaded, open_runtime  # noqa: E402
from gpu_weights import made, tensors_of  # noqa: E402

ROUNDS, ROUND_MS = 5, 40.0
BOUNDS = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
"""Most error of an output, of its largest value, that passes where eager's own is smaller."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--seconds", type=float, default=480, help="torch.compile stops after it")
    parser.add_argument("--only", nargs="*", help="names of cases")
    given = parser.parse_args()
    deadline = time.monotonic() + given.seconds
    tvm_ffi = open_runtime(HERE)
    results = []
    report = {"machine": machine(), "cases": results}
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    for case in CASES:
        if not (HERE / f"libraries/{case_id(case)}.so").is_file():
            continue
        if not runs_on(case, torch.cuda.get_device_capability()):
            continue
        if given.only and case_id(case) not in given.only:
            continue
        try:
            found = run(case, tvm_ffi, deadline)
        except Exception as error:  # noqa: BLE001
            found = {"case": case_id(case), "failed": f"{type(error).__name__}: {error}"[:2000]}
            traceback.print_exc()
        results.append(found)
        print(line(found), flush=True)
        given.out.write_text(json.dumps(report, indent=1))
    failed = [r["case"] for r in results if "failed" in r or not r["parity"]["passes"]]
    print(f"{len(results)} cases, failed: {', '.join(failed) or 'none'}")
    raise SystemExit(bool(failed))


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    device = torch.cuda.get_device_properties(0)
    command = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,power.limit", "--format=csv"]
    try:
        driver = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        driver = str(error)
    return {
        "gpu": device.name,
        "memory": device.total_memory,
        "multiprocessors": device.multi_processor_count,
        "capability": f"{device.major}.{device.minor}",
        "nvidia-smi": driver.strip(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


@torch.inference_mode()
def run(case: Case, tvm_ffi: Any, deadline: float) -> dict[str, Any]:
    """Check a case, then time it."""
    model, inputs = case.load()
    path = HERE / f"libraries/{case_id(case)}.so"
    description = json.loads(path.with_suffix(".json").read_text())
    known = tensors_of(model)
    weights = [made(recipe, known).cuda() for recipe in description["weights"]]
    given = tuple(x.cuda() for x in inputs)
    model = model.cuda()
    loaded = Loaded(tvm_ffi, path)
    loaded.set_weights(weights)
    found: dict[str, Any] = {"case": case_id(case), "flops": case.flops}
    found["parity"] = check(case, loaded, model, given)
    contenders: dict[str, Callable[[], Any]] = {
        "burnish": lambda: loaded(*given),
        "eager": lambda: model(*given),
    }
    if time.monotonic() < deadline:
        start = time.monotonic()
        compiled = torch.compile(model)
        compiled(*given)
        found["torch.compile took"] = time.monotonic() - start
        contenders["torch.compile"] = lambda: compiled(*given)
    found["call ms"] = timed(contenders)
    found["graph ms"] = timed({name: graphed(call) for name, call in contenders.items()})
    return found


def check(case: Case, loaded: Loaded, model: torch.nn.Module, given: Sequence[Any]) -> Any:
    """Largest error of ours and of eager, of float32's largest value, over three inputs."""
    exact = case.load()[0].float().cuda()
    ours, eager = 0.0, 0.0
    for seed in range(3):
        torch.manual_seed(seed)
        inputs = [fresh(x, seed) for x in given]
        wide = [x.float() if x.is_floating_point() else x for x in inputs]
        wanted, theirs, got = outputs(exact(*wide)), outputs(model(*inputs)), loaded(*inputs)
        if len(got) != len(wanted):
            raise ValueError(f"{len(got)} outputs, not {len(wanted)}")
        for y, z, ref in zip(got, theirs, wanted, strict=True):
            ours, eager = max(ours, error(y, ref)), max(eager, error(z, ref))
    bound = max(BOUNDS[case.dtype], 2 * eager)
    passes = ours <= bound and ours == ours  # NaN is no pass
    return {"ours": ours, "eager": eager, "bound": bound, "passes": passes}


def fresh(x: torch.Tensor, seed: int) -> torch.Tensor:
    """Another input of the same form; the given one for the first ``seed``, and for masks."""
    if seed == 0:
        return x
    if x.is_floating_point():
        return torch.randn_like(x)
    return x[..., torch.randperm(x.shape[-1], device=x.device)].contiguous()


def outputs(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for item in value for tensor in outputs(item)]


def error(value: torch.Tensor, ref: torch.Tensor) -> float:
    ref = ref.double()
    if tuple(value.shape) != tuple(ref.shape):
        raise ValueError(f"an output of shape {tuple(value.shape)}, not {tuple(ref.shape)}")
    return float((value.double() - ref).abs().max() / ref.abs().max())


def graphed(call: Callable[[], Any]) -> Callable[[], Any]:
    """``call`` as a CUDA graph; its replay."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = call()

    def replay() -> Any:
        graph.replay()
        return kept

    return replay


def timed(contenders: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median milliseconds of a call, contenders in turns."""
    counts = {}
    for name, call in contenders.items():
        for _ in range(3):
            call()
        counts[name] = max(3, min(2000, int(ROUND_MS / max(1e-3, once(call, 5)))))
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, call in contenders.items():
            taken[name].append(once(call, counts[name]))
    return {name: statistics.median(values) for name, values in taken.items()}


def once(call: Callable[[], Any], count: int) -> float:
    """Milliseconds a call, over ``count`` in a row."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(count):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / count


def line(found: dict[str, Any]) -> str:
    if "failed" in found:
        return f"{found['case']:36} FAILED {found['failed'][:300]}"
    parity = found["parity"]
    text = f"{found['case']:36} {'ok ' if parity['passes'] else 'BAD'} {parity['ours']:.1e}"
    text += f" (eager {parity['eager']:.1e})"
    for kind in ("graph ms", "call ms"):
        text += f" | {kind} " + ", ".join(f"{n} {v:.4f}" for n, v in found[kind].items())
    if found["flops"]:
        text += f" | {found['flops'] / found['graph ms']['burnish'] / 1e9:.1f} TFLOP/s"
    return text


if __name__ == "__main__":
    main()
