"""Devices of another machine: a real server in a process of its own, on this one."""

from __future__ import annotations

import random
import threading
import time
from collections import deque

import numpy as np
import pytest
import torch
from remote_support import Server, folders
from small_nets import Block, made

import burnish
from burnish.compiler.errors import ArtifactError, ConfigError, TargetError
from burnish.compiler.parity import parity
from burnish.compiler.placement.links import measured_links
from burnish.compiler.remote.calls import DeviceLostError
from burnish.targets.hetero import parse_hetero
from burnish.targets.remote import allowed, session
from burnish.targets.remote.address import Address
from burnish.targets.remote.session import DeviceLost, Refused, Session, session_to
from opencl_support import require_device
from support import require_program


class Net(torch.nn.Module):
    """A convolution, two branches of it that join, and what is returned of both."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.left, self.right = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

    def forward(self, x):
        y = torch.relu(self.conv(x)).mean((2, 3))
        left, right = torch.tanh(self.left(y)), self.right(y)
        return {"sum": left + right, "right": right}


@pytest.fixture(scope="module")
def server():
    with Server() as found:
        yield found


@pytest.fixture(scope="module")
def compiled(server):
    net, x = made(Net), torch.randn(2, 3, 6, 5)
    placement = {"nn.conv2d": "cpu", "*": server.device()}
    target = f"hetero:cpu,{server.device()}"
    return net, x, burnish.compile(net, (x,), target=target, placement=placement, cache=False)


def test_a_part_there_gives_what_all_gives_here(server, compiled):
    net, x, model = compiled
    for _ in range(3):
        x = torch.randn(x.shape)
        assert parity(model(x), net(x)).rel <= 1e-5
    cut = next(row for row in model.report.rows if row.name == "PartitionGraph").details
    assert [one["device"] for one in cut["regions"]] == ["cpu", server.device()]
    moves = [(one["from"], one["to"], one["bytes"]) for one in cut["transfers"]]
    there, back = ("cpu:0", server.device()), (server.device(), "cpu:0")
    assert moves == [(*there, 2 * 8 * 6 * 5 * 4), (*back, 64), (*back, 64)]
    assert cut["weights"][server.device()] >= 4 * 2 * (64 + 8)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.heavy)])
def test_operators_here_and_there_in_any_order(server, seed):
    """Several regions there, with several inputs and outputs of other types, in one connection."""
    net = made(Block)
    inputs = (torch.randint(0, 50, (2, 7)), torch.ones(2, 7, dtype=torch.int64))
    drawn = random.Random(seed)
    names = ("matmul", "add", "nn.layer_norm", "take", "*")
    places = {name: drawn.choice(["cpu", server.device()]) for name in names}
    places["nn.gelu" if seed else "nn.attention*"] = server.device()
    places = {name: places[name] for name in sorted(places, key="*".__eq__)}
    target = f"hetero:cpu,{server.device()}"
    model = burnish.compile(net, inputs, target=target, placement=places, cache=False)
    assert parity(model(*inputs), net(*inputs)).rel <= 1e-4


def test_a_saved_model_goes_to_a_server_that_was_named(server, compiled, monkeypatch, tmp_path):
    net, x, model = compiled
    path = model.save(tmp_path / "net.burnish")
    assert parity(burnish.load(path)(x), net(x)).rel <= 1e-5  # the target was named above
    monkeypatch.setattr(allowed, "_named", set())
    told = rf"would run on {server.device()}: code, weights and inputs .*remotes=\[\"127.0.0.1:"
    with pytest.raises(ArtifactError, match=told):
        burnish.load(path)
    with pytest.raises(TargetError, match=told):
        model(x)
    with pytest.raises(ConfigError, match="no address of the form HOST:PORT"):
        burnish.load(path, remotes=["there"])
    assert parity(burnish.load(path, remotes=[str(server.address)])(x), net(x)).rel <= 1e-5
    monkeypatch.setattr(allowed, "_named", set())
    monkeypatch.setenv(allowed.VARIABLE, f"10.0.0.1:1,{server.address}")
    assert parity(burnish.load(path)(x), net(x)).rel <= 1e-5


def test_weights_that_are_not_the_models_are_not_sent(compiled):
    net, x, model = compiled
    session.disconnect(model.target.remote[0].address)
    name = next(name for name in model.params if name.startswith("remote"))
    good = model.params[name].numpy()
    try:
        model.params[name].copyfrom(np.where(np.arange(good.size) == 4000, good ^ 1, good))
        with pytest.raises(TargetError, match="not what the model was compiled with"):
            model(x)
    finally:
        model.params[name].copyfrom(good)
    assert parity(model(x), net(x)).rel <= 1e-5


def test_a_server_that_hangs_is_given_up_and_the_next_call_connects_anew(
    server, compiled, monkeypatch
):
    net, x, model = compiled
    model(x)
    before = server.sessions()
    for one in before:
        one.suspend()
    monkeypatch.setenv(session.LIMIT, "0.5")
    start = time.monotonic()
    with pytest.raises(DeviceLostError, match=r"lost at region1, running it: .*within 0.5 s") as e:
        model(x)
    assert time.monotonic() - start < 10
    assert server.device() in str(e.value)
    for one in before:
        one.resume()
    monkeypatch.delenv(session.LIMIT)
    assert parity(model(x), net(x)).rel <= 1e-5


def test_a_server_that_dies_in_a_call_ends_it_and_is_used_again_when_it_is_back(server, compiled):
    net, x, model = compiled
    model(x)
    killer = threading.Timer(0.2, server.kill)
    killer.start()
    calls = (model(x) for _ in range(1_000_000))
    try:
        with pytest.raises(DeviceLostError, match=r"region1, running it: .* has gone") as lost:
            deque(calls, maxlen=0)
        killer.join()
        with pytest.raises(DeviceLostError, match=r"no device server at 127.0.0.1.*serve-device"):
            model(x)
    finally:
        server.start()
    assert server.device() in str(lost.value)
    assert parity(model(x), net(x)).rel <= 1e-5


@pytest.mark.heavy
def test_a_server_that_is_ended_ends_its_connections_and_leaves_nothing(server, compiled):
    net, x, model = compiled
    model(x)
    sessions, before = server.sessions(), folders()
    assert sessions
    try:
        assert server.close() == 0
        assert not any(one.is_running() for one in sessions)
        assert len(folders()) == len(before) - 1
    finally:
        server.start()
    assert parity(model(x), net(x)).rel <= 1e-5


def test_no_server_and_one_that_says_nothing(monkeypatch):
    import socket

    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        port = mute.getsockname()[1]
        net, x = torch.nn.Linear(4, 3), torch.randn(2, 4)
        told = rf"no device server at 127.0.0.1:{port} .*`burnish serve-device --port {port}`"
        with pytest.raises(TargetError, match=told):
            burnish.compile(net, (x,), target=f"hetero:cpu,rpc://127.0.0.1:{port}/cpu")
        mute.listen(4)
        monkeypatch.setenv(session.LIMIT, "0.5")
        with pytest.raises(DeviceLost, match=r"no answer within 0.5 s"):
            session_to(Address("127.0.0.1", port))
        monkeypatch.setenv(session.LIMIT, "-1")
        with pytest.raises(ValueError, match="number of seconds above 0"):
            session.limit_s()


def test_tvms_own_server_is_told_apart():
    """It has no function of ours; here it serves from a thread of this process, which has none."""
    import socket
    import struct

    from tvm.rpc import _ffi_api, base

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        _, length = struct.unpack("<ii", base.recvall(connection, 8))
        base.recvall(connection, length)
        connection.sendall(struct.pack("<ii", base.RPC_CODE_SUCCESS, 7) + b"server:")
        _ffi_api.ServerLoop(connection.fileno())

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        with pytest.raises(DeviceLost, match=r"no device server of this version .*describe"):
            Session(Address(*listener.getsockname()))
        thread.join(10)


def test_what_a_server_refuses_leaves_the_connection(server):
    open_now = session_to(server.address)
    with pytest.raises(Refused, match="not sent"):
        open_now.call("open", "0" * 64, "cpu")
    with pytest.raises(Refused, match="known by its sha256"):
        open_now.exchange("put", "../../x", 0, content=b"abc", most=0)
    open_now.exchange("put", "0" * 64, 0, content=b"abc", most=0)
    with pytest.raises(Refused, match="part 5 of a file of 3 bytes"):
        open_now.exchange("put", "0" * 64, 5, content=b"abc", most=0)
    with pytest.raises(Refused, match="did not arrive as it was sent"):
        open_now.call("open", "0" * 64, "cpu")
    with pytest.raises(Refused, match="not loaded"):
        open_now.exchange("run", "0" * 64, content=b"", most=0)
    with pytest.raises(Refused, match="not loaded"):
        open_now.exchange("run", "0" * 64, content=bytes(1 << 20), most=0)
    with pytest.raises(Refused, match=r"it has no burnish\.device\.nothing"):
        open_now.call("nothing")
    assert session_to(server.address) is open_now
    for there, back in ((0, 3), (3, 5_000_000), (9_000_000, 2), (9_000_000, 9_000_000)):
        assert open_now.exchange("echo", back, content=bytes(there), most=back) == bytes(back)


def test_the_link_is_measured_once_for_a_server(server, tmp_path):
    target = parse_hetero(f"hetero:cpu,{server.device()}")
    links = measured_links(target, cache_dir=tmp_path)
    assert [(one.source, one.target) for one in links] == [
        ("cpu", server.device()),
        (server.device(), "cpu"),
    ]
    assert all(0 < one.latency_seconds < 1 and one.bytes_per_second > 1e5 for one in links)
    assert measured_links(target, cache_dir=tmp_path) == links


@pytest.mark.heavy
def test_a_memory_limit_here_sends_a_part_there(server, tmp_path, monkeypatch, short_timings):
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path))
    net = torch.nn.Sequential(*(torch.nn.Linear(128, 128) for _ in range(3))).eval()
    x = torch.randn(3, 128)
    model = burnish.compile(
        net,
        (x,),
        target=f"hetero:cpu,{server.device()}",
        placement={"lv2": "cpu", "*": "auto"},
        memory={"cpu": "100 KB"},
        cache=False,
    )
    assert parity(model(x), net(x)).rel <= 1e-5
    cut = next(row for row in model.report.rows if row.name == "PartitionGraph").details
    assert {one["device"] for one in cut["regions"]} == {"cpu", server.device()}
    said = cut["placement"]
    assert said["memory_bytes"]["cpu"] <= 100_000 < said["memory_bytes"][server.device()]
    assert said["candidates"][1]["algorithm"] == f"all on {server.device()}"


def test_weights_of_eight_bits_are_read_by_kernels_that_go_with_their_region(server):
    net = torch.nn.Sequential(torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, 8))
    net, x = net.eval(), torch.randn(3, 64)
    settings = {"quantize": "int8", "do_no_harm": False, "cache": False}
    alone = burnish.compile(net, (x,), **settings)
    placement = {"nn.relu": "cpu", "*": server.device()}
    target = f"hetero:cpu,{server.device()}"
    model = burnish.compile(net, (x,), target=target, placement=placement, **settings)
    assert parity(model(x), alone(x)).rel <= 1e-4


@pytest.mark.heavy
def test_code_for_another_machine_is_refused_there(server):
    require_program("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu")
    net, x = torch.nn.Sequential(torch.nn.ReLU()), torch.randn(2, 3)
    target = f"hetero:cpu,{server.device('cpu:cortex-a76')}"
    model = burnish.compile(net, (x,), target=target, placement={"*": target.split(",")[1]})
    with pytest.raises(TargetError, match=r"refuses region0 \(loading it\): it is for aarch64"):
        model(x)


@pytest.mark.heavy
def test_four_devices_two_of_them_there(server):
    require_device()
    net, x = made(Net), torch.randn(2, 3, 6, 5)
    one, two = server.device(), server.device("opencl:0")
    placement = {"nn.conv2d": "opencl:0", "matmul": two, "nn.relu": "cpu", "*": one}
    target = f"hetero:opencl:0,cpu,{one},{two}"
    model = burnish.compile(net, (x,), target=target, placement=placement, cache=False)
    for _ in range(3):
        x = torch.randn(x.shape)
        assert parity(model(x), net(x)).rel <= 1e-5
    cut = next(row for row in model.report.rows if row.name == "PartitionGraph").details
    assert {one["device"] for one in cut["regions"]} == set(target[len("hetero:") :].split(","))


@pytest.mark.heavy
def test_devices_of_a_target_are_listed_with_the_link(server, tmp_path):
    found = burnish.devices(f"hetero:cuda:63,{server.device()}", cache_dir=tmp_path)
    assert [one.name for one in found] == ["cuda:63", server.device()]
    assert found[0].reason == "there is none here"
    assert found[1].usable, found[1].reason
    assert found[1].gflops > 0
    assert found[1].latency_s > 0
    assert found[1].link_gbytes > 0
    missing = burnish.devices("rpc://127.0.0.1:1/cpu", cache_dir=tmp_path)[0]
    assert "no device server at 127.0.0.1:1" in missing.reason
    assert "serve-device" in missing.remedy


def test_an_interrupted_answer_is_not_the_next_calls(server, compiled, monkeypatch):
    """The rest of an answer that nobody read would be taken for the next one, of the same size."""
    open_now = session_to(server.address)

    def interrupted(own, size, limit=None):
        own.recv(5)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("burnish.targets.remote.session.receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_now.exchange("echo", 1 << 20, content=b"", most=1 << 20)
    assert not open_now.lives
    again = session_to(server.address)
    assert again is not open_now
    assert again.exchange("echo", 1 << 20, content=b"", most=1 << 20) == bytes(1 << 20)
    with pytest.raises(DeviceLost, match="returns 9 bytes where 8 were asked for"):
        again.exchange("echo", 9, content=b"", most=8)


def test_a_recipe_alone_names_no_server():
    config = burnish.CompileConfig(devices=["rpc://127.0.0.1:9/cpu", "cpu"])
    with pytest.raises(ConfigError, match=r"a recipe alone does not let .*BURNISH_REMOTES=127"):
        burnish.compile(torch.nn.ReLU(), (torch.ones(1),), config=config)


def test_a_device_that_a_server_has_not_is_told(server):
    (found,) = burnish.devices(f"rpc://{server.address}/gpu")
    assert "there is no gpu there" in found.reason
    assert "serve-device" not in found.remedy, "a server is there"
