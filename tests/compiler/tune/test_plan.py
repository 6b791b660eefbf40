"""How trials are spread, and what a caller is told about time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from burnish.compiler.tune.plan import MIN_TRIALS, Clock, shares, spread_trials

times = st.dictionaries(st.integers(), st.floats(1e-7, 10.0), min_size=1, max_size=30)


@given(times=times, trials=st.integers(1, 2000))
def test_trials_are_all_spread_and_never_in_crumbs(times: dict[int, float], trials: int) -> None:
    share = shares(times)
    quotas = spread_trials(trials, share)
    assert sum(quotas.values()) == trials
    assert len(quotas) == 1 or min(quotas.values()) >= MIN_TRIALS
    least = min(share[key] for key in quotas)
    assert all(key in quotas or share[key] <= least for key in share)


def test_no_task_gets_no_trials() -> None:
    assert spread_trials(64, {}) == {}
    assert shares({}) == {}


def test_few_trials_go_to_the_largest_share() -> None:
    assert spread_trials(4, {1: 0.4, 2: 0.6}) == {2: 4}


def test_the_clock_tells_steps_and_seconds_left() -> None:
    told: list[tuple[int, int, float, str]] = []
    clock = Clock(lambda *args: told.append(args), {"trial": 1.0, "choice": 5.0}, lambda: 100.0)
    clock.plan(trial=10, choice=1)
    clock.step("trial", 1.0, "tried x", steps=4)
    assert told == [(4, 11, 6 * 0.25 + 5.0, "tried x")]


def test_the_seconds_left_end_at_the_limit() -> None:
    told: list[float] = []
    clock = Clock(lambda done, total, eta, text: told.append(eta), {"trial": 1.0}, lambda: 2.0)
    clock.plan(trial=10)
    clock.step("trial", 1.0, "")
    assert told == [2.0]
