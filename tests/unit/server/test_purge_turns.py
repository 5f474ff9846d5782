"""A purge of very many jobs takes many short turns of the manager, and leaves the journal right."""

from __future__ import annotations

import logging
import time
from contextlib import closing

import pytest
import structlog
from structlog.testing import capture_logs

from benchmarks.processes import slowness
from svc.broker.base import Broker
from svc.domain import commands as c
from svc.domain.job import ErrorInfo, NewChunk, Terms
from svc.domain.limits import Limits
from svc.domain.observer import Observer
from tests.support.asking import lease
from tests.support.journals import in_file
from tests.support.manager import RunningManager, running_manager

JOBS = 100_000
#: A busy host takes more than the usual lease time to end all jobs, and nobody renews the leases here.
LIMITS = Limits(max_queue_jobs=JOBS, retention_jobs=JOBS, lease_seconds=600.0)
#: Processor time of a turn on a machine that is not slow now; one takes some 20 ms.
TURN_SECONDS_MAX = 0.1
ERROR = ErrorInfo("ValueError", "no", "Traceback " * 20)


class Longest(Observer):
    """Keeps the processor time of the longest turn."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.turns = 0
        self._before = 0.0

    def turned(self, seconds: float) -> None:
        self.turns += 1
        now = time.thread_time()
        self.seconds = max(self.seconds, now - self._before)
        self._before = now


def end_all(manager: RunningManager, *, dead_every: int) -> None:
    """Submit all jobs as one chunk, and end them; each *dead_every*-th is dead."""
    with closing(manager.broker()) as client:
        client.submit("o", [NewChunk(0, Terms("m:f"), [b"x"] * JOBS)])
    with closing(manager.consumer()) as consumer:
        _end_all(consumer, dead_every)


def _end_all(consumer: Broker, dead_every: int) -> None:
    ended = 0
    while ended < JOBS:
        reports: list[c.Command] = []
        for each in lease(consumer, 1000):
            count = len(each.bodies)
            ended += count
            for number in range(each.first, each.first + count):
                if number % dead_every:
                    reports.append(c.Ack(each.token, number, [b"r"], [0.1]))
                else:
                    reports.append(c.Nack(each.token, number, ERROR))
        consumer.call(reports)


@pytest.fixture
def info_logs(_quiet_logs):
    """The manager logs what is no warning, too."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    yield
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


@pytest.mark.slow
@pytest.mark.usefixtures("info_logs")
@pytest.mark.parametrize("dead_every", [1, 100, JOBS], ids=["all dead", "some dead", "hardly any dead"])
def test_a_purge_of_very_many_jobs_has_no_long_turn_and_a_restart_finds_none_of_them(tmp_path, dead_every):
    longest = Longest()
    kept = in_file(tmp_path / "journal.db", "os")
    dead = len(range(0, JOBS, dead_every))
    with running_manager(kept.journal, LIMITS, observer=longest) as manager:
        end_all(manager, dead_every=dead_every)
        longest.seconds, longest.turns = 0.0, 0
        slow = slowness()
        with capture_logs() as logs, closing(manager.broker()) as client:
            assert client.purge(c.Purge(states=["dead"])) == dead
            assert client.stats().queues[0].succeeded == JOBS - dead
            assert client.purge(c.Purge(every=True)) == JOBS - dead
            client.ping()  # the turn before has logged its end by then
        assert longest.seconds / max(slow, slowness()) < TURN_SECONDS_MAX
        assert longest.turns < 1000
        purges = [each for each in logs if each["event"] == "jobs_purged"]
        assert sum(each["jobs"] for each in purges if each["done"]) == JOBS
        assert len(purges) <= 4
    kept.reopen()
    with running_manager(kept.journal, LIMITS) as manager, closing(manager.broker()) as client:
        assert client.get(["o-0", f"o-{JOBS - 1}"]) == []
        assert not manager.host.state.ledger.chunks
    kept.reopen()
    assert sum(1 for _ in kept.journal.replay()) < 10


@pytest.mark.slow
def test_half_a_chunk_that_is_purged_stays_purged_over_a_restart(tmp_path):
    kept = in_file(tmp_path / "journal.db", "os")
    with running_manager(kept.journal, LIMITS) as manager:
        end_all(manager, dead_every=2)
        with closing(manager.broker()) as client:
            assert client.purge(c.Purge(states=["dead"])) == JOBS // 2
    kept.reopen()
    rows = sum(1 for _ in kept.journal.replay())
    assert rows < JOBS // 2 + 1000, "the errors of purged jobs are gone from the journal"
    with running_manager(kept.journal, LIMITS) as manager, closing(manager.broker()) as client:
        (queue,) = client.stats().queues
        assert (queue.succeeded, queue.dead) == (JOBS // 2, 0)
        chunks = list(manager.host.state.ledger.chunks.values())
        assert sum(chunk.known for chunk in chunks) == JOBS // 2
        assert sum(chunk.count for chunk in chunks) == JOBS
