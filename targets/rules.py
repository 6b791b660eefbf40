"""Schedule rules of devices with work groups: tried in order, the first that applies wins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeVar

import tvm
from tvm import s_tir, tirx
from tvm.s_tir import dlight

from burnish.targets.divisors import with_positive_terms
from burnish.targets.names import with_c_names
from burnish.targets.unit_sums import without_unit_sums

RULE = "burnish.rule"
"""Function attribute: the rule that laid a kernel out."""
SCHEDULED = "tirx.is_scheduled"
T = TypeVar("T")
Rule: TypeAlias = Callable[[tirx.PrimFunc, T], tirx.PrimFunc | None]
_BREAKS = (
    RuntimeError,
    ValueError,
    AssertionError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    NotImplementedError,
)
"""What rules raise on kernels that they take for another form than they have."""


def dlight_rule(rule: dlight.base.ScheduleRule) -> Callable[..., tirx.PrimFunc | None]:
    """One of dlight's rules, which asks the target in scope for its limits."""

    def apply(func: tirx.PrimFunc, _target: object) -> tirx.PrimFunc | None:
        found = rule.apply(func, tvm.target.Target.current(), False)
        if isinstance(found, list):
            found = found[0] if found else None
        return found.mod["main"] if isinstance(found, s_tir.Schedule) else None

    return apply


def laid_out(
    func: tirx.PrimFunc,
    target: T,
    rules: Mapping[str, Rule[T]],
    fits: Callable[[tirx.PrimFunc, T], bool] = lambda _func, _target: True,
) -> tirx.PrimFunc:
    """``func`` as the first of ``rules`` lays it out whose result ``fits``; same parameters, by
    names that C has.

    A rule that does not apply, or breaks on an odd shape, gives way to the next one; the name of
    the rule is in the attribute ``RULE``. Call it with the target in scope. Raises ``ValueError``
    for a kernel that no rule lays out.
    """
    attrs = dict(func.attrs.items()) if func.attrs is not None else {}
    if SCHEDULED in attrs or "tirx.is_host_func" in attrs:
        return func
    func = with_c_names(func)
    func = func.with_body(with_positive_terms(without_unit_sums(func.body)))
    for name, rule in rules.items():
        try:
            found = rule(func, target)
            if found is not None and fits(found, target):
                return found.with_attr({**attrs, SCHEDULED: True, RULE: name})
        except _BREAKS:
            continue
    raise ValueError(f"no schedule rule lays out the kernel {attrs.get('global_symbol', '?')}")
