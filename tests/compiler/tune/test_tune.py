"""Tuning, with a service that makes up times: what is tried, kept, reused and refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tvm
from tvm import tirx

from burnish.compiler.config import TuneConfig
from burnish.compiler.errors import MeasureError, TuneError
from burnish.compiler.tune import TuneReport, task_key, tune_module
from burnish.compiler.tune.database import TuneDatabase
from burnish.compiler.tune.tasks import extract_tasks

Service = Callable[..., Any]


@pytest.fixture
def tune(
    matmul: tvm.IRModule, target: tvm.target.Target, serial: Any, tmp_path: Path, made_up: Service
) -> Callable[..., tuple[dict[int, tirx.PrimFunc], TuneReport]]:
    """``tune_module`` on the small matmul, its arguments by name to override."""

    def call(trials: int = 16, seed: int = 0, mod: Any = matmul, **given: Any) -> Any:
        config = TuneConfig(trials=trials, work_dir=given.pop("work_dir", tmp_path), seed=seed)
        given = {"schedule": serial, "measure": made_up(), **given}
        return tune_module(mod, given.pop("target", target), config, **given)

    return call


def records(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("llvm-*/records.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_faster_kernel_is_kept(tune: Any, matmul: tvm.IRModule, tmp_path: Path) -> None:
    (task,) = extract_tasks(matmul)
    best, report = tune()
    (row,) = report.rows
    assert list(best) == [task.key]
    assert best[task.key].attrs["tirx.is_scheduled"]
    assert "global_symbol" not in best[task.key].attrs
    assert task_key(task.func) == task.key
    assert (row.name, row.count, row.trials, row.chosen) == ("fused_matmul_relu", 1, 16, "tuned")
    assert row.default_ms == pytest.approx(4.0)
    assert row.tuned_ms < 2.1
    assert report.trials == 16
    assert report.saved_ms == pytest.approx(row.default_ms - row.tuned_ms)
    assert TuneReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    kept = records(tmp_path)
    assert [r["kind"] for r in kept] == ["default"] + ["trace"] * 16


def test_what_is_no_faster_leaves_the_default(tune: Any, made_up: Service) -> None:
    best, report = tune(measure=made_up(lambda text: 1e-3))
    assert best == {}
    assert report.rows[0].note == "no candidate looked faster"
    assert report.saved_ms == 0


def test_trials_go_where_the_time_is(
    tune: Any, three: tvm.IRModule, made_up: Service, tmp_path: Path
) -> None:
    _, report = tune(trials=40, mod=three, measure=made_up(_cheap_add))
    rows = {row.name: row for row in report.rows}
    assert rows["fused_matmul_relu"].trials > rows["softmax"].trials >= 8
    assert rows["fused_matmul_relu"].trials + rows["softmax"].trials == report.trials <= 40
    assert rows["add"].note == "under 1.5% of the time"
    assert [row.name for row in report.rows] == ["fused_matmul_relu", "softmax", "add"]
    _, few = tune(trials=8, mod=three, measure=made_up(_cheap_add), work_dir=tmp_path / "few")
    assert {row.name: row.trials for row in few.rows}["fused_matmul_relu"] == 8


def _cheap_add(text: str) -> float | None:
    return 1e-6 if '"softmax' not in text and "T_add" in text else None


def test_the_next_run_searches_no_more(tune: Any, made_up: Service) -> None:
    first, _ = tune()
    again = made_up()
    second, report = tune(measure=again)
    assert again.screened == []
    assert report.trials == 0
    assert report.rows[0].chosen == "tuned"
    assert report.rows[0].note == "16 earlier trials reused"
    assert list(map(task_key, second.values())) == list(map(task_key, first.values()))


def test_more_trials_go_on_where_the_last_run_ended(tune: Any, tmp_path: Path) -> None:
    tune(trials=8)
    _, report = tune(trials=24)
    assert report.trials == 16
    kernels = [r["kernel"] for r in records(tmp_path)]
    assert len(kernels) == len(set(kernels)) == 25


def test_a_seed_gives_the_same_candidates(tune: Any, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        tune(work_dir=tmp_path / name, seed=seed)
    a, b, c = ([r["kernel"] for r in records(tmp_path / name)] for name in "abc")
    assert a == b != c


def test_an_interrupt_keeps_what_was_timed(tune: Any, tmp_path: Path) -> None:
    def interrupted(done: int, total: int, eta_s: float, message: str) -> None:
        if message.startswith("tried"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(progress=interrupted)
    assert len(records(tmp_path)) == 9
    _, report = tune()
    assert report.trials == 8
    assert report.rows[0].note == "8 earlier trials reused"


def test_a_kill_in_the_middle_of_a_line_loses_that_line(tune: Any, tmp_path: Path) -> None:
    tune()
    (path,) = tmp_path.glob("llvm-*/records.jsonl")
    text = path.read_text()
    path.write_text(text[:-40])
    with pytest.warns(UserWarning, match=r"1 of 17 lines .* \(not JSON\)"):
        best, report = tune()
    assert report.rows[0].note == "15 earlier trials reused"
    assert len(best) == 1


def test_a_recorded_schedule_that_does_not_fit_is_set_aside(
    tune: Any, tmp_path: Path, matmul: tvm.IRModule, target: tvm.target.Target
) -> None:
    tune()
    (task,) = extract_tasks(matmul)
    database = TuneDatabase(tmp_path, target, 2)
    fast = database.records(task.key)[0]
    trace = [[["GetSBlock", [], ["nothing", "main"], ["b0"]]], []]
    database.add(dataclasses.replace(fast, kernel=1, secs=1e-6, trace=trace))
    best, _ = tune()
    assert len(best) == 1
    found = TuneDatabase(tmp_path, target, 2).get(task.key, 1)
    assert found is not None
    assert found.error == "a recorded schedule does not fit the kernel fused_matmul_relu"


def test_a_candidate_that_ends_the_worker_fails_alone(
    tune: Any, made_up: Service, tmp_path: Path
) -> None:
    died = MeasureError("the tvm process: its process died of SIGSEGV")
    measure = made_up()
    third: list[str] = []

    def crash(text: str) -> MeasureError | None:
        if len(measure.screened) == 2 and not third:
            third.append(measure.screened[1][2])
        return died if text in third else None

    measure.override = crash
    best, report = tune(measure=measure)
    assert len(best) == 1
    assert report.trials == 16
    failed = [r for r in records(tmp_path) if r["secs"] is None]
    assert [r["error"] for r in failed] == ["the tvm process: its process died of SIGSEGV"]
    assert max(map(len, measure.screened)) == 8
    again = made_up(crash)
    tune(measure=again)
    assert again.screened == []


def test_a_finalist_that_ends_the_worker_leaves_the_default(
    tune: Any, made_up: Service, tmp_path: Path
) -> None:
    measure = made_up()
    turns = measure.take_turns
    measure.take_turns = lambda runners, *a, **k: (  # type: ignore[method-assign]
        setattr(
            measure,
            "override",
            lambda text: MeasureError("it died") if text not in measure.defaults else None,
        )
        or turns(runners, *a, **k)
    )
    best, report = tune(measure=measure)
    assert best == {}
    assert report.rows[0].note == "the choice failed: it died while timing 'candidate 1'"
    assert [r["error"] for r in records(tmp_path) if r["error"]] == [
        "it died while timing 'candidate 1'"
    ]


def test_no_kernel_measured_is_an_error(tune: Any, made_up: Service) -> None:
    measure = made_up(lambda text: MeasureError("no answer within 10 s"))
    with pytest.raises(
        TuneError, match="no kernel could be measured; fused_matmul_relu: no answer"
    ):
        tune(measure=measure)


def test_one_default_that_cannot_be_measured_is_told(
    tune: Any, three: tvm.IRModule, made_up: Service
) -> None:
    measure = made_up(lambda text: MeasureError("it died") if "softmax" in text else None)
    _, report = tune(mod=three, measure=measure)
    notes = {row.name: row.note for row in report.rows}
    assert notes["softmax"] == "the default could not be measured: it died"


def test_a_default_schedule_that_fails_is_an_error_with_its_place(tune: Any) -> None:
    def broken(func: tirx.PrimFunc) -> tirx.PrimFunc:
        raise ValueError("no rule")

    with pytest.raises(
        TuneError, match=r"the default schedule failed: no rule \[stage tune, op fused_matmul_relu"
    ):
        tune(schedule=broken)


def test_another_kind_of_target_is_refused(tune: Any) -> None:
    target = tvm.target.Target({"kind": "c"})
    with pytest.raises(TuneError, match="tuning times kernels on this CPU; it cannot for target c"):
        tune(target=target)


def test_a_target_without_cores_gets_the_threads(tune: Any) -> None:
    assert tune(target=tvm.target.Target("llvm"))[1].trials == 16


def test_a_module_without_kernels_is_left_alone(tune: Any) -> None:
    assert tune(mod=tvm.IRModule({}))[0] == {}


def test_the_time_limit_ends_the_search(tune: Any) -> None:
    best, report = tune(trials=10_000, time_limit_s=3.0)
    assert 0 < report.trials < 10_000
    assert report.seconds < 5.0
    assert len(best) == 1


def test_no_time_at_all_changes_nothing(tune: Any) -> None:
    best, report = tune(time_limit_s=0.0)
    assert best == {}
    assert report.trials == 0


def test_progress_counts_up_to_the_total(tune: Any) -> None:
    told: list[tuple[int, int, float, str]] = []
    tune(progress=lambda *step: told.append(step))
    assert [step[0] for step in told] == sorted(step[0] for step in told)
    assert all(done <= total and eta >= 0 for done, total, eta, _ in told)
    assert told[0] == (1, 17, pytest.approx(16 * 0.3), "timed fused_matmul_relu")
    assert told[-1][0] == told[-1][1] == 18
    assert told[-1][2:] == (0.0, "decided fused_matmul_relu")


def test_ready_alternatives_are_tried_first_and_counted(
    tune: Any, made_up: Service, parallel: Any, tmp_path: Path
) -> None:
    measure = made_up()
    first: list[str] = []

    def fast(text: str) -> float | None:
        if len(measure.screened) == 2 and not first:
            first.append(measure.screened[1][0])
        return 1e-4 if text in first else None

    measure.override = fast
    best, report = tune(measure=measure, alternatives=lambda func: [parallel(func)])
    assert report.rows[0].chosen == "alternative"
    assert report.trials == 16
    assert [r["kind"] for r in records(tmp_path)][:3] == ["default", "alternative", "trace"]
    assert len(best) == 1
    again = made_up(fast)
    assert tune(measure=again, alternatives=lambda func: [parallel(func)])[1].trials == 0


def test_finish_is_applied_to_what_the_search_makes(tune: Any) -> None:
    best, _ = tune(finish=lambda func: func.with_attr("finished", 1))
    assert all(func.attrs["finished"] == 1 for func in best.values())


def test_nothing_is_printed_and_nothing_is_written_elsewhere(
    tune: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    inside = tmp_path / "here"
    inside.mkdir()
    monkeypatch.chdir(inside)
    tune(work_dir=tmp_path / "work")
    assert list(inside.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    (folder,) = (tmp_path / "work").iterdir()
    assert {path.name for path in folder.iterdir()} == {"records.jsonl", "target.json", "lock"}
