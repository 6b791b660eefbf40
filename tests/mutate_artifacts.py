"""Load mutated artifacts in this process, and say what became of each.

``mutate_artifacts.py FOLDER FIRST COUNT``: FOLDER has artifacts, and is where mutants are written.
The mutant of a seed is always the same. Prints one JSON object; the seed in work is in
``FOLDER/seed``, for whoever finds this process dead.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from artifact_support import NAME, NAMES, hashed, members, packed

import burnish
from burnish import runtime
from burnish.compiler.errors import ArtifactError
from burnish.compiler.signature import evaluate
from burnish.runtime.trees import decode

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**70, 1.5, 1e308, "", "x", "../../x", "/etc/passwd"),
    *("\ud800", "n" * 5000, [], {}, [[]], {"tuple": [0]}, {"const": None}, "float64", "int8"),
)
KINDS = ("bit", "bits", "cut", "grow", "swap", "swap and hash", "manifest", "manifest", "header")


def flipped(data: bytes, rng: random.Random, places: range | list[int], count: int) -> bytes:
    changed = bytearray(data)
    for _ in range(count):
        changed[rng.choice(places)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def headers(data: bytes) -> list[int]:
    """Places of bytes near the marks of a zip."""
    found = []
    for mark in (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"):
        at = data.find(mark)
        while at >= 0:
            found += range(at, min(at + 60, len(data)))
            at = data.find(mark, at + 1)
    return found


def edited(value: Any, rng: random.Random) -> Any:
    """The value with one edit at a random place of it."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        if rng.random() < 0.1:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: edited(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        if rng.random() < 0.2:
            return rng.choice((value[:at], value + value[at:], value[::-1]))
        return [*value[:at], edited(value[at], rng), *value[at + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.5:
        return value + rng.choice((-1, 1, 7))
    return rng.choice(ODD)


def mutant(files: list[Path], rng: random.Random) -> tuple[str, Path, bytes]:
    kind, file = rng.choice(KINDS), rng.choice(files)
    data = file.read_bytes()
    if kind == "bit":
        return kind, file, flipped(data, rng, range(len(data)), 1)
    if kind == "bits":
        return kind, file, flipped(data, rng, range(len(data)), rng.randrange(2, 50))
    if kind == "cut":
        start = rng.randrange(len(data))
        end = rng.choice((len(data), rng.randrange(start, len(data) + 1)))
        return kind, file, data[:start] + data[end:]
    if kind == "grow":
        at = rng.choice((0, len(data), rng.randrange(len(data))))
        return kind, file, data[:at] + rng.randbytes(rng.randrange(1, 100)) + data[at:]
    if kind == "header":
        return kind, file, flipped(data, rng, headers(data), rng.randrange(1, 4))
    content = members(file)
    if kind == "manifest":
        manifest = json.loads(content[NAME])
        for _ in range(rng.randrange(1, 3)):
            manifest = edited(manifest, rng)
        return kind, file, packed({**content, NAME: json.dumps(manifest).encode()})
    name, other = rng.sample(NAMES[1:], 2)
    theirs = members(rng.choice(files))
    changed = {**content, name: theirs[rng.choice((name, other))]}
    return kind, file, packed(hashed(changed) if kind == "swap and hash" else changed)


def watched(allowed: tuple[Path, ...]) -> None:
    """End this process on any write outside of ``allowed``."""
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    changes = ("os.mkdir", "os.remove", "os.rename", "os.symlink", "os.link", "os.rmdir")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("subprocess.Popen", "os.system", "os.exec", "os.fork", "socket.connect"):
            print(f"{event} {arguments}", file=sys.stderr)
            os._exit(3)
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & writes
        if (opened or event in changes) and isinstance(arguments[0], str | bytes | os.PathLike):
            path = Path(os.path.abspath(os.fsdecode(arguments[0])))
            if not any(path.is_relative_to(folder) for folder in allowed):
                print(f"{event} {path}", file=sys.stderr)
                os._exit(3)

    sys.addaudithook(hook)


def called(model: Any) -> list[np.ndarray]:
    """Outputs for ones of the shapes that the model says it takes."""
    sizes = {name: max(1, low) for name, (low, _) in model.signature.symbols.items()}
    inputs: list[Any] = []
    for spec in model.signature.inputs:
        shape = [n if isinstance(n, int) else evaluate(n, sizes) or 1 for n in spec.shape]
        if np.prod(shape, dtype=float) > 1e6:
            raise ValueError("too large to try")
        inputs.append(np.ones(shape, spec.dtype))
    found = model(*(decode(node, inputs) for _, node in model.signature.arguments))
    return [np.array(value) for value in leaves(found)]


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    elif value is not None:
        yield value


def outcome(load: Callable[[Path], Any], path: Path, want: list[np.ndarray]) -> str:
    try:
        model = load(path)
    except ArtifactError:
        return "refused"
    try:
        got = called(model)
        again = called(model)
    except (ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        return f"{type(error).__name__} at the call"
    same = all(map(np.array_equal, got, want)) and all(map(np.array_equal, again, want))
    return f"{'the same' if same else 'other'} outputs"


def main() -> None:
    folder, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    files = sorted(folder.glob("*.burnish"))
    for file in files:
        called(burnish.load(file))
        called(runtime.load(file))
    want = {file: called(burnish.load(file)) for file in files}
    path = folder / "mutant"
    watched((path, folder / "seed", Path(os.environ["BURNISH_CACHE"]), Path("/dev/null")))
    outcomes: Counter[str] = Counter()
    for seed in range(first, first + count):
        (folder / "seed").write_text(str(seed))
        rng = random.Random(seed)
        kind, file, data = mutant(files, rng)
        path.write_bytes(data)
        for loader in (burnish.load, runtime.load):
            outcomes[f"{kind}: {outcome(loader, path, want[file])}"] += 1
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
