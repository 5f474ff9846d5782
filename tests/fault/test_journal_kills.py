"""A real manager dies by SIGKILL at each named point of the journal; no acknowledged job is lost (F4)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from svc.errors import ManagerUnreachable
from svc.server.journal.inspection import verify
from tests.support.journal_kills import PLACES, KillingLayer
from tests.support.processes import Service

#: The module that starts `svc manager` so that it dies at the place that is the next argument.
KILLED = "tests.support.journal_kills"

WAIT_SECONDS = 60


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path, "tests.support.recorded_tasks")
    yield service
    service.close()


def submit_until_it_dies(running: Service, acknowledged: list[str], size: int) -> int:
    """Submit one job after the other; keep the ids of the acknowledged ones; count the others.

    A client that waits too long for a slow disk has a successor.
    """
    assert running.manager is not None
    for unanswered in range(WAIT_SECONDS):
        if running.manager.poll() is not None:
            return unanswered
        with running.client(timeout=2) as client, suppress(ManagerUnreachable):
            while len(acknowledged) < 5_000:
                acknowledged.append(client.submit("m:f", "x" * size).id)
            break
    return 0


def died_by_itself(running: Service) -> bool:
    """Wait for the manager's end; return whether it was its own SIGKILL."""
    assert running.manager is not None
    return running.manager.wait(WAIT_SECONDS) == -signal.SIGKILL


def recovered(running: Service, acknowledged: list[str], unanswered: int = 0) -> None:
    """Start the manager as usual and look for every acknowledged job."""
    running.start_manager()
    with running.client() as client:
        missing = [job for job in acknowledged if client.view(job).id != job]
        (queue,) = client.stats().queues
    assert not missing
    # A job more than acknowledged is right: it is durable, but the client got no answer.
    assert len(acknowledged) <= queue.ready <= len(acknowledged) + unanswered


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "size"),
    [
        ("before_write:60", 10),
        ("before_sync:40", 10),
        ("after_sync:40", 10),
        ("in_checkpoint:1000", 200_000),
        ("before_write:60", 300_000),
        ("before_sync:40", 300_000),
    ],
)
def test_what_was_acknowledged_is_there_after_a_kill(running, place, size, record_property):
    running.start_manager(module=(KILLED, place))
    acknowledged: list[str] = []
    unanswered = submit_until_it_dies(running, acknowledged, size)
    assert died_by_itself(running), "the place was never reached"
    assert len(acknowledged) > 10
    recovered(running, acknowledged, unanswered)
    record_property(f"F4 kill -9 the manager {place.partition(':')[0].replace('_', ' ')}", 1)


@pytest.mark.slow
def test_what_was_acknowledged_is_there_after_a_kill_in_recovery(running, record_property):
    running.start_manager()
    acknowledged: list[str] = []
    with running.client() as client:
        acknowledged += [client.submit("m:f", number).id for number in range(200)]
    running.kill_manager()
    for read in (1, 2, 40):
        running.start_manager(wait=False, module=(KILLED, f"in_recovery:{read}"))
        assert died_by_itself(running), "the place was never reached"
        assert all(check.ok for check in verify(running.journal))
    recovered(running, acknowledged)
    record_property("F4 kill -9 the manager while it reads its log", 3)


def test_an_unknown_place_is_told():
    with pytest.raises(ValueError, match=f"there are {', '.join(PLACES)}"):
        KillingLayer("anywhere", 1)
