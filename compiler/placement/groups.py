"""What is placed as one: a contraction with what is computed of it until the next.

Finer cuts would part what one kernel does. A group is convex: no path between two of its
operators leaves it, so that it can run as one region.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import tvm
import tvm_ffi
from tvm import relax
from tvm.relax import transform as T

from burnish.passes.graph import op_name
from burnish.passes.params import NUM_INPUT, get_params, input_vars, with_params

LARGEST = 24
"""Operators of a group at the most: a model of nothing but cheap ones is cut too."""
_ANCHORS = ("matmul", "conv", "attention", "einsum", "recurrence", "lstm", "gru", "rnn")


@dataclass(frozen=True)
class Group:
    """``bindings`` in program order; ``inputs`` they read, ``outputs`` that are read outside.

    ``inputs`` are run-time values, ``weights`` parameters of the model by name.
    """

    bindings: tuple[relax.VarBinding, ...]
    inputs: tuple[relax.Var, ...]
    weights: tuple[relax.Var, ...]
    outputs: tuple[relax.Var, ...]

    @property
    def name(self) -> str:
        """The name of its last variable."""
        return str(self.bindings[-1].var.name)

    @property
    def operators(self) -> tuple[str, ...]:
        """Names of its operators, without ``relax.``."""
        names = (op_name(binding.value).removeprefix("relax.") for binding in self.bindings)
        return tuple(name for name in names if name)


def groups_of(
    mod: tvm.IRModule, *, branches: bool = False, pins: Mapping[str, str] | None = None
) -> tuple[Group, ...]:
    """The groups of ``main``, in an order in which each follows what it reads.

    With ``branches``, for devices that work at the same time, what joins branches goes with none
    of them: that one would wait for the others. ``pins`` has the device of operators that are
    placed already, by the names of their variables: such a one goes with none that is not placed
    there too. Raises ``ValueError`` for a ``main`` that is no
    single dataflow block (one with ``If``).
    """
    main = mod["main"]
    blocks = main.body.blocks
    if len(blocks) != 1 or not isinstance(blocks[0], relax.DataflowBlock):
        raise ValueError(
            "main has branches or is not one dataflow block: what runs is known only at run time, "
            "so that it is not cut"
        )
    settled = _of_weights(mod, blocks[0].bindings)
    pinned = pins or {}
    sides: list[str] = []
    made: list[list[relax.VarBinding]] = []
    home: dict[relax.Var, int] = {}
    above: dict[relax.Var, int] = {}  # the groups that a value needs, a bit each
    for binding in blocks[0].bindings:
        if binding.var in settled:
            continue
        read = [v for v in relax.analysis.free_vars(binding.value) if v in home]
        side = _side(binding, read, home, sides, pinned)
        chosen = _joined(
            binding, [v for v in read if sides[home[v]] == side], read, made, home, above
        )
        if branches and chosen is not None and _waits(chosen, read, made, home, above):
            chosen = None
        if chosen is None:
            chosen = len(made)
            made.append([])
            sides.append(side)
        made[chosen].append(binding)
        home[binding.var] = chosen
        needed = 0
        for var in read:
            needed |= above[var] | (1 << home[var])
        needed &= ~(1 << chosen)
        above[binding.var] = needed
        if needed:  # what one of a group needs, all of it needs: it runs as one
            for var, bits in above.items():
                if home[var] == chosen or bits >> chosen & 1:
                    above[var] = bits | needed
    return tuple(_described(mod, [_with_weights(part, settled) for part in made]))


def _of_weights(
    mod: tvm.IRModule, bindings: Sequence[relax.VarBinding]
) -> dict[relax.Var, relax.VarBinding]:
    """What is computed of weights alone (a transposed weight): each group has its own."""
    known = set(mod["main"].params) - set(input_vars(mod))
    returned = set(relax.analysis.free_vars(mod["main"].body.body))
    found: dict[relax.Var, relax.VarBinding] = {}
    for binding in bindings:
        read = relax.analysis.free_vars(binding.value)
        if read and binding.var not in returned and all(v in known or v in found for v in read):
            found[binding.var] = binding
    return found


def _with_weights(
    part: Sequence[relax.VarBinding], settled: Mapping[relax.Var, relax.VarBinding]
) -> list[relax.VarBinding]:
    """The group with all that it reads of weights before it."""
    needed: dict[relax.Var, relax.VarBinding] = {}

    def need(value: relax.Expr) -> None:
        for var in relax.analysis.free_vars(value):
            if var in settled and var not in needed:
                need(settled[var].value)
                needed[var] = settled[var]

    for binding in part:
        need(binding.value)
    return [*needed.values(), *part]


def _side(
    binding: relax.VarBinding,
    read: Sequence[relax.Var],
    home: Mapping[relax.Var, int],
    sides: Sequence[str],
    pins: Mapping[str, str],
) -> str:
    """The device that a binding is placed on; a field of a tuple is where the tuple is."""
    if isinstance(binding.value, relax.Call | relax.If) or not read:
        return pins.get(str(binding.var.name), "")
    return sides[home[read[-1]]]


def _joined(
    binding: relax.VarBinding,
    candidates: Sequence[relax.Var],
    read: Sequence[relax.Var],
    made: Sequence[Sequence[relax.VarBinding]],
    home: Mapping[relax.Var, int],
    above: Mapping[relax.Var, int],
) -> int | None:
    """The group of the last of ``candidates`` that it may join; None for a group of its own."""
    name = op_name(binding.value).removeprefix("relax.")
    if any(anchor in name for anchor in _ANCHORS) or not read:
        return None
    for chosen in sorted({home[var] for var in candidates}, reverse=True):
        outside = [var for var in read if home[var] != chosen]
        if len(made[chosen]) < LARGEST and not any(above[v] >> chosen & 1 for v in outside):
            return chosen
    return None


def _waits(
    chosen: int,
    read: Sequence[relax.Var],
    made: Sequence[Sequence[relax.VarBinding]],
    home: Mapping[relax.Var, int],
    above: Mapping[relax.Var, int],
) -> bool:
    """Whether a group would need a group that it did not need, with what reads ``read``."""
    known = 1 << chosen
    for binding in made[chosen]:
        known |= above[binding.var]
    return any((above[var] | 1 << home[var]) & ~known for var in read)


def _described(mod: tvm.IRModule, made: Sequence[Sequence[relax.VarBinding]]) -> Iterator[Group]:
    main = mod["main"]
    runtime = set(input_vars(mod))
    weights = set(main.params) - runtime
    home = {binding.var: at for at, part in enumerate(made) for binding in part}
    own = [{binding.var for binding in part} for part in made]
    read_outside = set(relax.analysis.free_vars(main.body.body))
    reads: list[list[relax.Var]] = []
    for at, part in enumerate(made):
        read = dict.fromkeys(v for b in part for v in relax.analysis.free_vars(b.value))
        reads.append([var for var in read if var not in own[at]])
        read_outside.update(reads[-1])
    for at in _ordered(made, reads, home):
        yield Group(
            tuple(made[at]),
            tuple(v for v in reads[at] if v not in weights),
            tuple(v for v in reads[at] if v in weights),
            tuple(b.var for b in made[at] if b.var in read_outside),
        )


def _ordered(
    made: Sequence[Sequence[relax.VarBinding]],
    reads: Sequence[Sequence[relax.Var]],
    home: Mapping[relax.Var, int],
) -> list[int]:
    """Groups after what they read, each as soon as its last operator allows."""
    left = dict.fromkeys(range(len(made)))
    needs = [{home[v] for v in read if v in home} for read in reads]
    done: list[int] = []
    while left:
        ready = next(at for at in left if not needs[at] & left.keys())
        del left[ready]
        done.append(ready)
    return done


def group_module(mod: tvm.IRModule, group: Group, *, channels_last: bool = False) -> tvm.IRModule:
    """A group as a module of its own, with its weights only.

    With ``channels_last``, images (four axes) come and go with their channels last, as they do
    inside a model that is lowered so.
    """
    turned = channels_last and any("conv" in name for name in group.operators)
    params, before, after, results = [], [], [], []
    for var in (*group.inputs, *group.weights):
        last = turned and var in group.inputs and _image(var)
        kind = _turned(var.ty, (0, 2, 3, 1)) if last else var.ty
        param = relax.Var(str(var.name), kind)
        params.append(param)
        value = relax.op.permute_dims(param, [0, 3, 1, 2]) if last else param
        before.append(relax.VarBinding(_inside(var), value))
    for var in group.outputs:
        last = turned and _image(var)
        value = relax.op.permute_dims(var, [0, 2, 3, 1]) if last else var
        kind = _turned(var.ty, (0, 2, 3, 1)) if last else var.ty
        results.append(relax.Var(f"{var.name}_out", kind))
        after.append(relax.VarBinding(results[-1], value))
    given = (*group.inputs, *group.weights)
    renamed = dict(zip(given, (binding.var for binding in before), strict=True))
    body = [
        relax.VarBinding(b.var, _substituted(b.value, renamed)) for b in (*group.bindings, *after)
    ]
    out = results[0] if len(results) == 1 else relax.Tuple(results)
    block = relax.DataflowBlock([*before, *body])
    returned = results[0].ty if len(results) == 1 else tvm.ir.TupleType([r.ty for r in results])
    attrs = tvm.ir.make_node("ir.DictAttrs", global_symbol="main", **{NUM_INPUT: len(group.inputs)})
    func = relax.Function(params, relax.SeqExpr([block], out), returned, attrs=attrs)
    functions = {var: f for var, f in mod.functions.items() if var.name_hint != "main"}
    functions[tvm.ir.GlobalVar("main")] = func
    whole = tvm.IRModule(functions)
    for step in (T.Normalize(), T.CanonicalizeBindings(), T.DeadCodeElimination()):
        whole = step(whole)
    values = get_params(mod)
    return with_params(whole, {str(v.name): values[str(v.name)] for v in group.weights})


def _image(var: relax.Var) -> bool:
    return isinstance(var.ty, relax.TensorType) and int(var.ty.ndim) == 4


def _turned(kind: relax.TensorType, axes: Sequence[int]) -> relax.TensorType:
    return relax.TensorType([kind.shape[axis] for axis in axes], kind.dtype)


def _inside(var: relax.Var) -> relax.Var:
    return relax.DataflowVar(str(var.name), var.ty)


def _substituted(value: relax.Expr, renamed: Mapping[relax.Var, relax.Var]) -> relax.Expr:
    from tvm.relax.expr_functor import PyExprMutator, mutator

    @mutator
    class Rename(PyExprMutator):
        def visit_var_(self, var: relax.Var) -> relax.Expr:
            return renamed.get(var, var)

        def visit_dataflow_var_(self, var: relax.Var) -> relax.Expr:
            return renamed.get(var, var)

    return Rename().visit_expr(value)


def group_key(mod: tvm.IRModule) -> int:
    """Equal for groups that compute the same, whatever their weights and names."""
    return int(tvm_ffi.structural_hash(mod["main"], map_free_vars=True))
