"""Calls of a client over a connection to a real manager, whose jobs the test itself ends."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from svc import Client, Executor
from svc.app.clients import CALL_SECONDS_MAX
from svc.broker.manager import ManagerBroker
from svc.client.client import BrokerClient
from svc.errors import ConfigurationError
from tests.support.asking import ack_of, nack_of, record
from tests.support.manager import running_manager

SECONDS = timedelta(seconds=10)
#: The result 7, encoded.
SEVEN = b"\x07"


@pytest.fixture
def manager():
    with running_manager() as manager:
        yield manager


@pytest.fixture
def consumer(manager) -> Iterator[ManagerBroker]:
    with manager.consumer() as consumer:
        yield consumer


@pytest.fixture
def client(manager) -> Iterator[BrokerClient]:
    with BrokerClient(manager.broker) as client:
        yield client


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_map_of_equal_jobs_with_one_key_yields_the_result_for_each(client, consumer, count):
    results = client.options(key="k").map("m:f", ["e"] * count)
    (delivery,) = consumer.lease(limit=count, wait=SECONDS).grant.deliveries
    record(consumer, ack_of(delivery, SEVEN))

    assert list(results) == [7] * count


@pytest.mark.parametrize(
    ("select", "requeued"),
    [
        (lambda jobs: ([],), 0),
        (lambda jobs: (iter(()),), 0),
        (lambda jobs: (jobs[:1],), 1),
        (lambda jobs: (None,), 2),
        (lambda jobs: (), 2),
    ],
)
def test_an_empty_selection_requeues_nothing_and_none_at_all_every_dead_job(
    client, consumer, select, requeued
):
    jobs = client.submit_many("m:f", [(1,), (2,)])
    for _ in jobs:
        (delivery,) = consumer.lease(limit=1, wait=SECONDS).grant.deliveries
        record(consumer, nack_of(delivery))

    assert client.requeue(*select(jobs)) == requeued
    assert len(client.find(state="dead")) == len(jobs) - requeued


@pytest.fixture
def known(manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the manager in the environment, as a user does."""
    authkey = tmp_path / "authkey"
    authkey.write_bytes(manager.authkey + b"\n")
    authkey.chmod(0o600)
    monkeypatch.setenv("SVC_AUTHKEY_FILE", str(authkey))
    monkeypatch.setenv("SVC_MANAGER", "{}:{}".format(*manager.endpoint))


@pytest.mark.parametrize("kind", [Client, Executor])
@pytest.mark.parametrize("timeout", [math.inf, 1e20, math.nan, -1, -math.inf, 0, 0.0, "3", None, True])
@pytest.mark.usefixtures("known")
def test_a_timeout_of_calls_that_is_no_positive_number_of_seconds_is_refused_at_once(kind, timeout):
    with pytest.raises(ConfigurationError, match="timeout of calls is a number of seconds above 0") as raised:
        kind(timeout=timeout)
    assert repr(timeout) in str(raised.value)


@pytest.mark.parametrize("timeout", [5, 5.0, CALL_SECONDS_MAX])
@pytest.mark.usefixtures("known")
def test_another_timeout_of_calls_is_taken(timeout):
    with Client(timeout=timeout) as client:
        assert client.stats().drain == 0
