from __future__ import annotations

import math

import pytest

from svc.domain.limits import GRANT_JOBS
from svc.domain.scheduling.run_times import COMMIT_MAX, RunTime, RunTimes

AHEAD = 0.004


def learn(run_time: RunTime, seconds: float, rounds: int) -> list[int]:
    limits = []
    for _ in range(rounds):
        count = max(1, run_time.fitting(AHEAD))
        run_time.ran(count, seconds * count)
        limits.append(run_time.fitting(AHEAD))
    return limits


def test_of_a_task_that_never_ran_nothing_is_read_ahead() -> None:
    assert RunTime().fitting(3600.0) == 0


def test_long_jobs_are_never_read_ahead() -> None:
    assert learn(RunTime(), 0.1, 20) == [0] * 20


def test_short_jobs_are_read_ahead_with_a_doubling_limit_up_to_that_of_a_grant() -> None:
    assert learn(RunTime(), 0.000_001, 12) == [2**power for power in range(1, 11)] + [GRANT_JOBS] * 2


def test_no_more_is_read_ahead_than_runs_in_the_time() -> None:
    assert learn(RunTime(), 0.001, 10)[-1] == 4


def test_one_long_job_ends_the_reading_ahead_at_once() -> None:
    run_time = RunTime()
    learn(run_time, 0.000_01, 10)
    run_time.ran(1, 0.1)
    assert run_time.fitting(AHEAD) == 0


def test_one_job_that_a_busy_host_has_held_up_does_not_end_it() -> None:
    run_time = RunTime()
    learn(run_time, 0.002, 10)
    run_time.ran(1, 0.03)
    assert run_time.fitting(0.02) == 1
    run_time.ran(1, 0.002)
    assert run_time.fitting(0.02) == 2


def test_after_a_long_job_it_takes_a_while_to_trust_again() -> None:
    run_time = RunTime()
    run_time.ran(1, 1.0)
    assert learn(run_time, 0.000_01, 5) == [0] * 5
    assert learn(run_time, 0.000_001, 40)[-1] == GRANT_JOBS


def test_what_one_task_took_says_nothing_of_another() -> None:
    run_times = RunTimes()
    for _ in range(10):
        run_times.ran("m:quick", 100, 0.0001)
        run_times.ran("m:slow", 1, 0.1)

    assert (run_times.of("m:quick").fitting(AHEAD), run_times.of("m:slow").fitting(AHEAD)) == (GRANT_JOBS, 0)
    assert run_times.of("m:new").fitting(AHEAD) == 0


def test_of_very_many_tasks_those_first_seen_are_forgotten() -> None:
    run_times = RunTimes()
    for number in range(2000):
        run_times.ran(f"m:f{number}", 10, 0.000_1)

    assert len(run_times) == 1024
    assert run_times.of("m:f0").fitting(AHEAD) == 0
    assert run_times.of("m:f1999").fitting(AHEAD) == 2


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, -1.0, 0.0, 1e300])
def test_no_run_time_that_a_peer_may_report_breaks_it(seconds: float) -> None:
    run_time = RunTime()
    run_time.ran(1, seconds)
    for ahead in (math.nan, math.inf, -math.inf, -1.0, 0.0, 1e300):
        assert 0 <= run_time.fitting(ahead) <= 2
    run_time.ran(1, 0.001)
    assert 0 <= run_time.fitting(AHEAD) <= 4


def test_the_time_of_a_commit_is_a_mean_and_a_very_long_one_counts_as_a_tenth_of_a_second() -> None:
    run_times = RunTimes()
    assert run_times.commit == 0.0
    for _ in range(100):
        run_times.committed(0.004)
    assert run_times.commit == pytest.approx(0.004, rel=0.01)
    run_times.committed(3600.0)
    assert run_times.commit < 0.004 + COMMIT_MAX / 5
