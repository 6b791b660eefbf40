import pytest

from burnish.passes.configs import PruneConfig, QuantizeConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either sparsity or threshold"),
        ({"sparsity": 0.5, "threshold": 0.1}, "not both"),
        ({"sparsity": 1.5}, "sparsity must be from 0 to 1, got 1.5"),
        ({"sparsity": -0.1}, "sparsity must be from 0 to 1"),
        ({"sparsity": float("nan")}, "sparsity must be from 0 to 1"),
        ({"threshold": -1}, "threshold must be 0 or more"),
        ({"threshold": float("nan")}, "threshold must be 0 or more"),
        ({"sparsity": 0.5, "method": "random"}, "prune method 'random' is unknown"),
        ({"sparsity": 0.5, "pattern": "2:4"}, "prune pattern '2:4' is unknown"),
        ({"sparsity": 0.5, "scope": "layer"}, "prune scope 'layer' is unknown; known: tensor"),
    ],
)
def test_prune_config_refuses(fields, message):
    with pytest.raises(ValueError, match=message):
        PruneConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bits": 1}, "bits must be a whole number from 2 to 8, got 1"),
        ({"bits": 9}, "from 2 to 8"),
        ({"bits": 4.0}, "whole number"),
        ({"bits": True}, "whole number"),
        ({"mode": "static"}, "quantize mode 'static' is unknown"),
        ({"method": "gptq"}, "quantize method 'gptq' is unknown"),
        ({"granularity": "row"}, "quantize granularity 'row' is unknown"),
        ({"granularity": "group"}, "needs a group_size"),
        ({"group_size": 32}, "group_size=32 needs granularity='group'"),
        ({"granularity": "group", "group_size": 0}, "group_size must be 1 or more"),
        ({"max_drop": -1}, "max_drop must be 0 or more"),
    ],
)
def test_quantize_config_refuses(fields, message):
    with pytest.raises(ValueError, match=message):
        QuantizeConfig(**fields)


def test_one_pattern_may_be_a_string():
    assert PruneConfig(sparsity=0.5, include="a.*").include == ("a.*",)
    assert QuantizeConfig(exclude=["a", "b"]).exclude == ("a", "b")
