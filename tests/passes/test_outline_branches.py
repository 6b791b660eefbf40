"""Branches of ``If`` as functions, so that memory is planned for each."""

from __future__ import annotations

import numpy as np
import tvm
import tvm_ffi
from kernel_support import Built, lowered
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from burnish.passes.outline_branches import OutlineBranches
from relax_support import apply, random_params


@I.ir_module
class Branching:
    @R.function
    def main(
        c: R.Tensor((), "bool"), x: R.Tensor((4, 8), "float32"), w: R.Tensor((8, 8), "float32")
    ) -> R.Tensor((4, 8), "float32"):
        h = R.matmul(x, w)
        if c:
            a = R.nn.relu(h)
            b = R.add(a, x)
            out = R.matmul(b, w)
        else:
            e = R.exp(h)
            f = R.add(e, e)
            out = R.multiply(f, x)
        return out


def branches(mod: tvm.IRModule) -> list[relax.If]:
    found: list[relax.If] = []
    relax.analysis.post_order_visit(
        mod["main"], lambda e: found.append(e) if isinstance(e, relax.If) else None
    )
    return found


def test_each_branch_is_a_call_of_a_private_function():
    mod = random_params(Branching, inputs=2)
    after = apply(OutlineBranches(), mod)
    functions = {v.name_hint: f for v, f in after.functions.items() if v.name_hint != "main"}
    assert len(functions) == 2
    for name, function in functions.items():
        assert name.startswith("branch")
        assert function.attrs is None or "global_symbol" not in function.attrs
        assert not list(relax.analysis.free_vars(function))
    (branch,) = branches(after)
    for side in (branch.true_branch, branch.false_branch):
        (binding,) = side.blocks[0].bindings
        assert isinstance(binding.value.op, tvm.ir.GlobalVar)


def test_each_branch_computes_as_before():
    mod = random_params(Branching, inputs=2)
    x = np.random.default_rng(0).standard_normal((4, 8)).astype("float32")
    w = mod.attrs["params"]["w"].numpy()
    built = Built(lowered(mod))
    yes, no = (built(np.array(c), x)[0] for c in (True, False))
    h = x.astype("float64") @ w
    np.testing.assert_allclose(yes, (np.maximum(h, 0) + x) @ w, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(no, 2 * np.exp(h) * x, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(built(np.array(True), x)[0], yes)


def test_a_module_without_branches_is_as_it_was():
    @I.ir_module
    class Plain:
        @R.function
        def main(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
            with R.dataflow():
                out = R.exp(x)
                R.output(out)
            return out

    mod = random_params(Plain)
    assert tvm_ffi.structural_equal(apply(OutlineBranches(), mod)["main"], mod["main"])
