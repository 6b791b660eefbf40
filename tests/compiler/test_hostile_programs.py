"""``.pt2`` files made to do harm: none runs code of its own, none ends or stops us."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import pickle
import random
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzz_support import EXTREMES, damaged, outcome
from torch import nn
from torch.export import Dim

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers import import_model
from burnish.compiler.importers.program_file import load_program

Members = dict[str, bytes]
MODEL, SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
CONSTANTS, WEIGHTS = (
    "data/constants/model_constants_config.json",
    "data/weights/model_weights_config.json",
)


class Net(nn.Module):
    """Open sizes, arithmetic on them, a guard, arguments in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.register_buffer("shift", torch.arange(6.0))

    def forward(self, x, more):
        h = self.linear(x) + self.shift
        h = h.reshape(h.shape[0] * h.shape[1], -1)
        return h[: h.shape[0] // 2 + 1], more["a key"] * 2


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that torch wrote."""
    given = (torch.randn(3, 5, 4), {"a key": torch.ones(2)})
    sizes = {0: Dim("b", max=64), 1: Dim("s", min=2)}
    program = torch.export.export(Net().eval(), given, dynamic_shapes=(sizes, {"a key": {}}))
    path = tmp_path_factory.mktemp("programs") / "net.pt2"
    torch.export.save(program, path)
    return path


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def packed(path: Path, content: Members) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(f"net/{name}", data)
    return path


def changed(content: Members, name: str, change: Callable[[Any], object]) -> Members:
    """With a member's JSON changed in place."""
    data = json.loads(content[name])
    change(data)
    return content | {name: json.dumps(data).encode()}


def test_a_file_of_torch_is_read(whole: Path, tmp_path: Path) -> None:
    given = (torch.randn(2, 3, 4), {"a key": torch.ones(2)})
    want = Net().eval().state_dict().keys()
    for path in (whole, packed(tmp_path / "again.pt2", members(whole))):
        program = load_program(path)
        assert program.state_dict.keys() == want
        assert len(program.module()(*given)) == 2
        assert next(iter(import_model(path).signature.inputs)).name == "x"


def evil(trap: Path) -> dict[str, tuple[str, Callable[[Members], Members]]]:
    """What a file may try, and what is said of it. ``trap`` appears if one succeeds."""
    code = f"open({str(trap)!r}, 'w')"
    saved = io.BytesIO()
    torch.save((Trap(trap),), saved)

    def sizes(data: Any) -> None:
        text = json.dumps(data).replace("Symbol('", f"{code} or Symbol('".replace('"', "'"), 1)
        data.clear()
        data.update(json.loads(text))

    def spec(data: Any, context: str, kind: str) -> None:
        signature = data["graph_module"]["module_call_graph"][0]["signature"]
        signature["in_spec"] = json.dumps(
            [1, {"type": kind, "context": context, "children_spec": []}]
        )

    def constant(name: str) -> Callable[[Members], Members]:
        entry = {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None}
        config = json.dumps({"config": {"shift": entry}}).encode()
        return lambda m: m | {CONSTANTS: config, f"data/constants/{name}": saved.getvalue()}

    def weight(data: Any) -> None:
        data["config"]["linear.bias"] |= {"use_pickle": True, "path_name": "evil"}

    def opaque(m: Members) -> Members:
        made = constant("opaque_obj_0")(m)
        return made | {"data/constants/opaque_obj_0": pickle.dumps(Trap(trap))}

    factory = json.dumps(
        {"default_factory_module": "antigravity", "default_factory_name": "x", "dict_context": []}
    )
    enum = json.dumps({"__enum__": True, "fqn": "antigravity:X", "name": "A"})
    names = ["x", f"more=({code}), *rest"]
    return {
        "samples": ("objects besides tensors", lambda m: m | {SAMPLES: saved.getvalue()}),
        "old samples": (
            "objects besides tensors",
            lambda m: m | {SAMPLES: pickle.dumps(Trap(trap))},
        ),
        "weight": (
            "objects besides tensors",
            lambda m: changed(m, WEIGHTS, weight) | {"data/weights/evil": saved.getvalue()},
        ),
        "constant": ("objects besides tensors", constant("tensor_0")),
        "opaque": ("an object that is no tensor", opaque),
        "script": ("an object that is no tensor", constant("custom_obj_0")),
        "size": ("torch would evaluate", lambda m: changed(m, MODEL, sizes)),
        "guard": (
            "torch would evaluate",
            lambda m: changed(m, MODEL, lambda data: data.update(guards_code=[f"{code} is None"])),
        ),
        "compiled": ("compiled code", lambda m: m | {"data/aotinductor/model/a.so": b"\x7fELF"}),
        "factory": (
            "the module 'antigravity' to import",
            lambda m: changed(m, MODEL, lambda d: spec(d, factory, "collections.defaultdict")),
        ),
        "enum": (
            "an enum among its arguments",
            lambda m: changed(m, MODEL, lambda d: spec(d, enum, "builtins.dict")),
        ),
        "name": (
            "an argument named",
            lambda m: changed(
                m,
                MODEL,
                lambda d: d["graph_module"]["module_call_graph"][0]["signature"].update(
                    forward_arg_names=names
                ),
            ),
        ),
    }


@pytest.mark.parametrize("kind", evil(Path("trap")))
def test_code_in_a_file_is_not_run(whole: Path, tmp_path: Path, kind: str) -> None:
    trap = tmp_path / "trap"
    message, make = evil(trap)[kind]
    path = packed(tmp_path / "evil.pt2", make(members(whole)))
    with pytest.raises(ImportModelError, match=message) as caught:
        import_model(path)
    assert "if you trust the file, load it with torch.export.load" in caught.value.message
    assert not trap.exists()


def test_torch_itself_runs_it(whole: Path, tmp_path: Path) -> None:
    """The traps are real: where torch no longer falls into them, a check may go."""
    ran = set()
    for kind in ("samples", "size", "opaque"):
        trap = tmp_path / f"trap-{kind}"
        _, make = evil(trap)[kind]
        path = packed(tmp_path / f"{kind}.pt2", make(members(whole)))
        pid = os.fork()
        if pid == 0:
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), 2)
            try:
                torch.export.load(path)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        if trap.exists():
            ran.add(kind)
    assert ran == {"samples", "size", "opaque"}


def test_a_size_without_end_is_stopped(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BURNISH_IMPORT_SECONDS", "2")
    monkeypatch.setenv("BURNISH_IMPORT_GIB", "1")
    content = members(whole)
    text = content[MODEL].decode()
    long = text.replace('"Symbol(', '"Integer(7)**Integer(7)**Integer(7)**Integer(9) + Symbol(')
    path = packed(tmp_path / "long.pt2", content | {MODEL: long.encode()})
    with pytest.raises(
        ImportModelError, match=r"was not read within|needs more than|cannot be read"
    ):
        import_model(path)


def test_a_crash_of_the_reader_is_an_error(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.export, "load", lambda path: os.abort())
    with pytest.raises(ImportModelError, match=r"crashes the library that reads it \(SIGABRT"):
        import_model(whole)


def test_zip_tricks(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/models/model.json", b" " * 10_000_000)
    with pytest.raises(ImportModelError, match=r"the size of net/models/model.json is false"):
        import_model(path)


def damaged_fields(content: Members, rng: random.Random) -> Members:
    """A file whose JSON parses, with some values wrong."""
    name = rng.choice((MODEL, MODEL, MODEL, WEIGHTS))
    data = json.loads(content[name])
    for _ in range(rng.choice((1, 1, 2, 4))):
        places: list[tuple[Any, Any]] = []
        left = [data]
        while left:
            value = left.pop()
            keys = list(value) if isinstance(value, dict) else range(len(value))
            places += [(value, key) for key in keys]
            left += [value[key] for key in keys if isinstance(value[key], dict | list)]
        where, key = rng.choice(places)
        old, other = where[key], rng.choice(places)
        strange = (None, "", "x", [], {}, rng.choice(EXTREMES), deepcopy(other[0][other[1]]))
        if rng.random() < 0.2:
            del where[key]
        elif isinstance(old, int) and rng.random() < 0.5:
            where[key] = rng.choice(EXTREMES)
        else:
            where[key] = rng.choice(strange)
    return content | {name: json.dumps(data).encode()}


def _try(job: tuple[str, int, int, Path, Path]) -> Counter[str]:
    kind, first, last, whole, folder = job
    found: Counter[str] = Counter()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    path = folder / f"{kind}-{first}.pt2"
    for number in range(first, last):
        rng = random.Random(f"pt2 {kind} {number}")
        if kind == "bytes":
            path.write_bytes(damaged(whole.read_bytes(), rng) or b"\0")
        else:
            packed(path, damaged_fields(members(whole), rng))
        try:
            found[outcome(path)] += 1
        except BaseException as error:  # noqa: BLE001 - what is looked for
            found[f"case {number}: {type(error).__name__}: {error}"] += 1
    return found


def check_damaged(kind: str, count: int, whole: Path, folder: Path) -> None:
    """In two processes, whose death is a failure."""
    half = count // 2
    jobs = [(kind, 0, half, whole, folder), (kind, half, count, whole, folder)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = sum(pool.map_async(_try, jobs).get(timeout=300), Counter())
    print(f"pt2 {kind}: {dict(found.most_common(8))}")
    strange = [name for name in found if name.startswith("case")]
    assert not strange, strange
    assert sum(found.values()) == count
    assert found["refused"] > 0


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_IMPORT_SECONDS", "20")
    monkeypatch.setenv("BURNISH_IMPORT_GIB", "2")


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize("kind", ["bytes", "fields"])
def test_some_damaged_files(whole: Path, tmp_path: Path, kind: str) -> None:
    check_damaged(kind, 8, whole, tmp_path)


@pytest.mark.heavy
@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize(("kind", "count"), [("bytes", 240), ("fields", 60)])
def test_many_damaged_files(whole: Path, tmp_path: Path, kind: str, count: int) -> None:
    check_damaged(kind, count, whole, tmp_path)
