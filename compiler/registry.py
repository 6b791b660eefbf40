"""Passes, evaluations, calibration sets and converters of the user's own, known by name.

A recipe file can say only these names, never an import path: reading one runs no code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from burnish.compiler.errors import ConfigError

if TYPE_CHECKING:
    import tvm

Evaluator = Callable[[Callable[..., Any]], float]
"""Takes a callable model, gives one number; higher is better."""

Calibration = Sequence[tuple[Any, ...]]
"""Input tuples for the model, real data."""

PHASES = ("import", "clean", "prune", "quantize", "precision", "partition", "lower", "fuse")
"""Phases of the pipeline in order. An extra pass runs at the end of the phase it names."""

OperatorConverter = Callable[..., Any]
"""Takes a ``relax.BlockBuilder`` and the arguments of an operator, gives Relax expressions."""

OPERATOR = re.compile(r"\w+::\w+(\.\w+)?")
ONNX_OPERATOR = re.compile(r"\w+(\.\w+)*::\w+")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
T = TypeVar("T")


@dataclass(frozen=True)
class RegisteredPass:
    """A pass, or a function or class that makes one when called without arguments."""

    source: Any
    phase: str

    def make(self, name: str) -> tvm.ir.transform.Pass:
        """The pass itself; raises :class:`ConfigError` where the source makes something else."""
        from tvm.ir.transform import Pass

        made = self.source if isinstance(self.source, Pass) else self.source()
        if not isinstance(made, Pass):
            raise ConfigError(
                f"pass {name!r} must be a TVM pass or make one, got {type(made).__name__}; "
                "decorate the class or function with tvm.transform.module_pass",
                pass_name=name,
            )
        return made


class Names(Generic[T]):
    """Name -> thing, with errors that list near names."""

    def __init__(self, kind: str, verb: str) -> None:
        self._kind = kind
        self._verb = verb
        self._known: dict[str, T] = {}

    def add(self, name: str, thing: T, *, replace: bool) -> None:
        check_name(self._kind, name)
        if name in self._known and not replace:
            raise ConfigError(
                f"{self._kind} {name!r} is registered already; pass replace=True to change it"
            )
        self._known[name] = thing

    def get(self, name: str) -> T:
        if name not in self._known:
            raise ConfigError(
                f"no {self._kind} is registered as {name!r}{near(name, self._known)}; "
                f"register it with burnish.{self._verb}({name!r}, ...) first"
            )
        return self._known[name]

    def names(self) -> list[str]:
        return sorted(self._known)


def register_pass(
    name: str, pass_or_factory: Any, phase: str = "clean", *, replace: bool = False
) -> None:
    """Make a pass known by ``name``, to run at the end of ``phase`` (one of :data:`PHASES`).

    ``pass_or_factory`` is a TVM pass, or a class or function that makes one without arguments.
    Raises :class:`ConfigError` for a name in use, unless ``replace``, and for an unknown phase.
    """
    check_phase(phase)
    if not callable(pass_or_factory):
        raise ConfigError(
            f"pass {name!r} must be a TVM pass or make one, got {type(pass_or_factory).__name__}"
        )
    passes.add(name, RegisteredPass(pass_or_factory, phase), replace=replace)


def register_evaluator(name: str, fn: Evaluator, *, replace: bool = False) -> None:
    """Make ``fn(model) -> float`` (higher is better) known by ``name``."""
    if not callable(fn):
        raise ConfigError(f"evaluation {name!r} must be callable, got {type(fn).__name__}")
    evaluators.add(name, fn, replace=replace)


def register_calibration(name: str, data: Calibration, *, replace: bool = False) -> None:
    """Make a calibration set (a sequence of input tuples) known by ``name``."""
    if not isinstance(data, Sequence) or isinstance(data, str | bytes):
        raise ConfigError(
            f"calibration set {name!r} must be a sequence of input tuples, "
            f"got {type(data).__name__}"
        )
    calibrations.add(name, data, replace=replace)


def register_converter(
    name: str,
    fn: OperatorConverter,
    *,
    format: str = "torch",
    since: int = 1,
    replace: bool = False,
) -> None:
    """Make ``fn`` what an operator of PyTorch (``"my::op"``, or one overload, ``"my::op.out"``) or,
    with ``format="onnx"``, of an ONNX domain becomes (``"com.example::Op"``).

    PyTorch: ``fn(builder, ...)`` gets TVM's block builder, then the arguments of the operator as
    its schema orders them, defaults filled in: tensors as Relax expressions, the rest as Python
    values. It returns a Relax expression, or a tuple with one for each result; each is held to the
    shape and the dtype that torch recorded. A registered operator is kept whole.

    ONNX: ``fn(node)`` gets a :class:`~burnish.compiler.importers.onnx.node.Node` and returns a
    Relax expression, a tuple with one an output, or None to leave this form to Burnish's own
    converter. ``since`` is the version of the domain's operator set from which on it holds.

    Either goes before Burnish's own converter. Raises :class:`ConfigError` for a function that
    cannot be called, a name that is none, a PyTorch operator that torch does not know, and one
    registered already, unless ``replace``.
    """
    if not callable(fn):
        raise ConfigError(f"the converter of {name!r} must be callable, got {type(fn).__name__}")
    if format not in ("torch", "onnx"):
        raise ConfigError(f"format {format!r} is unknown; known: torch, onnx")
    if format == "onnx":
        _register_onnx(name, fn, since, replace=replace)
        return
    _check_operator(name)
    if name in converters and not replace:
        raise ConfigError(
            f"a converter of {name!r} is registered already; pass replace=True to change it"
        )
    converters[name] = fn


def _register_onnx(name: object, fn: OperatorConverter, since: int, *, replace: bool) -> None:
    if not isinstance(name, str) or not ONNX_OPERATOR.fullmatch(name):
        raise ConfigError(
            f"{name!r} names no ONNX operator: write it like 'com.example::Op', 'ai.onnx::Op' for "
            "one of ONNX's own"
        )
    domain, _, op = name.partition("::")
    entries = onnx_converters.setdefault(("" if domain == "ai.onnx" else domain, op), {})
    if since in entries and not replace:
        raise ConfigError(
            f"a converter of {name!r} since {since} is registered already; pass replace=True to "
            "change it"
        )
    entries[since] = fn


def _check_operator(name: object) -> None:
    """Raise :class:`ConfigError` unless torch has an operator of this name."""
    import torch

    if not isinstance(name, str) or not OPERATOR.fullmatch(name):
        raise ConfigError(f"{name!r} names no PyTorch operator: write it like 'my::op'")
    known = set(torch._C._dispatch_get_all_op_names())  # the default overload has no suffix
    plain = name.removesuffix(".default")
    if plain in known or any(other.startswith(f"{name}.") for other in known):
        return
    space = name.partition("::")[0]
    inside = {other.partition(".")[0] for other in known if other.startswith(f"{space}::")}
    spaces = {other.partition("::")[0] for other in known}
    why = f"and no namespace {space!r}{near(space, spaces)}"
    if inside:
        why = f"in the namespace {space!r}{near(plain, inside)}"
    raise ConfigError(
        f"torch knows no operator {name!r} {why}; define it before its converter, with "
        "torch.library.custom_op"
    )


def check_phase(phase: str) -> None:
    """Raise :class:`ConfigError` unless the pipeline has this phase."""
    if phase not in PHASES:
        raise ConfigError(f"phase {phase!r} is unknown; known: {', '.join(PHASES)}")


def check_name(kind: str, name: object) -> None:
    """Raise :class:`ConfigError` unless ``name`` is a plain name (an import path is not)."""
    if isinstance(name, str) and NAME.fullmatch(name):
        return
    if isinstance(name, str) and any(mark in name for mark in ".:/"):
        raise ConfigError(
            f"{kind} {name!r} looks like an import path or a file, which recipes refuse; "
            "register it in code and say its registered name"
        )
    raise ConfigError(
        f"{kind} {name!r} is no name: letters, digits, '_' and '-', not starting with a digit"
    )


def near(name: str, known: Iterable[str]) -> str:
    """``" (near: a, b)"``, or the known names where none is near, or that there are none."""
    known = sorted(known)
    close = get_close_matches(name, known, n=3)
    if close:
        return f" (near: {', '.join(close)})"
    return f" (known: {', '.join(known)})" if known else " (none is known)"


passes: Names[RegisteredPass] = Names("pass", "register_pass")
evaluators: Names[Evaluator] = Names("evaluation", "register_evaluator")
calibrations: Names[Calibration] = Names("calibration set", "register_calibration")
converters: dict[str, OperatorConverter] = {}
"""By the name of the PyTorch operator."""
onnx_converters: dict[tuple[str, str], dict[int, OperatorConverter]] = {}
"""By domain ("" for ONNX's own) and operator of ONNX, then by the version it holds from."""
