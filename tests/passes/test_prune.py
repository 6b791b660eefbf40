import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

from burnish.passes.configs import PruneConfig
from burnish.passes.params import get_params, with_params
from burnish.passes.prune import PruneWeights, prunable, prune_report
from relax_support import apply, random_params, run


@I.ir_module
class Net:
    @R.function
    def main(
        i: R.Tensor((2,), "int64"),
        table: R.Tensor((9, 4), "float32"),
        norm: R.Tensor((4,), "float32"),
        w: R.Tensor((6, 4), "float32"),
        bias: R.Tensor((6,), "float32"),
        square: R.Tensor((2, 6), "float32"),
        ids: R.Tensor((3, 3), "int64"),
    ) -> R.Tensor((2, 6), "float32"):
        with R.dataflow():
            e = R.take(table, i, axis=0)
            n = R.multiply(e, norm)
            t = R.permute_dims(w)
            y = R.add(R.matmul(n, t), bias)
            out = R.add(y, square)
            R.output(out)
        return out


@pytest.fixture
def net():
    return random_params(Net)


def test_a_wildcard_prunes_what_matmul_convolution_and_take_read(net):
    assert prunable(net) == ["table", "w"]
    after = apply(PruneWeights(PruneConfig(sparsity=0.5)), net)
    old, new = get_params(net), get_params(after)
    assert {n for n in old if (old[n].numpy() != new[n].numpy()).any()} == {"table", "w"}
    assert np.count_nonzero(new["table"].numpy() == 0) == 18
    assert np.count_nonzero(new["w"].numpy() == 0) == 12


def test_the_graph_stays_and_the_result_is_that_of_the_masked_weights(net):
    after = apply(PruneWeights(PruneConfig(threshold=0.5)), net)
    assert after["main"].same_as(net["main"])
    values = {k: v.numpy() for k, v in get_params(net).items()}
    for name in ("table", "w"):
        values[name] = values[name] * (np.abs(values[name]) > 0.5)
    ids = np.array([1, 7])
    want = (values["table"][ids] * values["norm"]).astype(np.float64) @ values["w"].T.astype(float)
    np.testing.assert_allclose(
        run(after, ids)[0], want + values["bias"] + values["square"], rtol=1e-5, atol=1e-5
    )


def test_pruning_twice_by_threshold_is_pruning_once(net):
    once = apply(PruneWeights(PruneConfig(threshold=0.7)), net)
    twice = apply(PruneWeights(PruneConfig(threshold=0.7)), once)
    for name, value in get_params(once).items():
        np.testing.assert_array_equal(value.numpy(), get_params(twice)[name].numpy())


def test_over_the_model_one_threshold_serves_all(net):
    scaled = {k: v.numpy() for k, v in get_params(net).items()}
    scaled["table"] = scaled["table"] * 1000
    after = apply(PruneWeights(PruneConfig(sparsity=0.4, scope="model")), with_params(net, scaled))
    values = get_params(after)
    assert not (values["table"].numpy() == 0).any()
    assert not values["w"].numpy().any()


def test_patterns_choose_and_a_full_name_reaches_a_bias(net):
    config = PruneConfig(sparsity=1.0, include=("w", "bias"))
    values = get_params(apply(PruneWeights(config), net))
    assert not values["w"].numpy().any()
    assert not values["bias"].numpy().any()
    assert values["table"].numpy().all()
    values = get_params(apply(PruneWeights(PruneConfig(sparsity=1.0, exclude=("tab*",))), net))
    assert values["table"].numpy().all()


def test_reports(net):
    prune = PruneWeights(PruneConfig(sparsity=0.5, include=("w",)))
    (row,) = prune.report(net).rows
    assert (row.name, row.shape, row.zeros, row.sparsity_after) == ("w", (6, 4), 12, 0.5)
    rows = prune_report(net, apply(prune, net)).rows
    assert [(r.name, r.zeros) for r in rows] == [("table", 0), ("w", 12)]
    assert rows[1].theta == row.theta == np.sort(np.abs(get_params(net)["w"].numpy()).ravel())[11]


def test_an_unknown_name_is_refused_with_near_names(net):
    with pytest.raises(ValueError, match=r"'tabel' matches no weight; near names: 'table'"):
        PruneWeights(PruneConfig(sparsity=0.5, include=("tabel",)))(net)


def test_an_integer_weight_named_in_full_is_refused(net):
    with pytest.raises(ValueError, match=r"weight 'ids' \[3, 3\] is int64, and only floating"):
        PruneWeights(PruneConfig(sparsity=0.5, include=("ids",)))(net)


def test_nan_is_refused_by_name(net):
    values = {k: v.numpy().copy() for k, v in get_params(net).items()}
    values["w"][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"weight 'w' \[6, 4\] holds NaN"):
        PruneWeights(PruneConfig(sparsity=0.5))(with_params(net, values))
