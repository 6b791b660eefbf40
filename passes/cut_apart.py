"""Regions of devices that work at the same time: cut so that none waits for what it need not."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import relax

from burnish.passes.regions import Label

BETWEEN = "#"
"""In a label: what follows the device."""


def apart(bindings: Sequence[relax.Binding], label: Label) -> Label:
    """``label`` with a number behind it, the same for bindings that may wait for each other.

    A region starts when all that it reads is there, and gives nothing before its end. So two
    bindings of one device are in one region only where they follow from the same operators of
    other devices, and the same operators of other devices follow from them.
    """
    own = [label(binding) for binding in bindings]
    place = {binding.var: at for at, binding in enumerate(bindings)}
    reads = [
        [place[var] for var in relax.analysis.free_vars(binding.value) if var in place]
        for binding in bindings
    ]
    masks: dict[str, int] = {}
    for at, device in enumerate(own):
        if device is not None:
            masks[device] = masks.get(device, 0) | 1 << at
    labelled = sum(masks.values())
    above = [0] * len(bindings)
    below = [0] * len(bindings)
    for at, read in enumerate(reads):
        for one in read:
            above[at] |= above[one] | 1 << one
    for at in reversed(range(len(bindings))):
        for one in reads[at]:
            below[one] |= below[at] | 1 << at
    numbers: dict[tuple[str, int, int], int] = {}
    found: dict[relax.Var, str | None] = {}
    for at, (binding, device) in enumerate(zip(bindings, own, strict=True)):
        if device is None:
            found[binding.var] = None
            continue
        value = binding.value
        if isinstance(value, relax.TupleGetItem) and found.get(value.tuple_value):
            found[binding.var] = found[value.tuple_value]  # what crosses is tensors
            continue
        others = labelled & ~masks[device]
        key = (device, above[at] & others, below[at] & others)
        number = numbers.setdefault(key, len(numbers))
        found[binding.var] = f"{device}{BETWEEN}{number}"
    return lambda binding: found[binding.var]


__all__ = ["BETWEEN", "apart"]
