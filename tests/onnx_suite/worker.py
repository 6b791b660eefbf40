"""A process that runs one case after another: names on stdin, a line of JSON for each on a pipe."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

import burnish
from burnish.compiler import driver
from burnish.compiler.errors import ImportModelError, UnsupportedOperatorError
from burnish.compiler.importers.onnx.settings import promotable
from burnish.compiler.importers.onnx.values import CARRIED
from onnx_suite import cases, judge

RUNS = 64
"""Calls of a case whose outputs are drawn."""

SMALL = {TensorProto.DataType.Name(kind).lower(): dtype for kind, dtype in CARRIED.items()}
SMALL["float4_e2m1fn"] = CARRIED[TensorProto.FLOAT4E2M1]

CONFIG = burnish.CompileConfig(do_no_harm=False, threads=1)


def run(name: str) -> tuple[str, str]:
    """(status, reason): pass, inexact, refused, wrong, or failed (an error after the import)."""
    case = cases.load(name)
    model = onnx.ModelProto.FromString(case.model)
    given = [value.name for value in model.graph.input]
    weights = {tensor.name for tensor in model.graph.initializer}
    given = [item for item in given if item not in weights]
    fixed = promotable(model.graph)
    stage, inexact = "import", ""
    try:
        for inputs, outputs in case.data:
            inputs, outputs = [_carried(x) for x in inputs], [_carried(x) for x in outputs]
            named = dict(zip(given, inputs, strict=False))
            examples = {n: _constant(v) if n in fixed else v for n, v in named.items()}
            imported = driver.import_model(model, examples, fold=False)
            stage = "build"
            compiled = driver.build(driver.optimize(imported, "cpu", config=CONFIG))
            stage = "run"
            call = {n: v for n, v in named.items() if n not in fixed}
            taken = {n for n, node in compiled.signature.arguments if not _is_constant(node)}
            data = {n for n, v in call.items() if v is not None}
            assert data <= taken, f"{sorted(data - taken)} are constants"
            if judge.is_random(case):
                runs = [list(compiled(**call)) for _ in range(RUNS)]
                judge.compare_random(case, inputs, runs)
                return "random", ""
            inexact = inexact or judge.compare(case, list(outputs), list(compiled(**call)))
    except UnsupportedOperatorError as error:
        return "refused", "; ".join(f"{op.name}: {op.reason}" for op in error.operators)
    except ImportModelError as error:
        return "refused", error.message
    except AssertionError as error:
        return "wrong" if stage == "run" else "failed", f"{stage}: {_line(error)}"
    except Exception as error:  # noqa: BLE001 - whatever a case does is its result
        return "failed", f"{stage}: {_line(error)}"
    return ("inexact", inexact) if inexact else ("pass", "")


def _carried(value: Any) -> Any:
    """Elements below a byte as the importer hands them over, in a byte each."""
    if isinstance(value, np.ndarray) and value.dtype.name in SMALL:
        return value.astype(SMALL[value.dtype.name])
    return value


def _constant(value: Any) -> Any:
    """An array as plain numbers: a value given at import."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def _is_constant(node: Any) -> bool:
    return isinstance(node, dict) and "const" in node


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " / ".join(lines[:1] + lines[-3:] if len(lines) > 4 else lines) or type(error).__name__


def main() -> None:
    answers = os.fdopen(int(sys.argv[1]), "w")
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        start = time.perf_counter()
        status, reason = run(line.strip())
        seconds = round(time.perf_counter() - start, 3)
        answers.write(json.dumps([status, " ".join(reason.split())[:400], seconds]) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
