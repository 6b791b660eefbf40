"""Branches of ``If`` as functions, so that memory is planned for each."""

from __future__ import annotations

import numpy as np
import tvm
import tvm_ffi
from kernel_support import Built, lowered
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

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


@I.ir_module
class Nested:
    """A branch in a branch, which reads a size that none of its tensors tells."""

    @R.function
    def main(
        c: R.Tensor((), "bool"), d: R.Tensor((), "bool"), x: R.Tensor(("n", 4), "float32")
    ) -> R.Tensor(("n", 4), "float32"):
        n = T.int64()
        if c:
            if d:
                a = R.ones(R.shape([n, 4]), "float32")
                inner = R.add(a, a)
            else:
                b = R.exp(x)
                inner = R.multiply(b, x)
            e = R.negative(inner)
            out = R.add(e, x)
        else:
            f = R.zeros(R.shape([n, 4]), "float32")
            out = R.subtract(f, x)
        return out


def test_branches_in_branches_and_sizes_that_no_tensor_tells():
    mod = random_params(Nested, inputs=3)
    after = apply(OutlineBranches(), mod)
    outlined = [f for f in after.functions.values() if isinstance(f, relax.Function)]
    assert len(outlined) == 5
    for function in outlined:
        assert not list(relax.analysis.free_symbolic_vars(function))
    built = Built(lowered(mod))
    for rows in (1, 5):
        x = np.random.default_rng(rows).standard_normal((rows, 4)).astype("float32")
        for d, inner in ((True, 2 * np.ones_like(x)), (False, np.exp(x) * x)):
            (got,) = built(np.array(True), np.array(d), x)
            np.testing.assert_allclose(got, x - inner, rtol=1e-5)
        np.testing.assert_array_equal(built(np.array(False), np.array(True), x)[0], -x)
