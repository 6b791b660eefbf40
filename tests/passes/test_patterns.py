import pytest

from burnish.passes.patterns import select, select_eligible

NAMES = ["layers.0.weight", "layers.0.bias", "layers.1.weight", "head.weight", "onnx::MatMul_[3]"]


def test_include_then_exclude_keeps_the_order_of_names():
    assert select(NAMES, ("head.*", "layers.*.weight"), ("layers.1.*",)) == [
        "layers.0.weight",
        "head.weight",
    ]
    assert select(NAMES) == NAMES
    assert select([], ("*",)) == []


def test_a_name_with_brackets_matches_itself():
    assert select(NAMES, ("onnx::MatMul_[3]",)) == ["onnx::MatMul_[3]"]


@pytest.mark.parametrize("role", ["include", "exclude"])
def test_a_pattern_that_matches_nothing_lists_near_names(role):
    with pytest.raises(ValueError, match=rf"{role} pattern 'layers.0.wieght' .*'layers.0.weight'"):
        select(NAMES, **{role: ("layers.0.wieght",)})


def test_without_near_names_the_first_are_listed():
    with pytest.raises(ValueError, match=r"'zzz\*' matches no weight; the 5 names start with 'lay"):
        select(NAMES, ("zzz*",))
    with pytest.raises(ValueError, match=r"'x' matches no weight; the module has none"):
        select([], ("x",))


def test_matching_is_case_sensitive():
    with pytest.raises(ValueError, match=r"'HEAD\.\*' matches no weight"):
        select(NAMES, ("HEAD.*",))


def test_a_wildcard_passes_over_what_is_not_eligible_and_a_full_name_does_not():
    fit = ["layers.0.weight", "head.weight"]
    assert select_eligible(NAMES, fit, ("*",), (), verb="prune") == fit
    assert select_eligible(NAMES, fit, ("*", "layers.0.bias"), ("head*",), verb="prune") == [
        "layers.0.weight",
        "layers.0.bias",
    ]


def test_a_wildcard_with_nothing_eligible_is_refused():
    with pytest.raises(ValueError, match=r"'\*\.bias' matches nothing that a wildcard may prune"):
        select_eligible(NAMES, ["head.weight"], ("*.bias",), (), verb="prune")
