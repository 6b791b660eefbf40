"""Two stages as threads and as processes: results, order, failures, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small_nets import Mlp, made

import burnish
from burnish.compiler.bench.peaks import Peaks
from burnish.compiler.errors import BurnishError, ConfigError, InvalidInputError
from burnish.compiler.pipelines import costs
from burnish.compiler.pipelines.pipeline import Pipeline, PipelineError

DEVICES = ["cpu", "cpu"]
COUNTED = {"costs": "counted"}
ROWS = 3


def peaks(threads: int) -> Peaks:
    return Peaks(threads, 200.0, None, None, 40.0)


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    return made(Mlp)


@pytest.fixture(scope="module")
def saved(net: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifacts of two stages of three rows a micro-batch."""
    folder = tmp_path_factory.mktemp("pipeline")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs, "known_peaks", peaks)
        run = burnish.pipeline(
            net, (torch.randn(2 * ROWS, 20),), DEVICES, 2, "threads", folder=folder, **COUNTED
        )
    run.close()
    return folder


@pytest.fixture(params=["threads", "processes"])
def run(request: pytest.FixtureRequest, saved: Path) -> Iterator[Pipeline]:
    with burnish.load_pipeline(saved, engine=request.param, timeout_s=30) as found:
        yield found


def test_batches_of_any_size_in_order(run: Pipeline, net: torch.nn.Module) -> None:
    batches = [torch.randn(rows, 20) for rows in (6, 1, 3, 7, 12, 2)]
    found = list(run.stream(batches))
    assert len(found) == len(batches)
    for batch, got in zip(batches, found, strict=True):
        torch.testing.assert_close(got, net(batch).detach(), rtol=1e-5, atol=1e-6)
    report = run.report
    assert (report.batches, report.done, report.restarts) == (6, 12, 0)
    assert [row.device for row in report.stages] == DEVICES
    assert all(row.measured_ms is not None and row.weight_bytes > 0 for row in report.stages)
    schedule = run.timeline.measured
    assert [(s.micro_batch, s.stage) for s in schedule.spans] == [
        (number, stage) for number in range(12) for stage in range(2)
    ]
    for first, second in zip(schedule.spans[::2], schedule.spans[1::2], strict=True):
        assert first.end <= second.start
    assert len(run.timeline.predicted.spans) == 24
    array = np.asarray(batches[0])
    got = run(array)
    assert isinstance(got, np.ndarray)
    np.testing.assert_allclose(got, np.asarray(found[0]), rtol=1e-6)


def test_a_stream_reads_no_further_than_there_is_room(run: Pipeline) -> None:
    read = 0

    def batches() -> Iterator[torch.Tensor]:
        nonlocal read
        for _ in range(50):
            read += 1
            yield torch.randn(ROWS, 20)

    stream = run.stream(batches())
    next(stream)
    assert read <= run.frames + 1
    with pytest.raises(PipelineError, match="a stream of this pipeline is not at its end"):
        run(torch.randn(ROWS, 20))
    stream.close()
    assert run(torch.randn(ROWS, 20)).shape == (ROWS, 5)


def test_inputs_that_it_does_not_take(run: Pipeline, net: torch.nn.Module) -> None:
    with pytest.raises(InvalidInputError, match=r"is float32\[3, 21\], the pipeline takes float32"):
        run(torch.randn(3, 21))
    with pytest.raises(InvalidInputError, match="is float64"):
        run(torch.randn(3, 20).double())
    with pytest.raises(InvalidInputError, match="got 2 inputs"):
        run(torch.randn(3, 20), torch.randn(3, 20))
    good = torch.randn(ROWS, 20)
    with pytest.raises(InvalidInputError, match="takes float32"):
        list(run.stream([good, good, torch.randn(3, 21), good]))
    torch.testing.assert_close(run(good), net(good).detach(), rtol=1e-5, atol=1e-6)


def test_a_stage_that_dies_is_started_again(saved: Path, net: torch.nn.Module) -> None:
    with burnish.load_pipeline(saved, timeout_s=30) as run:
        batches = [torch.randn(ROWS, 20) for _ in range(20)]
        found = []
        for number, got in enumerate(run.stream(batches)):
            if number == 5:
                os.kill(run.pids[1], signal.SIGKILL)
            found.append(got)
        for batch, got in zip(batches, found, strict=True):
            torch.testing.assert_close(got, net(batch).detach(), rtol=1e-5, atol=1e-6)
        assert run.restarts == 1
        pids = run.pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_stage_that_hangs_is_ended_and_the_limit_of_restarts_is_said(saved: Path) -> None:
    with burnish.load_pipeline(saved, timeout_s=0.5, restarts=0) as run:
        os.kill(run.pids[0], signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(
            PipelineError,
            match=r"stage 0 on cpu failed 1 times in a row on micro-batch 0, the limit of restarts "
            r"is 0: it did not run within 0.5 s",
        ):
            run(torch.randn(ROWS, 20))
        assert time.monotonic() - start < 20
        with pytest.raises(PipelineError, match="stage 0 on cpu failed"):
            run(torch.randn(ROWS, 20))
        pids = run.pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_stages_not_made_together(saved: Path, tmp_path: Path) -> None:
    for name in ("pipeline.json", "stage0.burnish", "stage1.burnish"):
        source = "stage0.burnish" if name == "stage1.burnish" else name
        (tmp_path / name).write_bytes((saved / source).read_bytes())
    with pytest.raises(InvalidInputError, match=r"stage1.burnish takes .* made together"):
        burnish.load_pipeline(tmp_path, engine="threads")
    with pytest.raises(PipelineError, match=r"stage 1 on cpu failed: .*stage1.burnish takes"):
        burnish.load_pipeline(tmp_path)
    (tmp_path / "pipeline.json").write_text("{}")
    with pytest.raises(BurnishError, match="is damaged: it is no pipeline of schema 1"):
        burnish.load_pipeline(tmp_path)
    with pytest.raises(BurnishError, match="no pipeline in"):
        burnish.load_pipeline(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"devices": ["gpu"]}, "'gpu' is none of cpu, or cores of it by number"),
        ({"devices": []}, "devices must be a list of"),
        ({"devices": [0, 1]}, "0 is none of cpu, or cores of it by number"),
        ({"timeout_s": "3"}, "timeout_s must be more than 0 and an end, got '3'"),
        ({"timeout_s": float("inf")}, "timeout_s must be more than 0 and an end, got inf"),
        ({"restarts": -1}, "restarts must be a whole number of 0 or more, got -1"),
        ({"frames": 0.5}, "frames must be a whole number of 1 or more, got 0.5"),
        ({"folder": "/dev/null"}, "File exists: '/dev/null'"),
        ({"devices": ["cpu@4096"]}, r"this machine lets us have the cores .* not \[4096\]"),
        ({"devices": ["cpu@0", "cpu@0"]}, "core 0 is in 'cpu@0' and in 'cpu@0'"),
        ({"devices": ["cpu@3-1"]}, "names no core with 3-1"),
        ({"engine": "spark"}, "engine 'spark' is unknown; known: processes, threads, ray"),
        ({"micro_batches": 0}, "micro_batches must be 1 or more, or 'auto'; got 0"),
        ({"micro_batches": 4}, "4 micro-batches do not divide a batch of 6 rows"),
        ({"whole": ["z"]}, r"whole=\['z'\]: no such inputs"),
        ({"costs": "guessed"}, "costs 'guessed' are unknown; known: measured, counted"),
        ({"memory": {"cpu@0": 9}}, r"memory of \['cpu@0'\]: the devices are cpu, cpu#2"),
        ({"memory": {"cpu": 9, "cpu#2": 9}, "micro_batches": 1}, "the smallest excess is"),
        ({"threads": 2}, "a stage has a thread for each core of its device"),
        ({"target": "cuda:sm_90"}, "a pipeline's stages run on CPU cores"),
        ({"cuts": [1, 2], "micro_batches": 1}, r"2 devices are 1 cuts, got \[1, 2\]"),
        ({"devices": ["cpu"] * 40, "micro_batches": 1}, "40 stages of a model of 2 operators"),
    ],
)
def test_what_is_refused(
    given: dict[str, object], said: str, net: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "known_peaks", peaks)
    options = {"devices": DEVICES, **COUNTED, **given}
    with pytest.raises(BurnishError, match=said):
        burnish.pipeline(net, (torch.randn(6, 20),), **options)


def test_a_model_with_open_sizes(net: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "known_peaks", peaks)
    model = burnish.import_model(net, (torch.randn(6, 20),), dynamic={"input": {0: "rows"}})
    with pytest.raises(ConfigError, match=r"the model has the open sizes \['rows'\]"):
        burnish.pipeline(model, devices=DEVICES)


@pytest.mark.heavy
def test_a_thousand_micro_batches_with_a_stage_killed_every_hundred(
    saved: Path, net: torch.nn.Module
) -> None:
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(ROWS, 20, generator=generator) for _ in range(1000)]
    found = []
    with burnish.load_pipeline(saved, timeout_s=60) as run:
        for number, got in enumerate(run.stream(batches)):
            found.append(got)
            if number % 100 == 50:
                os.kill(run.pids[number // 100 % 2], signal.SIGKILL)
        assert run.restarts == 10
        assert run.report.done == 1000
        spans = run._run.flight.spans
        last = {(span.micro_batch, span.stage) for span in spans}
        assert len(last) == len(spans) == 2000
    assert len(found) == 1000
    with torch.no_grad():
        want = net(torch.cat(batches)).split(ROWS)
    for got, expected in zip(found, want, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.heavy
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_program_that_is_ended(saved: Path, how: signal.Signals) -> None:
    code = (
        "import itertools, numpy, sys, burnish\n"
        "run = burnish.load_pipeline(sys.argv[1])\n"
        "print(*run.pids, flush=True)\n"
        "for _ in run.stream(itertools.repeat(numpy.ones((3, 20), 'float32'))): pass\n"
    )
    command = [sys.executable, "-c", code, str(saved)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as program:
        assert program.stdout is not None
        pids = program.stdout.readline().split()
        assert len(pids) == 2
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
        program.send_signal(how)
        assert program.wait(30) != 0
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
