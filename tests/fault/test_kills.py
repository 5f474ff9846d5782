"""Processes are killed while jobs flow; nothing is lost and nothing is recorded twice (promises 1 to 3)."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest

from svc.codec import decode_result
from svc.domain import commands as c
from svc.domain import events as e
from svc.domain.lifecycle import JobState
from svc.server.journal import SqliteJournal
from tests.support.processes import Service, service

JOBS = 10_000
MANAGER_KILLS = 5


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_of_10_000_jobs_has_one_outcome_though_the_manager_dies_5_times_and_a_consumer_each_second(
    tmp_path: Path,
) -> None:
    record = tmp_path / "executions"
    with service(tmp_path, "tests.support.recorded_tasks", consumers=4) as running:
        with running.client(timeout=60) as client:
            done = threading.Event()
            killer = threading.Thread(target=_kill_a_consumer_each_second, args=(running, done))
            killer.start()
            try:
                arguments = [(number, 0.002, str(record)) for number in range(JOBS)]
                jobs = client.submit_many("tests.support.recorded_tasks:square", arguments)
                outcomes = _follow_and_kill_the_manager(running, jobs[0].id.rpartition("-")[0])
            finally:
                done.set()
                killer.join()
        deaths = sum(1 for line in running.log("worker") if line["event"] == "consumer_died")

    assert deaths >= 3, "too few consumers were killed for the test to mean anything"
    assert Counter(state for state, _ in outcomes.values()) == {JobState.SUCCEEDED: JOBS}
    assert [outcomes[job.id][1] for job in jobs] == [number**2 for number in range(JOBS)]
    assert _recorded_outcomes(running.journal) == {job.id: 1 for job in jobs}
    assert set(_executions(record)) == set(range(JOBS))


def _kill_a_consumer_each_second(running: Service, done: threading.Event) -> None:
    with running.broker(timeout=60) as broker:
        # The kill of a consumer that never took a job proves nothing, and such kills would never end.
        while not any(queue.succeeded for queue in broker.stats().queues):
            assert not done.wait(0.1)
    place = 0
    while not done.wait(1.0):
        place += running.kill_consumer(place)


def _follow_and_kill_the_manager(running: Service, origin: str) -> dict[str, tuple[JobState, object]]:
    """Read the outcomes as they come; kill and restart the manager each time after a sixth of them."""
    outcomes: dict[str, tuple[JobState, object]] = {}
    kills = cursor = 0
    with running.broker(timeout=60) as broker:
        while len(outcomes) < JOBS:
            if kills < MANAGER_KILLS and len(outcomes) > JOBS * (kills + 1) / (MANAGER_KILLS + 1):
                running.kill_manager()
                running.start_manager()
                kills += 1
            page = broker.feed(c.Feed(origin, cursor, 500, 60.0))
            assert page.outcomes, "no job ended within 60 s"
            cursor = page.cursor
            for outcome in page.outcomes:
                assert outcome.id not in outcomes
                value = (
                    decode_result(outcome.result) if outcome.state == JobState.SUCCEEDED else outcome.error
                )
                outcomes[outcome.id] = (outcome.state, value)
    assert kills == MANAGER_KILLS
    return outcomes


def _recorded_outcomes(path: Path) -> Counter[str]:
    """Count, in the journal itself, how often each job's end was recorded."""
    found: Counter[str] = Counter()
    journal = SqliteJournal.open(path)
    for _, event in journal.replay():
        if isinstance(event, e.Succeeded):
            for span in event.ranges:
                found.update(f"{span.origin}-{span.first + place}" for place in range(len(span.results)))
        elif isinstance(event, e.Failed) and event.retry_at is None:
            found[f"{event.origin}-{event.number}"] += 1
    journal.close()
    return found


def _executions(record: Path) -> Counter[int]:
    return Counter(int(line.split()[0]) for line in record.read_text().splitlines())
