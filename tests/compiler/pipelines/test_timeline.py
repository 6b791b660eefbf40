"""Expected schedules against the rules that make them, and pictures of both."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.compiler.pipelines.timeline import Schedule, Span, Timeline, predict_schedule


@given(
    st.lists(st.floats(0.001, 1.0), min_size=1, max_size=5), st.integers(1, 12), st.integers(1, 6)
)
def test_a_schedule_keeps_order_and_room(seconds: list[float], count: int, frames: int) -> None:
    devices = [f"cpu@{at}" for at in range(len(seconds))]
    schedule = predict_schedule(devices, seconds, count, frames)
    spans = {(span.micro_batch, span.stage): span for span in schedule.spans}
    assert len(spans) == count * len(seconds)
    last = len(seconds) - 1
    for (number, stage), span in spans.items():
        assert span.end == pytest.approx(span.start + seconds[stage])
        ends = [0.0]
        if stage:
            ends.append(spans[number, stage - 1].end)
        if number:
            ends.append(spans[number - 1, stage].end)
        if stage == 0 and number >= frames:
            ends.append(spans[number - frames, last].end)
        assert span.start == max(ends)
    if frames >= count:
        want = sum(seconds) + (count - 1) * max(seconds)
        assert schedule.seconds == pytest.approx(want)
    if frames == 1:
        assert schedule.seconds == pytest.approx(count * sum(seconds))
    assert -1e-9 <= schedule.bubble < 1


def test_clock_times_are_counted_from_the_first() -> None:
    spans = [Span(1, 7, 12.0, 13.0), Span(0, 8, 11.0, 12.5), Span(0, 7, 10.0, 11.0)]
    schedule = Schedule.of(["a", "b"], spans)
    assert schedule.spans == (Span(0, 0, 0.0, 1.0), Span(1, 0, 2.0, 3.0), Span(0, 1, 1.0, 2.5))
    assert (schedule.seconds, schedule.micro_batches) == (3.0, 2)
    assert schedule.busy() == [2.5, 1.0]
    assert schedule.bubble == pytest.approx(1 - 3.5 / 6)
    assert Schedule.of(["a"], []).bubble == 0.0


def test_a_picture_of_both(tmp_path: Path) -> None:
    measured = predict_schedule(["cpu@0", "cpu@1"], [0.01, 0.02], 5, 4)
    predicted = predict_schedule(["cpu@0", "cpu@1"], [0.012, 0.015], 5, 4)
    timeline = Timeline(measured, predicted)
    timeline.draw(tmp_path / "timeline.svg")
    text = (tmp_path / "timeline.svg").read_text()
    for said in ("measured: 5 micro-batches in 110 ms", "predicted: 5", "0  cpu@0", "1  cpu@1"):
        assert said in text
    again = tmp_path / "again.svg"
    timeline.draw(again)
    assert again.read_text() == text
    assert timeline.to_dict()["measured"]["busy"] == pytest.approx([0.05, 0.1])
