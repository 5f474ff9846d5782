"""The transfers of large values by a consumer, while the manager is away or has forgotten the lease."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from svc.broker.local import LocalBroker, LocalQueue
from svc.domain import replies as r
from svc.domain.limits import TOKENS_PER_INCARNATION, Limits
from svc.errors import JobTooLarge, LeaseLost, ManagerUnreachable, ServiceError
from svc.large import reference_in
from svc.worker import values
from svc.worker.values import LargeValuesWorker
from tests.support.asking import chunk

TOKEN = TOKENS_PER_INCARNATION + 5
VALUE = bytes(5000)


class Faulty(LocalBroker):
    """A broker whose first answers about pieces are errors."""

    def __init__(self, queue: LocalQueue, errors: list[ServiceError], incarnation: int = 0) -> None:
        super().__init__(queue)
        self.errors = errors
        welcome: dict[str, Any] = {"incarnation": incarnation, "largest_value": 10_000, "piece_size": 1000}
        self.welcome = r.Welcome(1, welcome.pop("incarnation"), "", 15.0, 1000, **welcome)

    def store(self, pieces: Any) -> int:
        if self.errors:
            raise self.errors.pop(0)
        return int(pieces[-1].offset + len(pieces[-1].data))


@pytest.fixture
def queue() -> Iterator[LocalQueue]:
    queue = LocalQueue(limits=Limits(max_job_bytes=1000, piece_bytes=1000, max_value_bytes=10_000))
    yield queue
    queue.close()


def test_a_transfer_waits_for_a_manager_that_is_away(queue):
    broker = Faulty(queue, [ManagerUnreachable("away"), ManagerUnreachable("away")])
    stored = LargeValuesWorker(lambda: broker).stored(VALUE, TOKEN, 0, 100)
    assert stored is not None
    reference = reference_in(bytes(stored))
    assert reference is not None
    assert (reference.size, broker.errors) == (len(VALUE), [])


def test_a_lease_that_a_restarted_manager_does_not_know_yet_is_waited_for(queue):
    broker = Faulty(queue, [LeaseLost("unknown")], incarnation=2)
    assert LargeValuesWorker(lambda: broker).stored(VALUE, TOKEN, 0, 100) is not None


def test_a_lost_lease_ends_a_transfer_at_once(queue, monkeypatch):
    monkeypatch.setattr(values, "REJOIN_SECONDS", 60.0)
    broker = Faulty(queue, [LeaseLost("cancelled")], incarnation=1)
    started = time.monotonic()
    with pytest.raises(LeaseLost):
        LargeValuesWorker(lambda: broker).stored(VALUE, TOKEN, 0, 100)
    assert time.monotonic() - started < values.REJOIN_SECONDS / 2


def test_a_value_over_the_limit_is_refused_before_a_piece_is_sent(queue):
    broker = Faulty(queue, [LeaseLost("never asked")])
    with pytest.raises(JobTooLarge):
        LargeValuesWorker(lambda: broker).stored(bytes(10_001), TOKEN, 0, 100)
    assert len(broker.errors) == 1


def test_bytes_that_fit_into_a_result_are_not_stored(queue):
    assert LargeValuesWorker(lambda: LocalBroker(queue)).stored(VALUE, TOKEN, 0, len(VALUE)) is None


def test_a_result_is_stored_under_the_token_of_its_attempt_alone(queue):
    LocalBroker(queue).submit("o", [chunk()])
    with pytest.raises(LeaseLost):
        LargeValuesWorker(lambda: LocalBroker(queue)).stored(VALUE, TOKEN, 0, 100)
    assert not queue.host.state.ledger.large.by_origin
