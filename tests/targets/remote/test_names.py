"""Names of remote devices, and what code is made for on them; no server is asked."""

from __future__ import annotations

import json

import pytest
import torch

from burnish.compiler.driver import import_model
from burnish.compiler.placed import supports
from burnish.passes.place import nodes
from burnish.targets.choose import choose_target, described_target
from burnish.targets.described import described
from burnish.targets.hetero import HOST, parse_hetero
from burnish.targets.remote import allowed
from burnish.targets.remote.address import Address, parse_address, parse_remote
from burnish.targets.remote.machine import Machine, this_machine
from burnish.targets.target import host

ARM = "rpc://10.0.0.2:9090/cpu:cortex-a76"


def test_names_are_read():
    assert parse_remote("rpc://10.0.0.2:9090/cpu") == (Address("10.0.0.2", 9090), "cpu")
    assert parse_remote("rpc://[::1]:1/opencl:0") == (Address("::1", 1), "opencl:0")
    assert str(Address("::1", 1)) == "[::1]:1"
    assert parse_address("a.b:7") == parse_address("rpc://a.b:7/cpu") == Address("a.b", 7)
    assert Address("127.0.0.1", 7).start == "burnish serve-device --port 7"
    assert Address("10.0.0.2", 7).start == "burnish serve-device --host 10.0.0.2 --port 7"


@pytest.mark.parametrize(
    "name",
    ["rpc://10.0.0.2/cpu", "rpc://a:0/cpu", "rpc://a:65536/cpu", "rpc://a b:1/cpu", "rpc://"],
)
def test_other_forms_are_refused(name):
    with pytest.raises(ValueError, match="not of the form rpc://HOST:PORT"):
        parse_hetero(f"hetero:cpu,{name}")


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("cuda:0", "a server has cpu, cpu:CPU and opencl:0"),
        ("opencl:1", "a server has one, opencl:0"),
        ("opencl:mail", "did you mean opencl:mali"),
        ("cpu:cortex-z", "LLVM knows no CPU 'cortex-z' of x86_64 or aarch64"),
    ],
)
def test_devices_that_no_server_has_are_refused(device, told):
    with pytest.raises(ValueError, match=told):
        parse_hetero(f"hetero:cpu,rpc://10.0.0.2:9090/{device}")


def test_one_alone_is_told_how_to_be_named():
    with pytest.raises(ValueError, match=r'say target="hetero:rpc://a:1/cpu,cpu"'):
        choose_target("rpc://a:1/cpu")


def test_a_cpu_that_is_named_is_taken_for_its_architecture_and_kept_apart_from_the_host():
    target = parse_hetero(f"hetero:{ARM},cpu")
    there, here = target.places
    assert (there.runs.machine, there.runs.mcpu) == ("aarch64", "cortex-a76")
    assert there.target == here.target == target.host
    assert (there.memory, [one.name for one in target.memories]) == (HOST, ["cpu"])
    assert target.isa() == here.target.isa()
    assert target.remote == (there,)
    assert not target.why_not_here()
    assert described_target(described(target)) == target


def test_reading_a_target_allows_no_connection_and_naming_one_does(monkeypatch):
    target = parse_hetero(f"hetero:cpu,{ARM}")
    monkeypatch.setattr(allowed, "_named", set())
    assert described_target(described(target)).remote
    assert not allowed.is_allowed(target.remote[0].address)
    choose_target(f"hetero:cpu,{ARM}")
    assert allowed.is_allowed(target.remote[0].address)
    assert allowed.environment() == {allowed.VARIABLE: "10.0.0.2:9090"}
    monkeypatch.setenv(allowed.VARIABLE, "nothing")
    with pytest.raises(ValueError, match=rf"{allowed.VARIABLE}: 'nothing' is no address"):
        allowed.is_allowed(Address("a", 1))


@pytest.mark.parametrize("change", [{"there": None}, {"backend": ""}, {"there": {"kind": "tpu"}}])
def test_a_described_target_that_is_half_remote_is_refused(change):
    target = described(parse_hetero(f"hetero:cpu,{ARM}"))
    fields = {**json.loads(target["described"][1]), **change}
    target["described"] = (target["described"][0], json.dumps(fields))
    with pytest.raises(ValueError, match=r"half of another machine|of no known kind"):
        described_target(target)


def test_a_machine_is_described_and_read_back():
    own = this_machine("a CPU", "a CPU, 2 cores", 1 << 30)
    assert Machine.from_json(own.to_json()) == own
    assert own.target() == host()
    said = json.loads(own.to_json())
    other = Machine.from_json(json.dumps({**said, "architecture": "aarch64"}))
    here = host().machine
    assert other.target().mtriple == (None if here == "aarch64" else "aarch64-linux-gnu")
    for wrong in ("[]", "{}", "x", json.dumps({**said, "architecture": "riscv64"})):
        with pytest.raises(ValueError, match="describes"):
            Machine.from_json(wrong)


def test_what_is_not_sent_is_told_with_the_reason():
    class Net(torch.nn.Module):
        def forward(self, x):
            return torch.relu(x), x.double() + 1

    batch = torch.export.Dim("batch")
    open_sizes = import_model(Net().eval(), (torch.randn(2, 3),), dynamic={"x": {0: batch}})
    known = import_model(Net().eval(), (torch.randn(2, 3),))
    able = supports(parse_hetero(f"hetero:cpu,{ARM},rpc://a:1/opencl:0"))

    def reasons(imported, device):
        return {one.operator: able[device].why_not(one.value) for one in nodes(imported.mod)}

    assert "sizes are open" in reasons(open_sizes, ARM)["relax.nn.relu"]
    found = reasons(known, ARM)
    assert not found["relax.nn.relu"]
    assert not found["relax.add"]
    assert "float64 is not of every OpenCL" in reasons(known, "rpc://a:1/opencl:0")["relax.add"]
