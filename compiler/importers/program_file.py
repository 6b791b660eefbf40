"""``.pt2`` files, as ``torch.export.save`` writes them: checked before torch reads them.

torch's reader was not made for hostile files. Of what it would run from one, the following is
refused; then a child process reads the file under limits (:mod:`.contained`), with pickles held to
tensors (``weights_only``), and only what it could read is read here.

1. Compiled code (AOTInductor), which would be opened as a library.
2. Objects other than tensors: pickles and TorchScript objects among the constants.
3. Text that torch evaluates: sizes (``expr_str``, by SymPy) and guards, where they hold anything
   but arithmetic and comparisons of sizes.
4. Modules that the structure of the arguments names to be imported: enums, and default dicts of
   anything but built-in types.
5. Names of arguments that are no identifiers, since torch writes them into code.
"""

from __future__ import annotations

import ast
import json
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.contained import Arrays, Data, Limits, contained

INSTEAD = "if you trust the file, load it with torch.export.load and pass the program"
_ONLY_TENSORS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_OBJECTS = ("custom_obj_", "opaque_obj_")
_FACTORIES = ("list", "dict", "int", "float", "str", "set", "tuple", "bool")
_TEXT = re.compile(r"[\w .:+-]*")
_FUNCTION = re.compile(r"[A-Z]\w*|floor|ceiling|log|exp|sqrt|max|min|abs|sum|int|float|bool|len")
_SIZES = ("size", "stride", "storage_offset", "dim", "ndim", "shape", "numel", "dtype", "device")
_NODES = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Call, ast.keyword, ast.Subscript),
    *(ast.Attribute, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Tuple),
    *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)
_LONGEST = 100_000


def load_program(file: Path) -> Any:
    """The program in a file.

    Raises :class:`ImportModelError` for what the rules above refuse, for a file that is damaged
    and for one whose reading crashes or does not end.
    """
    try:
        check_program(file)
    except (zipfile.BadZipFile, EOFError, ValueError, KeyError, RecursionError) as error:
        raise ImportModelError(
            f"{file} is no .pt2 archive (torch.export.save writes one), or truncated: {error}"
        ) from error
    except (OSError, NotImplementedError, RuntimeError, OverflowError) as error:
        raise ImportModelError(f"{file} cannot be read: {error}") from error

    def work() -> tuple[Data, Arrays]:
        import torch

        os.environ[_ONLY_TENSORS] = "1"
        torch.set_num_threads(1)
        _load(file)
        return {}, {}

    contained(work, str(file), Limits.of(file.stat().st_size))
    return _load(file)


def _load(file: Path) -> Any:
    import torch

    try:
        return torch.export.load(file)
    except Exception as error:
        if "weights_only" in str(error) or "WeightsUnpickler" in str(error):
            raise ImportModelError(
                f"{file} holds objects besides tensors, whose reading may run code: {INSTEAD}"
            ) from error
        raise ImportModelError(
            f"{file} cannot be read as a .pt2 archive; it may be truncated: {error}"
        ) from error


def check_program(file: Path) -> None:
    """Raise :class:`ImportModelError` for a file that would run code of its own when read.

    Damaged files raise what ``zipfile`` and ``json`` raise.
    """
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        size = file.stat().st_size
        for info in infos:
            inside = info.filename.partition("/")[2]
            if inside.startswith("data/aotinductor/"):
                raise ImportModelError(f"{file} holds compiled code, not only a program: {INSTEAD}")
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
                raise zipfile.BadZipFile(f"the size of {info.filename} is false")
        for info in infos:
            if info.filename.endswith(".json"):
                _check(json.loads(archive.read(info)), file)


def _check(content: Any, file: Path) -> None:
    for key, value in _items(content):
        if key == "expr_str":
            _check_text(value, file)
        elif key == "guards_code" and isinstance(value, list):
            for guard in value:
                _check_text(guard, file)
        elif key == "path_name" and str(value).startswith(_OBJECTS):
            raise ImportModelError(f"{file} holds an object that is no tensor: {INSTEAD}")
        elif key == "__enum__":
            raise ImportModelError(f"{file} has an enum among its arguments: {INSTEAD}")
        elif key == "default_factory_module" and value != "builtins":
            raise ImportModelError(f"{file} names the module {value!r} to import: {INSTEAD}")
        elif key == "default_factory_name" and value not in _FACTORIES:
            raise ImportModelError(f"{file} names {value!r} to be called: {INSTEAD}")
        elif key == "forward_arg_names" and isinstance(value, list):
            for name in value:
                if not isinstance(name, str) or not name.isidentifier():
                    raise ImportModelError(f"{file} has an argument named {name!r:.80}: {INSTEAD}")


def _items(content: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth; JSON inside of strings is looked into too."""
    left = [content]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield from value.items()
            left += value.values()
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str) and value[:1] in ("[", "{"):
            try:
                left.append(json.loads(value))
            except ValueError:
                continue


def _check_text(text: Any, file: Path) -> None:
    """Arithmetic and comparisons, and no way to anything else."""
    said = f"{file} has text that torch would evaluate and that is no size or guard, {text!r:.80}"
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise ImportModelError(f"{said}: {INSTEAD}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ImportModelError(f"{said}: {INSTEAD}") from error
    for node in ast.walk(tree):
        if not _allowed(node):
            raise ImportModelError(f"{said}: {INSTEAD}")


def _allowed(node: ast.AST) -> bool:
    if not isinstance(node, _NODES):
        return False
    if isinstance(node, ast.Name):
        return not node.id.startswith("_")
    if isinstance(node, ast.Attribute):
        of_math = isinstance(node.value, ast.Name) and node.value.id in ("math", "torch")
        return not node.attr.startswith("_") and (of_math or node.attr in _SIZES)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _TEXT.fullmatch(node.value) is not None
    if isinstance(node, ast.Call):
        called = node.func
        if isinstance(called, ast.Name):
            return _FUNCTION.fullmatch(called.id) is not None
        of_math = isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name)
        if of_math and called.value.id == "torch":  # type: ignore[attr-defined]
            return False
        return isinstance(called, ast.Attribute)
    return True


__all__ = ["check_program", "load_program"]
