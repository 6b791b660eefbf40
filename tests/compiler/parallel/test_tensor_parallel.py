"""Ranks as processes: the whole's results, what each holds, failures, and what is refused."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from small_nets import Mlp, made

import burnish
from burnish.compiler.errors import ArtifactError, ConfigError, InvalidInputError
from burnish.compiler.parallel.group import HALVES, Group, GroupError, LostRank, meshed
from burnish.models.llama import Llama, LlamaShape

DEVICES = ["cpu", "cpu"]
PARTS = 2


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    """SmolLM2's head numbers, small: 9 queries to 3 keys, a tied vocabulary."""
    torch.manual_seed(0)
    return Llama(LlamaShape(53, 36, 1, 9, 3, 30, 16)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def run(net: torch.nn.Module, folder: Path) -> Iterator[burnish.TensorParallel]:
    ids = torch.randint(0, 53, (1, 7))
    with burnish.tensor_parallel(
        net, (ids,), DEVICES, least=1, folder=folder, timeout_s=20
    ) as found:
        yield found


def test_equals_the_whole(run: burnish.TensorParallel, net: torch.nn.Module) -> None:
    for seed in range(3):
        ids = torch.randint(0, 53, (1, 7), generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            wanted = net(ids).numpy()
        np.testing.assert_allclose(run(ids), wanted, rtol=1e-5, atol=1e-5)


def test_report(run: burnish.TensorParallel, folder: Path) -> None:
    report = run.report
    assert report.devices == ("cpu", "cpu")
    assert all(share < 0.6 for share in report.shares)
    assert [one.kind for one in report.collectives] == ["all_reduce"] * 3 + ["all_gather"]
    assert "1 all_gather a call" in str(report)
    assert sorted(path.name for path in folder.iterdir()) == [
        "rank0.burnish",
        "rank1.burnish",
        "ranks.json",
    ]


def test_wrong_inputs_end_nothing(run: burnish.TensorParallel) -> None:
    with pytest.raises(InvalidInputError, match="input_ids"):
        run(torch.zeros(1, 8, dtype=torch.int64))
    assert run(torch.zeros(1, 7, dtype=torch.int64)).shape == (1, 7, 53)


def test_an_ended_rank_ends_all(run: burnish.TensorParallel, folder: Path) -> None:
    again = burnish.load_tensor_parallel(folder, 20)
    assert again.report == run.report
    pids = again.pids
    os.kill(pids[1], signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(GroupError, match="rank 1 on cpu died of SIGKILL"):
            again(torch.zeros(1, 7, dtype=torch.int64))
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_rank_that_hangs(run: burnish.TensorParallel, folder: Path) -> None:
    again = burnish.load_tensor_parallel(folder, 3)
    os.kill(again.pids[1], signal.SIGSTOP)
    with pytest.raises(GroupError, match=r"rank 0 waited 3 s for rank 1 at collective 0"):
        again(torch.zeros(1, 7, dtype=torch.int64))


def test_folders_that_are_none(run: burnish.TensorParallel, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no ranks in"):
        burnish.load_tensor_parallel(tmp_path)
    text = (folder / "ranks.json").read_text()
    (tmp_path / "ranks.json").write_text(text.replace('"threads"', '"thread"'))
    with pytest.raises(ArtifactError, match="is damaged"):
        burnish.load_tensor_parallel(tmp_path)
    (tmp_path / "ranks.json").write_text(text)
    with pytest.raises(GroupError, match=r"rank[01]\.burnish"):  # whichever rank is first
        burnish.load_tensor_parallel(tmp_path, 20)
    with pytest.raises(ConfigError, match="timeout_s must be more than 0"):
        burnish.load_tensor_parallel(folder, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"devices": ["cuda:0"]}, "run on CPU cores"),
        ({"quantize": "int8"}, "prune and quantize have no part in tensor parallel"),
        ({"threads": 2}, "a thread for each core"),
        ({"memory": {"cpu": "1 GB"}}, "its share of the weights whatever the limits"),
        ({"least": "x"}, "least must be a whole number of elements"),
        ({"timeout_s": None}, "timeout_s must be more than 0 and an end, got None"),
        ({"folder": "/dev/null"}, "File exists"),
        ({"target": "opencl"}, "ranks run on CPU cores"),
    ],
)
def test_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        burnish.tensor_parallel(made(Mlp), (torch.zeros(2, 20),), **fields)


def test_refuses_open_sizes() -> None:
    net, inputs = made(Mlp), (torch.zeros(2, 20),)
    imported = burnish.import_model(net, inputs, dynamic={"input": {0: "batch"}})
    with pytest.raises(ConfigError, match="open sizes"):
        burnish.tensor_parallel(imported, devices=DEVICES)


def groups(timeout_s: float = 5.0) -> list[Group]:
    memory = bytearray(HALVES * 4096)
    return [Group(r, row, memory, 4096, timeout_s) for r, row in enumerate(meshed(PARTS))]


def together(*works: object) -> list[BaseException | None]:
    """Each on a thread of its own; what each raised."""
    found: list[BaseException | None] = [None] * len(works)

    def work(at: int) -> None:
        try:
            works[at]()  # type: ignore[operator]
        except GroupError as error:
            found[at] = error

    threads = [threading.Thread(target=work, args=(at,)) for at in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def test_sums_again_and_again() -> None:
    """Memory is written again while another rank may still read: in halves, never in place."""
    ranks = groups()
    given = [[np.full(500, 10.0 * n + r, np.float32) for n in range(50)] for r in range(PARTS)]
    found: list[list[np.ndarray]] = [[], []]

    def work(rank: int) -> None:
        for number, array in enumerate(given[rank]):
            result = tvm.runtime.empty((500,), "float32")
            ranks[rank].all_reduce(tvm.runtime.tensor(array), number, result)
            found[rank].append(result.numpy())

    assert together(lambda: work(0), lambda: work(1)) == [None, None]
    for one, other, a, b in zip(*found, *given, strict=True):
        np.testing.assert_array_equal(one, a + b)
        np.testing.assert_array_equal(other, a + b)


def reduce(group: Group, number: int, size: int = 4) -> None:
    result = tvm.runtime.empty((size,), "float32")
    group.all_reduce(tvm.runtime.tensor(np.zeros(size, np.float32)), number, result)


def test_ranks_at_different_collectives() -> None:
    ranks = groups()
    for error in together(lambda: reduce(ranks[0], 3), lambda: reduce(ranks[1], 4)):
        assert "their artifacts were not made together" in str(error)


def test_waits_no_longer_than_it_may() -> None:
    ranks = groups(timeout_s=0.05)
    start = time.monotonic()
    with pytest.raises(GroupError, match=r"rank 0 waited 0\.05 s for rank 1 at collective 7"):
        reduce(ranks[0], 7)
    assert time.monotonic() - start < 5


def test_a_rank_that_left() -> None:
    ranks = groups()
    ranks[1].close()
    with pytest.raises(LostRank, match="rank 1 ended while rank 0 waited"):
        reduce(ranks[0], 0)


def test_more_than_the_memory() -> None:
    with pytest.raises(GroupError, match="a collective of 8000 bytes, and the memory has 4096"):
        reduce(groups()[0], 0, 1000)
