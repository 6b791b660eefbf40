"""nn.Module -> ExportedProgram whose operators are the ones the translator takes."""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram, default_decompositions

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.pytorch.custom import kept_whole
from burnish.compiler.importers.pytorch.dynamic import OpenSizes, arranged, register_containers
from burnish.compiler.importers.pytorch.recurrences import (
    SEQUENCES,
    kept_by_shape,
    no_packed_sequences,
)
from burnish.compiler.importers.unsupported import SHOWN

_aten = torch.ops.aten

# Kept whole, because one operator says more to a compiler than the pieces torch makes of it.
# Each has a converter in converters, or one of TVM's that the tests compare with eager.
KEPT_WHOLE = (
    _aten.gelu.default,
    _aten.group_norm.default,
    _aten.hardsigmoid.default,
    _aten.hardswish.default,
    _aten.layer_norm.default,
    _aten.linear.default,
    _aten.log_softmax.int,
    _aten.matmul.default,
    _aten.max_pool2d.default,
    _aten.relu6.default,
    _aten.rms_norm.default,
    _aten.scaled_dot_product_attention.default,
    _aten.silu.default,
    _aten.softmax.int,
    _aten.upsample_bilinear2d.vec,
    _aten.upsample_nearest2d.vec,
)


def export(
    model: torch.nn.Module,
    example_inputs: Any,
    dynamic: Mapping[str, Any] | None,
) -> tuple[ExportedProgram, list[str]]:
    """Trace a module in eval mode; also the names of its arguments, in the order given.

    Raises :class:`ImportModelError` for missing or ill-fitting examples, unknown names in
    ``dynamic``, and whatever torch.export refuses.
    """
    args, kwargs = split_examples(model, example_inputs)
    names = _argument_names(model, args, kwargs)
    values = dict(zip(names, [*args, *kwargs.values()], strict=True))
    register_containers(list(values.values()))
    sizes = OpenSizes(values, dynamic)
    values = sizes.examples(values)
    given = _Call(model, len(args), list(kwargs), values)
    with (
        _eval_mode(model),
        _outputs_known(model),
        _keywords_known(model, kwargs),
        kept_by_shape(),
        no_packed_sequences(model),
    ):
        try:
            program = _trace(given, sizes if sizes.dims or sizes.specs else None)
        except ImportModelError:
            raise
        except Exception as error:
            hint = " (dynamic=...)" if dynamic else ""
            raise ImportModelError(
                f"torch.export refused the model{hint}: {_reason(error)}"
            ) from error
    return program, names


@dataclass(frozen=True)
class _Call:
    """A module and how it is called: ``values`` by argument, the first ``count`` by position."""

    model: torch.nn.Module
    count: int
    keywords: list[str]
    values: dict[str, Any]

    def split(self, values: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What is given for each argument, as positional and keyword arguments."""
        flat = list(values.values())
        return tuple(flat[: self.count]), dict(zip(self.keywords, flat[self.count :], strict=True))


def decompose(program: ExportedProgram) -> ExportedProgram:
    """Core operators, but for those kept whole; :class:`ImportModelError` where torch fails."""
    table = default_decompositions()
    for op in (*KEPT_WHOLE, *SEQUENCES, *kept_whole()):
        table.pop(op, None)
    with kept_by_shape(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            return program.run_decompositions(table)
        except Exception as error:
            raise ImportModelError(
                f"torch cannot decompose the exported model: {_reason(error)}"
            ) from error


def split_examples(
    model: torch.nn.Module, example_inputs: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs as positional and keyword arguments; NumPy arrays become tensors.

    A mapping is keyword arguments, a single tensor is the only argument.
    """
    takes = f"forward{inspect.signature(model.forward)}"
    if example_inputs is None:
        raise ImportModelError(
            "a torch.nn.Module needs example_inputs: a tuple of what the model is called with; "
            f"it has {takes}"
        )
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    if isinstance(example_inputs, Mapping):
        args, kwargs = (), dict(example_inputs)
    elif isinstance(example_inputs, (torch.Tensor, np.ndarray)):
        args, kwargs = (example_inputs,), {}
    elif isinstance(example_inputs, (tuple, list)):
        args, kwargs = tuple(example_inputs), {}
    else:
        raise ImportModelError(
            "example_inputs must be a tuple of positional or a mapping of keyword arguments, "
            f"got {type(example_inputs).__name__}"
        )
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError as error:
        raise ImportModelError(
            f"example_inputs do not fit the model ({error}); it has {takes}"
        ) from None
    return tuple(map(_tensor, args)), {name: _tensor(value) for name, value in kwargs.items()}


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _argument_names(
    model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[str]:
    names: list[str] = []
    for parameter in inspect.signature(model.forward).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}_{i}" for i in range(len(args) - len(names))]
        elif parameter.kind in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        ):
            names.append(parameter.name)
    return names[: len(args)] + list(kwargs)


def _trace(call: _Call, sizes: OpenSizes | None) -> ExportedProgram:
    """Export; sizes that the model limits (by a table of positions) again with torch's range."""
    args, kwargs = call.split(call.values)

    def exported(free: frozenset[str]) -> ExportedProgram:
        shapes = None
        if sizes is not None:
            shapes = arranged(call.model, *call.split(sizes.shapes(call.values, free)))
        with warnings.catch_warnings():
            # Recurrent layers list their weights anew in every call.
            warnings.filterwarnings("ignore", r"The tensor attributes .*_flat_weights")
            return torch.export.export(call.model, args, kwargs, dynamic_shapes=shapes)

    try:
        return exported(frozenset())
    except Exception as error:
        violated = re.search(r"Constraints violated \((.*?)\)", str(error))
        if sizes is None or violated is None:
            raise
        return exported(frozenset(name.strip() for name in violated[1].split(",")))


def _reason(error: Exception) -> str:
    """torch's message without its advice on debugging."""
    return str(error).partition("The error above occurred")[0].strip()


@contextmanager
def _outputs_known(model: torch.nn.Module) -> Iterator[None]:
    """Dataclasses and caches that the model returns are made known to torch as they come."""
    hook = model.register_forward_hook(lambda _model, _args, output: register_containers(output))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _keywords_known(model: torch.nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Keywords that ``forward`` takes as ``**kwargs`` as parameters of its own.

    torch.export loses their open sizes otherwise.
    """
    forward = model.forward
    signature = inspect.signature(forward)
    known = signature.parameters.values()
    extra = [name for name in names if name not in signature.parameters]
    if not extra:
        yield
        return

    @functools.wraps(forward)
    def named(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    kept = [p for p in known if p.kind is not inspect.Parameter.VAR_KEYWORD]
    more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in extra]
    named.__signature__ = signature.replace(parameters=[*kept, *more])  # type: ignore[attr-defined]
    own = model.__dict__.get("forward")
    model.__dict__["forward"] = named
    try:
        yield
    finally:
        model.__dict__.pop("forward")
        if own is not None:
            model.__dict__["forward"] = own


@contextmanager
def _eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode with a warning that names what was not in it, and the model as it was after."""
    training = [(name, module) for name, module in model.named_modules() if module.training]
    if training:
        warnings.warn(
            f"{_in_training(model, [name for name, _ in training])}; it is imported as in "
            "model.eval(), so dropout and batch norm behave as in inference",
            stacklevel=5,
        )
    for _, module in training:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for _, module in training:
            module.training = True


def _in_training(model: torch.nn.Module, names: list[str]) -> str:
    if model.training:
        return "the model is in training mode"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more} of the model are in training mode"
