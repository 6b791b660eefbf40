"""The same pipeline on two local nodes of a Ray cluster, and by one command."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_nets import Mlp, made

import burnish
from burnish import cli
from burnish.compiler.bench.peaks import Peaks
from burnish.compiler.errors import ConfigError
from burnish.compiler.pipelines import costs
from burnish.compiler.pipelines.pipeline import PipelineError
from support import require

pytestmark = pytest.mark.heavy
ROWS = 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two nodes of one CPU each."""
    try:
        from ray.cluster_utils import Cluster
    except ImportError:
        require(False, "no Ray: pip install 'burnish[ray]'")
    found = Cluster()
    try:
        for _ in range(2):
            found.add_node(num_cpus=1, object_store_memory=80 << 20, include_dashboard=False)
        found.wait_for_nodes(60)
        yield found.address
    finally:
        found.shutdown()


@pytest.fixture
def few_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = lambda threads: Peaks(threads, 200.0, None, None, 40.0)  # noqa: E731
    monkeypatch.setattr(costs, "known_peaks", peaks)


@pytest.mark.usefixtures("few_peaks")
def test_two_nodes_equal_one_process_also_when_a_stage_dies(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # Ray's workers look for packages in their driver's folder first
    net = made(Mlp)
    batches = [torch.randn(rows, 20) for rows in (6, 1, 7, *[ROWS] * 30)]
    with burnish.pipeline(
        net, (batches[0],), ["cpu", "cpu@0"], 2, "threads", folder=tmp_path, costs="counted"
    ) as run:
        want = list(run.stream(batches))
    plan = json.loads((tmp_path / "pipeline.json").read_text())
    for stage in plan["stages"]:
        stage["device"] = {"name": "cpu@0", "cores": [0]}
    (tmp_path / "pipeline.json").write_text(json.dumps(plan))
    with burnish.load_pipeline(tmp_path, engine="ray", address=cluster, timeout_s=60) as run:
        assert len(set(run._run.nodes)) == 2
        found = []
        for number, got in enumerate(run.stream(batches)):
            if number == 4:
                os.kill(run.pids[1], signal.SIGKILL)
            found.append(got)
        assert len(found) == len(batches)
        for one, two in zip(found, want, strict=True):
            assert torch.equal(one, two)
        assert run.restarts == 1
        assert run.report.done == len(run.timeline.measured.spans) // 2 + 4
        pids = run.pids
    with pytest.raises(PipelineError, match="the pipeline is closed"):
        run(batches[0])
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    with pytest.raises(ConfigError, match="no Ray cluster at 'localhost:1'"):
        burnish.load_pipeline(tmp_path, engine="ray", address="localhost:1")


@pytest.mark.usefixtures("few_peaks")
def test_one_command(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    program = torch.export.export(made(Mlp), (torch.ones(ROWS, 20),))
    torch.export.save(program, "net.pt2")
    command = [
        "pipeline",
        "net.pt2",
        "--costs",
        "counted",
        "--devices",
        "cpu@0;cpu@0",
        "--engine",
        "ray",
        "--address",
    ]
    with pytest.raises(SystemExit) as left:
        cli.main([*command, cluster, "--batches", "6", "--check", "--json"])
    out, err = capfd.readouterr()
    assert left.value.code == 0, err
    data = json.loads(out)
    assert (data["engine"], data["batches"], data["restarts"]) == ("ray", 6, 0)
    assert data["parity"] < 1e-5
