"""Operators that draw: numbers are new at each call. They are not torch's for the same seed."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from torch import fx
from tvm import relax

from burnish.compiler.importers.pytorch.arguments import arguments
from burnish.passes import draws

if TYPE_CHECKING:
    from burnish.compiler.importers.pytorch.converters.kinds import Converter
    from burnish.compiler.importers.pytorch.translator import Translator

op = relax.op


def drawn(kind: str) -> Converter:
    """A tensor of ``kind``, "uniform" from 0 to 1 or "normal", in the shape that torch recorded."""

    def convert(node: fx.Node, t: Translator) -> relax.Expr:
        return _cast(_draw(node, t, kind), t.result_dtype(node), t)

    return convert


def bernoulli(node: fx.Node, t: Translator) -> relax.Expr:
    """1 with the chance that the tensor, or ``p``, says, else 0."""
    given = arguments(node, t)
    chance = given["p"] if "p" in given and given["p"] is not None else given["self"]
    drawn = _draw(node, t, "uniform")
    if not isinstance(chance, relax.Expr):
        chance = relax.const(float(chance), "float32")
    below = t.emit(op.less(drawn, _cast(chance, "float32", t)))
    return op.astype(below, t.result_dtype(node))


def _draw(node: fx.Node, t: Translator, kind: str) -> relax.Expr:
    key = t.emit(draws.key_of(uuid.uuid4().int & (2**63 - 1), None))
    room = t.emit(op.zeros(relax.ShapeExpr(t.result_shape(node)), "float32"))
    return t.emit(draws.draw(t.block_builder, key, room, kind))


def _cast(value: relax.Expr, dtype: str, t: Translator) -> relax.Expr:
    return value if str(value.ty.dtype) == dtype else t.emit(op.astype(value, dtype))


DRAWS: dict[str, Converter] = {
    **dict.fromkeys(("rand.default", "rand_like.default"), drawn("uniform")),
    **dict.fromkeys(("randn.default", "randn_like.default"), drawn("normal")),
    **dict.fromkeys(("bernoulli.default", "bernoulli.p"), bernoulli),
}
