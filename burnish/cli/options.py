"""Options that several verbs share, declared once."""

from __future__ import annotations

from typing import Annotated

import typer

from burnish.cli.console import flags


def _set_json(value: bool) -> bool:
    flags.json = flags.json or value
    return value


def _set_verbose(value: bool) -> bool:
    flags.verbose = flags.verbose or value
    return value


Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout.", callback=_set_json)
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Show the traceback of an error.", callback=_set_verbose),
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A file (.onnx, .pt2, .keras, .tflite, .json, .relay), a SavedModel, or zoo:NAME.",
        show_default=False,
    ),
]
Target = Annotated[
    str,
    typer.Option(
        "--target",
        "-t",
        help="What to build for: cpu, llvm -mcpu=NAME, cuda:sm_90, opencl, opencl:mali, ...",
    ),
]
Sha256 = Annotated[
    str | None,
    typer.Option(metavar="HEX", help="What the file's sha256 must be, as its maker gave it."),
]
Recipe = Annotated[
    str | None, typer.Option(metavar="FILE", help="Recipe (TOML); the flags beside it override it.")
]
Prune = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE", help="Set this share of the weights to zero (0 to 1); size only."
    ),
]
Quantize = Annotated[
    str | None,
    typer.Option(metavar="CODE", help="Store weights as int8, int4, w4g32 (groups of 32), ..."),
]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="fp32, bf16 (AVX512-BF16), fp16 (weights in two bytes) or tf32 (GPUs).",
    ),
]
Tune = Annotated[int | None, typer.Option(metavar="TRIALS", help="Search for faster schedules.")]
Threads = Annotated[
    int | None,
    typer.Option(metavar="N", help="CPU threads; by default BURNISH_THREADS, else every core."),
]
Dynamic = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME:AXIS=SYMBOL,...",
        help="Let axes of an input vary: ids:0=batch,1=seq. Can be repeated.",
    ),
]
Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="NAME=SHAPE:DTYPE[:LOW..HIGH]",
        help="Shape and dtype of an input: ids=1x128:int64:0..30522. Can be repeated.",
    ),
]
Params = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Parameters of a Relay module; by default the file beside it with suffix .params.",
    ),
]
NoFold = Annotated[
    bool, typer.Option("--no-fold", help="Import an ONNX file as it is, shapes not folded.")
]
KeepAll = Annotated[
    bool,
    typer.Option("--keep-all", help="Keep every pass without measuring what it does: faster."),
]
NoCache = Annotated[
    bool,
    typer.Option("--no-cache", help="Compile anew, and keep nothing in the compile cache."),
]
ExactConv = Annotated[
    bool,
    typer.Option("--exact-conv", help="Sum convolutions term by term, never in Winograd's form."),
]
Libraries = Annotated[
    list[str] | None,
    typer.Option(
        "--libraries",
        metavar="NAME",
        help="On CUDA, what tuned libraries compute: cublas, cudnn, cublas:OPERATION, tensorrt "
        "(may be repeated), or auto to measure on this machine's GPU.",
    ),
]
Place = Annotated[
    list[str] | None,
    typer.Option(
        "--place",
        metavar="PATTERN=DEVICE",
        help="With --target hetero:..., the device of operators by name, kind or glob "
        "(may be repeated): nn.conv2d=opencl:0; *=auto lets measured costs choose.",
    ),
]
Memory = Annotated[
    list[str] | None,
    typer.Option(
        "--memory",
        metavar="DEVICE=SIZE",
        help="With --place *=auto, what the model may use of a device (may be repeated): cpu=2GB.",
    ),
]
Register = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py",
        help="Run this Python file first: it registers passes and evaluations that a recipe names.",
    ),
]
Emit = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KIND",
        help="Show the code of each kernel: ir; asm or llvm of a CPU's; cuda, ptx or sass of a "
        "CUDA GPU's; cl of OpenCL's. Can be repeated.",
    ),
]
Kernel = Annotated[
    str, typer.Option(metavar="PATTERN", help="Only kernels whose name matches: `'*conv*'`.")
]
EmitTo = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="Write the code there, a file a kernel, not to stdout."),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of random inputs.")]
