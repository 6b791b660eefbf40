"""Layouts such as ``NHWC`` and ``NCHW4c``: what axis is what, and the way from one to another."""

from __future__ import annotations

import re

from tvm import relax

from burnish.compiler.importers.relay import sizes
from burnish.compiler.importers.relay.context import Context, rank_of, shape_of
from burnish.compiler.importers.relay.graph import RelayError

Axes = list[tuple[str, int]]  # letter, and the factor of a lower-case (inner) one, else 0


def axes_of(layout: str) -> Axes:
    """``NCHW4c`` -> N, C, H, W, and c with factor 4."""
    found = re.findall(r"([A-Z])|(\d+)([a-z])", layout)
    axes = [(upper or lower, int(factor or 0)) for upper, factor, lower in found]
    if "".join(f"{factor or ''}{letter}" for letter, factor in axes) != layout:
        raise RelayError(f"the layout {layout!r} is not understood")
    return axes


def transform(ctx: Context, x: relax.Expr, source: str, target: str) -> relax.Expr:
    """A tensor from one layout in another; inner axes are split and joined."""
    if source == target or not target:
        return x
    have, want = axes_of(source), axes_of(target)
    if len(have) != rank_of(x):
        raise RelayError(f"the layout {source} has another rank than the tensor")
    x, outer = _joined(ctx, x, have)
    missing = [letter for letter, factor in want if not factor and letter not in outer]
    if missing or len(outer) != sum(1 for _, factor in want if not factor):
        raise RelayError(f"there is no way from layout {source} to {target}")
    return _split(ctx, x, outer, want)


def _joined(ctx: Context, x: relax.Expr, axes: Axes) -> tuple[relax.Expr, list[str]]:
    """Each inner axis behind its outer one, and merged with it."""
    outer = [letter for letter, factor in axes if not factor]
    if len(outer) == len(axes):
        return x, outer
    places = {letter: i for i, (letter, _) in enumerate(axes)}
    order, groups = [], []
    for letter in outer:
        group = [places[letter]]
        if letter.lower() in places:
            group.append(places[letter.lower()])
        order += group
        groups.append(group)
    shape = shape_of(x)
    x = ctx.permute(x, order)
    return ctx.reshape(x, [sizes.product([shape[i] for i in g]) for g in groups]), outer


def _split(ctx: Context, x: relax.Expr, outer: list[str], want: Axes) -> relax.Expr:
    factors = {letter.upper(): factor for letter, factor in want if factor}
    if not factors:
        return ctx.permute(x, [outer.index(letter) for letter, _ in want])
    parts: list[str] = []
    shape = []
    for letter, size in zip(outer, shape_of(x), strict=True):
        parts.append(letter)
        if letter not in factors:
            shape.append(size)
            continue
        factor = factors[letter]
        if isinstance(size, int) and size % factor:
            raise RelayError(f"axis {letter} of {size} elements is no multiple of {factor}")
        parts.append(letter.lower())
        shape += [sizes.quotient(size, factor), factor]
    return ctx.permute(ctx.reshape(x, shape), [parts.index(letter) for letter, _ in want])
