from __future__ import annotations

from service.worker.pace import Pace


def learn(pace: Pace, seconds: float, rounds: int) -> list[int]:
    limits = []
    for _ in range(rounds):
        pace.ran(pace.limit, seconds * pace.limit)
        limits.append(pace.limit)
    return limits


def test_it_begins_with_one() -> None:
    assert Pace().limit == 1


def test_long_jobs_are_taken_one_at_a_time() -> None:
    assert learn(Pace(), 0.1, 20) == [1] * 20


def test_short_jobs_are_read_ahead_with_a_doubling_limit_up_to_256() -> None:
    assert learn(Pace(), 0.000_01, 10) == [2, 4, 8, 16, 32, 64, 128, 256, 256, 256]


def test_no_more_is_read_ahead_than_runs_in_4_ms() -> None:
    assert learn(Pace(), 0.001, 10)[-1] == 4


def test_one_long_job_ends_the_reading_ahead_at_once() -> None:
    pace = Pace()
    learn(pace, 0.000_01, 10)
    pace.ran(1, 0.1)
    assert pace.limit == 1


def test_after_a_long_job_it_takes_a_while_to_trust_again() -> None:
    pace = Pace()
    pace.ran(1, 1.0)
    assert learn(pace, 0.000_01, 5) == [1] * 5
    assert learn(pace, 0.000_01, 40)[-1] == 256


def test_a_grant_of_nothing_teaches_nothing() -> None:
    pace = Pace()
    pace.ran(0, 0.0)
    assert pace.limit == 1
