"""``burnish place``: table, written placement, picture, and errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from burnish import cli
from burnish.compiler.placement.predict import predict
from burnish.compiler.placement.problem_file import write_problem
from burnish.compiler.placement.synthetic import synthetic


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    captured = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, captured.out, captured.err


def test_a_problem_is_placed_written_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = synthetic(4)
    write_problem(problem, tmp_path / "p.json")
    code, out, err = call(
        capsys,
        *("place", str(tmp_path / "p.json"), "--overlap", "-o", str(tmp_path / "placement.json")),
        *("--picture", str(tmp_path / "timeline.svg")),
    )
    assert code == 0, err
    for word in ("all on cpu", "greedy", "dp", "cut", "ilp", "learned", "exact", "nodes: "):
        assert word in out
    written = json.loads((tmp_path / "placement.json").read_text())
    found = predict(problem, written["placement"], overlap=True)
    assert written["seconds"] == found.seconds
    assert written["exact"]
    assert len(written["transfers"]) == len(found.transfers)
    picture = (tmp_path / "timeline.svg").read_text()
    for step in found.steps:
        assert step.where.replace(">", "&gt;") in picture


def test_json_is_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_problem(synthetic(1, devices=3, memory=0.8), tmp_path / "p.json")
    only = ("--json", "-a", "ilp", "-a", "cut")
    code, out, _ = call(capsys, "place", str(tmp_path / "p.json"), *only)
    data = json.loads(out)
    assert code == 0
    tried = {row["algorithm"]: row for row in data["tried"]}
    assert tried["ilp"]["exact"]
    assert "two devices" in tried["cut"]["note"]
    assert "greedy" not in tried


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_problem(synthetic(1, memory=0.05), tmp_path / "p.json")
    text = (tmp_path / "p.json").read_text()
    code, out, err = call(capsys, "place", str(tmp_path / "none.json"))
    assert (code, out) == (2, "")
    assert "No such file" in err
    (tmp_path / "bad.json").write_text(text.replace('"nodes"', '"knots"'))
    code, _, err = call(capsys, "place", str(tmp_path / "bad.json"))
    assert code == 2
    assert "unknown key 'knots' (near: nodes" in err
    both = text.replace('"name": "cpu"', '"name": "cpu", "memory_bytes": 1000', 1)
    (tmp_path / "tight.json").write_text(both)
    code, out, err = call(capsys, "place", str(tmp_path / "tight.json"))
    assert (code, err.count("\n")) == (2, 1)
    assert "no placement meets the memory limits: the smallest excess is" in err
    code, _, err = call(capsys, "place", str(tmp_path / "p.json"), "-a", "gready")
    assert code == 2
    assert "unknown algorithm 'gready' (near: greedy)" in err
