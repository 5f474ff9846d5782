"""The memory that an attempt took at most is on record, if it ran for a while."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tests.support.workers import Client, Manager, Start, Worker

MIB = 1 << 20
#: The attempts take this much more than an idle consumer has.
TAKEN = 150 * MIB
IDLE_MAX = 120 * MIB


@pytest.fixture
def worker(start: Start) -> Worker:
    return start(1)


@pytest.fixture
def client(manager: Manager, worker: Worker):
    with manager.client() as made:
        yield made


def peak(client: Client, task: str, *args: object, **terms: Any) -> int | None:
    (job,) = client.submit(task, args, **terms)
    client.outcomes([job])
    return client.view(job).peak_rss


def peak_of(client: Client, job: str) -> int:
    (attempt,) = client.view(job).attempts
    assert attempt.peak_rss is not None
    return attempt.peak_rss


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel keeps it on Linux")
class TestPeak:
    def test_an_attempt_that_ran_for_a_while_has_its_own_peak(self, client: Client):
        first = peak(client, "takes", TAKEN, 0.15)
        assert first is not None
        assert first > TAKEN
        after = peak(client, "takes", 0, 0.15)
        assert after is not None
        assert after < IDLE_MAX, "the memory of the attempt before is not its own"

    def test_a_short_attempt_is_not_measured_and_leaves_the_next_one_its_own(self, client: Client):
        assert None in [peak(client, "noop") for _ in range(10)]  # a stop of the machine makes one long
        peak(client, "takes", TAKEN, 0.0)
        after = peak(client, "takes", 0, 0.15)
        assert after is not None
        assert after < IDLE_MAX

    def test_a_failed_attempt_and_one_that_is_killed_have_theirs(self, client: Client):
        (failed,) = client.submit("takes_and_fails", (TAKEN, 0.15), retries=0)
        client.outcomes([failed])
        assert peak_of(client, failed) > TAKEN
        for timeout in (0.5, 2.0, 10.0):  # a slow machine takes longer to fill the memory
            (killed,) = client.submit("takes", (TAKEN, 30.0), retries=0, timeout=timeout)
            client.outcomes([killed])
            if peak_of(client, killed) > TAKEN:
                break
        assert peak_of(client, killed) > TAKEN

    def test_one_that_is_killed_for_its_memory_has_what_was_seen(self, client: Client):
        (job,) = client.submit("takes", (TAKEN, 30.0), retries=0, max_rss=100 * MIB)
        client.outcomes([job])
        (attempt,) = client.view(job).attempts
        assert attempt.error.type == "MemoryLimitExceeded"
        assert attempt.peak_rss is not None
        assert attempt.peak_rss > 100 * MIB
