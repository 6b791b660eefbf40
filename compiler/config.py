"""What to do to a model: one frozen dataclass, checked when made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from burnish.compiler import registry
from burnish.compiler.errors import ConfigError
from burnish.compiler.libraries import as_libraries
from burnish.compiler.precision import STORED
from burnish.compiler.resolved import Resolved
from burnish.passes.configs import PruneConfig, QuantizeConfig

if TYPE_CHECKING:
    import tvm

T = TypeVar("T")

PRECISIONS = tuple(STORED)
OPT_LEVELS = (0, 1, 2, 3)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmMgG]?)(i?)B?")
QUANTIZE_CODE = re.compile(r"(?:int|w)([2-8])(?:g([1-9][0-9]*))?(-asym)?")
QUANTIZE_CODES = "int2 to int8, int4g32 or w4g32 (groups of 32), int4g32-asym (asymmetric)"


@dataclass(frozen=True)
class TuneConfig:
    """How long to search for faster schedules.

    ``trials`` counts measured candidates over all tasks together. ``work_dir`` keeps the
    database, reused by the next run; ``None`` keeps it in the user's cache folder.
    """

    trials: int = 64
    work_dir: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _whole("trials", self.trials, least=1)
        _whole("seed", self.seed, least=0)
        if self.work_dir is not None:
            object.__setattr__(self, "work_dir", Path(self.work_dir))


@dataclass(frozen=True)
class ExtraPass:
    """A pass of the user's own: a registered name, or a pass, at the end of ``phase``.

    ``phase`` ``None`` takes the phase that the name was registered with.
    """

    source: Any
    phase: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.source, str):
            registry.check_name("pass", self.source)
        elif not callable(self.source):
            raise ConfigError(f"an extra pass must be a name or a pass, got {self.source!r}")
        elif self.phase is None:
            raise ConfigError(
                f"the extra pass {_called(self.source)} needs a phase: passes=[(pass, 'clean')]; "
                f"known: {', '.join(registry.PHASES)}"
            )
        if self.phase is not None:
            registry.check_phase(self.phase)


@dataclass(frozen=True)
class CompileConfig:
    """What ``burnish.compile`` does to a model, besides building it.

    Shorthands are taken for the first three: ``prune=0.5`` (sparsity), ``quantize="int8"``,
    ``"int4"``, ``"w4g32"``, ``tune=64`` (trials); so is a mapping of their fields.

    ``precision``   what floats are computed in: "fp32"; "bf16" where the target has AVX512-BF16,
                    sums in float32; "fp16" for weights stored in two bytes; "tf32" where the
                    target is a GPU whose tensor cores may round float32 to 19 bits.
    ``threads``     CPU threads; ``None``: ``$BURNISH_THREADS``, else every usable core.
    ``opt_level``   0 to 3, as TVM's pass context takes it.
    ``passes``      extra passes: a registered name, or a pair (name or pass, phase).
    ``calibration`` input tuples of real data, or the name of a registered set.
    ``evaluate``    ``fn(model) -> float``, higher is better, or a registered name.
    ``do_no_harm``  undo a pass that makes the model slower, or worse than its limit.
    ``fold_onnx``   fix and fold the shapes of an ONNX file before its import.
    ``exact_conv``  sum convolutions term by term; else 3x3 ones may take Winograd's form, of fewer
                    operations, whose error stays within 1e-5 of the largest output.
    ``cuda_graphs`` on CUDA, record kernels that only touch memory of the model's own on the first
                    call, and launch them at once on later ones.
    ``libraries``   on CUDA, what a tuned library computes in a kernel's place: "cublas",
                    "cudnn", single operations, "tensorrt", or "auto" to measure
                    (:mod:`burnish.compiler.library_choice`).
    ``devices``     those of a target of several, in the order they are preferred, in the place of
                    ``target="hetero:..."``; as a mapping with ``memory`` for each that has a limit.
    ``placement``   for a target of several devices, names, operators or globs on either to the
                    device that computes them (:func:`burnish.passes.place.assign`); "auto" in
                    the place of a device, or of all, is the one that measured costs choose.
    ``memory``      bytes that a placement by cost may use of a device, by name: a number, or
                    text as "2 GB" or "512 MiB".
    ``resolved``    what an earlier compilation measured and chose, from the recipe in its artifact
                    (:mod:`burnish.compiler.resolved`): nothing is measured again.

    Raises :class:`ConfigError`, which lists what is known, for a value outside that.
    """

    prune: PruneConfig | None = None
    quantize: QuantizeConfig | None = None
    tune: TuneConfig | None = None
    precision: str = "fp32"
    threads: int | None = None
    opt_level: int = 3
    passes: tuple[ExtraPass, ...] = ()
    calibration: registry.Calibration | str | None = None
    evaluate: registry.Evaluator | str | None = None
    do_no_harm: bool = True
    fold_onnx: bool = True
    exact_conv: bool = False
    cuda_graphs: bool = False
    libraries: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    placement: Mapping[str, str] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    resolved: Resolved | None = None

    def __post_init__(self) -> None:
        given = object.__setattr__
        given(self, "prune", as_prune(self.prune))
        given(self, "quantize", as_quantize(self.quantize))
        given(self, "tune", as_tune(self.tune))
        given(self, "passes", _as_passes(self.passes))
        given(self, "libraries", as_libraries(self.libraries))
        given(self, "placement", as_placement(self.placement))
        given(self, "memory", {**memory_of_devices(self.devices), **as_memory(self.memory)})
        given(self, "devices", as_devices(self.devices))
        given(self, "resolved", _as_resolved(self.resolved))
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"precision {self.precision!r} is unknown; known: {', '.join(PRECISIONS)}"
            )
        if self.threads is not None:
            _whole("threads", self.threads, least=1)
        if isinstance(self.opt_level, bool) or self.opt_level not in OPT_LEVELS:
            raise ConfigError(f"opt_level must be one of 0, 1, 2, 3, got {self.opt_level!r}")
        for name in ("do_no_harm", "fold_onnx", "exact_conv", "cuda_graphs"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be true or false, got {getattr(self, name)!r}")
        if isinstance(self.evaluate, str):
            registry.check_name("evaluation", self.evaluate)
        elif self.evaluate is not None and not callable(self.evaluate):
            raise ConfigError(f"evaluate must be a function or a name, got {self.evaluate!r}")
        if isinstance(self.calibration, str):
            registry.check_name("calibration set", self.calibration)
        elif self.calibration is not None and not isinstance(self.calibration, Sequence):
            raise ConfigError(
                "calibration must be a sequence of input tuples or a name, "
                f"got {type(self.calibration).__name__}"
            )

    def overridden(self, **changes: Any) -> CompileConfig:
        """A copy with these fields changed (shorthands too); an unknown one is an error."""
        check_keys("setting", changes, CompileConfig)
        return replace(self, **changes)

    def extra_passes(self, phase: str) -> tuple[tvm.ir.transform.Pass, ...]:
        """The user's passes at the end of ``phase``, in the order given."""
        registry.check_phase(phase)
        found = []
        for extra in self.passes:
            if isinstance(extra.source, str):
                entry = registry.passes.get(extra.source)
                if (extra.phase or entry.phase) == phase:
                    found.append(entry.make(extra.source))
            elif extra.phase == phase:
                entry = registry.RegisteredPass(extra.source, phase)
                found.append(entry.make(_called(extra.source)))
        return tuple(found)

    def evaluator(self) -> registry.Evaluator | None:
        """The evaluation itself, looked up where a name was given."""
        if isinstance(self.evaluate, str):
            return registry.evaluators.get(self.evaluate)
        return self.evaluate

    def calibration_data(self) -> registry.Calibration | None:
        """The calibration inputs themselves, looked up where a name was given."""
        if isinstance(self.calibration, str):
            return registry.calibrations.get(self.calibration)
        return self.calibration

    def check_registered(self) -> None:
        """Raise :class:`ConfigError` now for any name that nothing is registered as."""
        for extra in self.passes:
            if isinstance(extra.source, str):
                registry.passes.get(extra.source)
        self.evaluator()
        self.calibration_data()

    @classmethod
    def from_toml(cls, path: str | Path) -> CompileConfig:
        """Read a recipe file; see :mod:`burnish.compiler.recipe`."""
        from burnish.compiler import recipe

        return recipe.read(Path(path))

    @classmethod
    def from_toml_text(cls, text: str) -> CompileConfig:
        """Read the text of a recipe."""
        from burnish.compiler import recipe

        return recipe.parse(text)

    def to_toml(self, *, drop_unnamed: bool = False) -> str:
        """The text of this recipe.

        A function, pass or data given in code has no name that a recipe could say: that is a
        :class:`ConfigError`, or with ``drop_unnamed`` a comment line in its place.
        """
        from burnish.compiler import recipe

        return recipe.text(self, drop_unnamed=drop_unnamed)

    def save_toml(self, path: str | Path) -> None:
        """Write :meth:`to_toml` to a file."""
        Path(path).write_text(self.to_toml(), encoding="utf-8")


def as_placement(value: Any) -> Mapping[str, str]:
    """Names to devices, in the order given; ``"auto"`` for all -> ``{"*": "auto"}``."""
    if value == "auto":
        return {"*": "auto"}
    said = isinstance(value, Mapping) and all(
        isinstance(one, str) for one in (*value, *value.values())
    )
    if not said:
        raise ConfigError(f"placement must map names to devices, got {value!r:.80}")
    return dict(value)


def as_devices(value: Any) -> tuple[str, ...]:
    """Names of devices, as a sequence or the keys of a mapping, in the order given."""
    names = list(value) if isinstance(value, Mapping | Sequence) else None
    if names is None or isinstance(value, str) or not all(isinstance(n, str) for n in names):
        raise ConfigError(
            f"devices must be names, ['cuda:0', 'cpu'], or a table of them, got {value!r:.80}"
        )
    return tuple(names)


def memory_of_devices(value: Any) -> Mapping[str, int]:
    """``{"cuda:0": {"memory": "8 GB"}, "cpu": {}}`` -> bytes of those that say so."""
    found: dict[str, Any] = {}
    for name, table in value.items() if isinstance(value, Mapping) else ():
        if not isinstance(table, Mapping) or set(table) - {"memory"}:
            raise ConfigError(
                f"of the device {name!r}, memory can be said, as {{ memory = '8 GB' }}, "
                f"got {table!r:.80}"
            )
        if "memory" in table:
            found[name] = table["memory"]
    return as_memory(found)


def as_memory(value: Any) -> Mapping[str, int]:
    """Device names to bytes."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"memory must map devices to bytes, got {value!r:.80}")
    return {str(name): _size(name, size) for name, size in value.items()}


def _size(name: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ConfigError(
            f"memory of {name!r} must be bytes, or text as '2 GB' or '512 MiB', got {value!r:.80}"
        )
    number, unit, binary = match.groups()
    power = " kmg".index(unit.lower()) if unit else 0
    return int(float(number) * (1024 if binary else 1000) ** power)


def as_prune(value: Any) -> PruneConfig | None:
    """``0.5`` -> that sparsity; a mapping -> its fields."""
    if value is None or isinstance(value, PruneConfig):
        return value
    if isinstance(value, Mapping):
        return _made(PruneConfig, value, "prune")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _made(PruneConfig, {"sparsity": float(value)}, "prune")
    raise ConfigError(f"prune must be a sparsity from 0 to 1 or a PruneConfig, got {value!r}")


def as_quantize(value: Any) -> QuantizeConfig | None:
    """``"int8"`` -> 8 bits a channel; ``"w4g32"`` -> 4 bits, groups of 32; a mapping -> its fields.

    A trailing ``-asym`` makes it asymmetric.
    """
    if value is None or isinstance(value, QuantizeConfig):
        return value
    if isinstance(value, Mapping):
        return _made(QuantizeConfig, value, "quantize")
    match = QUANTIZE_CODE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ConfigError(f"quantize {value!r} is unknown; known: {QUANTIZE_CODES}")
    bits, group, asymmetric = match.groups()
    return QuantizeConfig(
        bits=int(bits),
        granularity="group" if group else "channel",
        group_size=int(group) if group else None,
        symmetric=asymmetric is None,
    )


def as_tune(value: Any) -> TuneConfig | None:
    """``64`` -> that many trials; a mapping -> its fields."""
    if value is None or isinstance(value, TuneConfig):
        return value
    if isinstance(value, Mapping):
        return _made(TuneConfig, value, "tune")
    if isinstance(value, int) and not isinstance(value, bool):
        return TuneConfig(trials=value)
    raise ConfigError(f"tune must be a number of trials or a TuneConfig, got {value!r}")


def _as_resolved(value: Any) -> Resolved | None:
    if value is None or isinstance(value, Resolved):
        return value
    if isinstance(value, Mapping):
        check_keys("setting of resolved", value, Resolved)
        return Resolved.from_dict(value)
    raise ConfigError(f"resolved must be that table of a recipe, got {type(value).__name__}")


def check_keys(what: str, given: Mapping[str, Any], kind: type) -> None:
    """Raise :class:`ConfigError` for a key that is no field of the dataclass ``kind``."""
    known = [item.name for item in fields(kind)]
    for key in given:
        if key not in known:
            raise ConfigError(f"unknown {what} {key!r}{registry.near(key, known)}")


def _made(kind: Callable[..., T], values: Mapping[str, Any], name: str) -> T:
    check_keys(f"setting of {name}", values, kind)  # type: ignore[arg-type]
    try:
        return kind(**values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except TypeError as error:
        said = ", ".join(f"{key} = {value!r}" for key, value in values.items())
        raise ConfigError(f"a setting of {name} has the wrong type: {said}") from error


def _as_passes(given: Any) -> tuple[ExtraPass, ...]:
    items = (given,) if isinstance(given, str | ExtraPass) else given
    if not isinstance(items, Sequence):
        raise ConfigError(f"passes must be a list, got {type(items).__name__}")
    return tuple(map(_as_pass, items))


def _as_pass(item: Any) -> ExtraPass:
    if isinstance(item, ExtraPass):
        return item
    if isinstance(item, tuple | list):
        if len(item) != 2:
            raise ConfigError(f"an extra pass is a pair (name or pass, phase), got {item!r}")
        return ExtraPass(*item)
    return ExtraPass(item)


def _called(source: Any) -> str:
    info = getattr(source, "info", None)
    name = getattr(info, "name", None) or getattr(source, "__name__", None)
    return str(name or type(source).__name__)


def _whole(name: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be a whole number of {least} or more, got {value!r}")
