"""Whether an operator builds for a device is tried."""

from __future__ import annotations

import torch

from burnish.compiler.driver import import_model
from burnish.compiler.errors import BuildError
from burnish.compiler.placement import builds as tried
from burnish.passes.place import nodes
from burnish.targets.choose import choose_target


def test_operators_are_built_alone_once_for_each_form():
    target = choose_target("hetero:opencl:0,cpu")
    net = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)).eval()
    mod = import_model(net, (torch.randn(3, 6),), dynamic={"input": {0: "rows"}}).mod
    tried._tried.cache_clear()
    for node in nodes(mod):
        for place in target.places:
            assert tried.builds(node.value, place) == ""
    assert tried._tried.cache_info().misses == 4, "a product and a sum, on two devices"
    half = import_model(net.half(), (torch.randn(3, 6).half(),)).mod
    said = tried.builds(nodes(half)[0].value, target.places[0])
    assert said == "float16 needs cl_khr_fp16, which 'opencl' need not have"


def test_what_a_compiler_refuses_is_told_in_its_words(monkeypatch):
    def refused(*_args, **_named):
        raise BuildError("ptxas says no")

    monkeypatch.setattr(tried, "build_library", refused)
    mod = import_model(torch.nn.Linear(7, 7).eval(), (torch.randn(3, 7),)).mod
    place = choose_target("hetero:cpu").places[0]
    assert tried.builds(nodes(mod)[0].value, place) == "ptxas says no"
