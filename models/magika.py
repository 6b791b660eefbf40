"""magika: the kind of a file from the bytes at its ends, judged on files with a known suffix."""

from __future__ import annotations

import functools
import importlib.util
import json
import sysconfig
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from burnish.models import files
from burnish.models.zoo import Forward, Inputs, Metric, ZooModel, arrays, pick

# Suffix -> label. Suffixes whose files are often something else (.pl, .h, .txt) are left out.
KINDS = """
bat=batch c=c cc=cpp cfg=ini cmake=cmake cpp=cpp css=css csv=csv gif=gif gz=gzip html=html ico=ico
jpg=jpeg js=javascript json=json md=markdown npy=npy npz=npz pdf=pdf pem=pem png=png ps1=powershell
py=python rst=rst sh=shell so=elf svg=svg toml=toml ttf=ttf wav=wav xml=xml yaml=yaml zip=zip
"""
LABELS = dict(pair.split("=") for pair in KINDS.split())
LIBRARIES = ("matplotlib", "numpy", "torch")
A_KIND = 40
SMALLEST, BLOCK, ENDS, PADDING = 64, 4096, 1024, 256


@dataclass(frozen=True)
class LocalFiles:
    """Files of Python's standard library and of three packages, at most 40 of a kind.

    The count, so the metric too, depends a little on the installed versions.
    """

    def held_out(self, n: int, seed: int) -> list[Inputs]:
        return [(features(path),) for path, _ in pick(_files(calibrates=False), n, seed)]

    def calibration(self, n: int) -> list[Inputs]:
        return [(features(path),) for path, _ in pick(_files(calibrates=True), n, seed=0)]

    def evaluate(self, forward: Forward, limit: int | None) -> float:
        """Share of ``limit`` files, in an order that mixes the kinds, whose label is right."""
        chosen = _files(calibrates=False)
        chosen = pick(chosen, min(limit or len(chosen), len(chosen)), seed=0)
        labels = _configuration()["target_labels_space"]
        guesses = (arrays(forward(features(path)))[0][0].argmax() for path, _ in chosen)
        right = [labels[guess] == label for guess, (_, label) in zip(guesses, chosen, strict=True)]
        return float(np.mean(right))


def load() -> ZooModel:
    return ZooModel(
        name="magika",
        task="file type detection",
        description="magika standard_v3_3, 0.78 M parameters; 2,048 bytes to 214 kinds of file",
        model=onnx.load(files.one("magika", "magika/models/*/model.onnx")),
        example_inputs=LocalFiles().held_out(1, 0)[0],
        metric=Metric("accuracy on files with a known suffix", higher_is_better=True),
        baseline="onnxruntime",
        licence="Apache-2.0",
        source=str(files.wheels()["magika"]),
        data=LocalFiles(),
    )


def features(path: Path) -> np.ndarray:
    """The bytes at both ends of a file, stripped of white space and padded: ``[1, 2048] int32``."""
    with path.open("rb") as stream:
        first = stream.read(BLOCK).lstrip()[:ENDS]
        stream.seek(max(0, path.stat().st_size - BLOCK))
        last = stream.read(BLOCK).rstrip()[-ENDS:]
    values = np.full((1, 2 * ENDS), PADDING, dtype=np.int32)
    values[0, : len(first)] = list(first)
    if last:
        values[0, -len(last) :] = list(last)
    return values


@functools.cache
def _files(*, calibrates: bool) -> list[tuple[Path, str]]:
    """Files and labels; a checksum of its path puts one file in five on the calibration side."""
    taken: dict[str, int] = {}
    found = []
    for root in _roots():
        for path in sorted(root.rglob("*.*")):
            label = LABELS.get(path.suffix[1:])
            inner = path.relative_to(root)
            if label is None or "site-packages" in inner.parts:
                continue
            side = zlib.crc32(inner.as_posix().encode()) % 5 == 0
            if side is not calibrates or taken.get(path.suffix, 0) >= A_KIND:
                continue
            if not path.is_file() or path.stat().st_size < SMALLEST:
                continue
            taken[path.suffix] = taken.get(path.suffix, 0) + 1
            found.append((path, label))
    return found


def _roots() -> list[Path]:
    roots = [Path(sysconfig.get_path("stdlib"))]
    for name in LIBRARIES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin:
            roots.append(Path(spec.origin).parent)
    return roots


def _configuration() -> dict[str, Any]:
    path = files.one("magika", "magika/models/*/config.min.json")
    return json.loads(path.read_text(encoding="utf-8"))
