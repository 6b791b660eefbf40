"""``burnish inspect``: what is in a model, or in an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from burnish.cli import console, extracted, options
from burnish.cli.artifacts import SUFFIX
from burnish.cli.check import check as checked
from burnish.cli.emitted import Emission
from burnish.cli.inputs import parse_dynamic
from burnish.cli.placement import show_placement
from burnish.cli.settings import Settings, tuned_source
from burnish.cli.sources import Source, open_source
from burnish.compiler.config import CompileConfig
from burnish.compiler.errors import ArtifactError, ConfigError


class Stage(StrEnum):
    imported = "imported"
    optimized = "optimized"


What = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A file, zoo:NAME, or an artifact.", show_default=False),
]
At = Annotated[Stage, typer.Option("--stage", help="Where in the compiler to look at a model.")]
Check = Annotated[
    bool,
    typer.Option(
        "--check",
        help="Say what of it can be imported; exit code 1 if not all can.",
    ),
]
Extract = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="Write the members of an artifact there: library, weights, manifest and the rest.",
    ),
]
Ir = Annotated[bool, typer.Option("--ir", help="Print the IR as text, and nothing else.")]


def add_to(app: typer.Typer) -> None:
    app.command("inspect")(inspect)


def inspect(
    model: What,
    stage: At = Stage.imported,
    ir: Ir = False,
    check: Check = False,
    extract: Extract = None,
    emit: options.Emit = None,
    kernel: options.Kernel = "*",
    emit_to: options.EmitTo = None,
    target: options.Target = "cpu",
    recipe: options.Recipe = None,
    prune: options.Prune = None,
    quantize: options.Quantize = None,
    precision: options.Precision = None,
    dynamic: options.Dynamic = None,
    input: options.Input = None,
    params: options.Params = None,
    no_fold: options.NoFold = False,
    keep_all: options.KeepAll = False,
    exact_conv: options.ExactConv = False,
    place: options.Place = None,
    register: options.Register = None,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Show the operators, the parameters and the passes of a model, its IR, or its kernels' code.

    Examples:

    * `burnish inspect zoo:magika`

    * `burnish inspect net.onnx --stage optimized --quantize int8 --ir`

    * `burnish inspect net.onnx --check`

    * `burnish inspect net.onnx --emit asm --kernel '*conv*' --emit-to code`

    * `burnish inspect net.burnish`

    * `burnish inspect net.burnish --extract net`
    """
    emission = Emission.of(emit, kernel, emit_to)
    if extract is not None:
        _extract(model, extract)
        return
    if model.endswith(SUFFIX):
        if emission:
            raise ConfigError("--emit is for models: an artifact holds machine code, not its text")
        found = _artifact(model)
    else:
        settings = Settings(
            *(recipe, prune, quantize, precision, None, None, no_fold, keep_all, register),
            *(exact_conv, None, place),
        )
        if emission:
            _emit(emission, model, input, params, target, settings, parse_dynamic(dynamic))
            return
        with console.progress(f"reading {model}"):
            source = open_source(model, input, params=params)
        if check:
            config = settings.config()
            if not checked(source, parse_dynamic(dynamic), fold=config.fold_onnx).importable:
                raise typer.Exit(1)
            return
        with console.progress(f"taking {model} to the stage {stage.value}"):
            found = _at_stage(source, stage, target, settings.config(), parse_dynamic(dynamic))
    if console.flags.json:
        console.print_json({"schema": 1, "model": model, **found.to_dict(with_ir=ir)})
    elif ir:
        print(found.text)
    else:
        found.show()


def _extract(artifact: str, folder: str) -> None:
    if not artifact.endswith(SUFFIX):
        raise ConfigError(f"--extract is for artifacts, and {artifact} is none")
    files = [str(path) for path in extracted.extract(artifact, folder)]
    if console.flags.json:
        console.print_json({"schema": 1, "artifact": artifact, "files": files})
    else:
        print("\n".join(files))


def _emit(
    emission: Emission,
    model: str,
    inputs: Sequence[str] | None,
    params: str | None,
    target: str,
    settings: Settings,
    dynamic: Any,
) -> None:
    """The code of kernels, and nothing else."""
    from burnish.compiler.driver import target_for

    config = settings.config()
    emission.check(target_for(target, config))
    with console.progress(f"reading {model}"):
        source = open_source(model, inputs, params=params)
    codes = emission.emit(tuned_source(source, target, config, dynamic))
    if console.flags.json:
        console.print_json({"schema": 1, "model": model, "code": codes})


@dataclass(frozen=True)
class Inspected:
    """What there is to show; ``None`` where this kind of thing has none."""

    stage: str
    text: str
    inputs: list[dict[str, Any]]
    report: Any = None
    ops: dict[str, int] | None = None
    params: list[Any] | None = None
    manifest: dict[str, Any] | None = None
    recipe: str = ""

    def to_dict(self, *, with_ir: bool) -> dict[str, Any]:
        data = {
            "stage": self.stage,
            "inputs": self.inputs,
            "passes": self.report.to_dict() if self.report is not None else None,
            "ops": self.ops,
            "params": None if self.params is None else [asdict(row) for row in self.params],
        }
        if self.manifest is not None:
            data |= {"manifest": self.manifest, "recipe": self.recipe}
        return data | ({"ir": self.text} if with_ir else {})

    def show(self) -> None:
        from burnish.compiler.report.figures import size

        if self.manifest is not None:
            console.table("artifact", ("what", "value"), _facts(self.manifest))
        rows = [(item["name"], _shape(item["shape"]), item["dtype"]) for item in self.inputs]
        console.table("inputs", ("name", "shape", "dtype"), rows)
        if self.ops is not None:
            console.table("operators", ("operator", "calls"), list(self.ops.items()))
        if self.params is not None:
            params = [(row.name, _shape(row.shape), row.dtype, row.bytes) for row in self.params]
            total = size(sum(row.bytes for row in self.params))
            title = f"parameters: {len(params)}, {total}"
            console.table(title, ("name", "shape", "dtype", "bytes"), params)
        if self.report is not None:
            console.waterfall(self.report)
            show_placement(self.report)
        if self.recipe:
            console.results().print(f"recipe:\n{self.recipe}", markup=False)


def _artifact(path: str) -> Inspected:
    """What a file says of itself; it is checked, and nothing of it is run."""
    import json

    from burnish.compiler.summary import ParamRow
    from burnish.compiler.waterfall import Report
    from burnish.runtime.reading import read_artifact

    if not Path(path).is_file():
        raise ArtifactError(f"no artifact {path}")
    found = read_artifact(path)
    params = [
        ParamRow(name, weight.shape, weight.dtype, len(weight.data))
        for name, weight in found.weights().items()
    ]
    return Inspected(
        "compiled",
        str(found.members["ir.txt"], "utf-8"),
        _inputs(found.manifest),
        Report.from_dict(json.loads(bytes(found.members["report.json"]))),
        params=params,
        manifest=found.manifest.to_dict(),
        recipe=found.recipe,
    )


def _facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The manifest as lines of a table, but for what other tables show."""
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    target = ", ".join(
        f"{name} {value}"
        for name, value in manifest["target"].items()
        if name != "isa" and value not in (None, [])
    )
    ran = ", ".join(
        f"{item['name']} ({item['status']})"
        for item in manifest["passes"]
        if item["status"] != "no change"
    )
    outputs = [(one["dtype"], _shape(one["shape"])) for one in manifest["signature"]["outputs"]]
    return [
        ("schema", str(manifest["schema"])),
        ("source", f"{manifest['source']['kind']} {manifest['source']['hash']}"),
        ("passes", ran or "none changed anything"),
        ("calibration", manifest["calibration"] or "none"),
        ("tuning records", manifest["tuning"] or "none"),
        ("machine", manifest["machine"]),
        ("target", target),
        ("isa", " ".join(manifest["target"]["isa"])),
        *((name, _need(need)) for name, need in manifest["libraries"].items()),
        ("outputs", ", ".join(f"{dtype} {shape}" for dtype, shape in outputs)),
        ("versions", versions),
        *(
            (name, f"{member['bytes']} bytes, sha256 {member['sha256']}")
            for name, member in manifest["members"].items()
        ),
    ]


def _need(need: Mapping[str, str]) -> str:
    """What an artifact needs of a library."""
    if "least" in need:
        return f"called, {need['least']} or later"
    return f"engines of {need['version']} for {need['capability']} ({need['gpu']})"


def _at_stage(
    source: Source, stage: Stage, target: str, config: CompileConfig, dynamic: Any
) -> Inspected:
    import burnish
    from burnish.compiler.summary import op_counts, param_rows
    from burnish.passes.params import get_params

    staged: Any = burnish.import_model(
        source.model, source.example_inputs, dynamic=dynamic, fold=config.fold_onnx
    )
    inputs = _inputs(staged)
    if stage is Stage.optimized:
        staged = burnish.optimize(staged, target, config=config)
    mod = staged.mod
    report = getattr(staged, "report", None)
    return Inspected(
        stage, staged.show(), inputs, report, op_counts(mod), param_rows(get_params(mod))
    )


def _inputs(staged: Any) -> list[dict[str, Any]]:
    return [
        {"name": item.name, "shape": list(item.shape), "dtype": item.dtype}
        for item in staged.signature.inputs
    ]


def _shape(shape: Sequence[int | str]) -> str:
    return "x".join(map(str, shape)) or "scalar"
