"""The connections of a client, its operating calls, and work after its end."""

from __future__ import annotations

import pickle

import pytest

from svc.broker.local import LocalBroker
from svc.client import session
from svc.client.client import BrokerClient
from svc.errors import (
    BadRequest,
    BrokerError,
    ManagerUnreachable,
    ResultTimeout,
)
from tests.support.local_consumer import Consumer


class Flaky(LocalBroker):
    """Loses the first answers, as a manager does that is restarted."""

    failures = 0

    def call(self, commands, *, wait=0.0):
        if wait and Flaky.failures:
            Flaky.failures -= 1
            raise ManagerUnreachable("it restarts")
        return super().call(commands, wait=wait)


class TestConnections:
    @pytest.fixture
    def flaky(self, queue, monkeypatch):
        monkeypatch.setattr(session, "ROUND_SECONDS", 0.01)
        monkeypatch.setattr(Flaky, "failures", 3)
        with BrokerClient(lambda: Flaky(queue), patience=30.0) as client:
            yield client

    def test_a_wait_outlives_a_restart(self, flaky, consumer):
        job = flaky.submit("t:f", 1)
        thread = consumer.later()
        assert job.result() == 1
        thread.join()
        assert Flaky.failures == 0

    def test_so_does_a_map(self, flaky, consumer):
        results = flaky.map("t:f", [1, 2])
        thread = consumer.later(2)
        assert list(results) == [1, 2]
        thread.join()

    def test_but_not_for_ever(self, queue, monkeypatch):
        monkeypatch.setattr(session, "ROUND_SECONDS", 0.01)
        monkeypatch.setattr(Flaky, "failures", 10**9)
        with BrokerClient(lambda: Flaky(queue), patience=0.05) as client, pytest.raises(ManagerUnreachable):
            client.submit("t:f").result()

    def test_a_wait_is_cut_into_slices(self, queue, consumer, monkeypatch):
        """So that a connection that died silently is found."""
        waits: list[float] = []
        monkeypatch.setattr(session, "SLICE_SECONDS", 0.02)

        class Watched(LocalBroker):
            def call(self, commands, *, wait=0.0):
                waits.append(wait)
                if len(waits) == 5:
                    consumer.run()
                return super().call(commands, wait=wait)

        with BrokerClient(lambda: Watched(queue)) as client:
            assert client.submit("t:f", 7).result() == 7
        assert max(waits) == 0.02

    def test_a_thread_too_many_has_its_time_too(self, queue, monkeypatch):
        """As many as may wait do; the next one is not made to wait longer than it wants."""
        monkeypatch.setattr(session, "WAITERS_MAX", 1)
        with BrokerClient(lambda: LocalBroker(queue)) as client:
            job = client.submit("t:f")
            client._session._free.acquire()
            with pytest.raises(ResultTimeout, match="too many threads"):
                job.result(timeout=0.05)

    def test_nothing_is_connected_before_it_is_used(self):
        def connect():
            raise AssertionError("connected")

        BrokerClient(connect).close()

    def test_a_closed_client_says_so(self, queue):
        client = BrokerClient(lambda: LocalBroker(queue))
        client.close()
        client.close()
        with pytest.raises(BrokerError, match="closed"):
            client.submit("t:f")

    def test_an_error_of_connecting_reaches_the_caller(self):
        def connect():
            raise ManagerUnreachable("nobody there")

        with pytest.raises(ManagerUnreachable):
            BrokerClient(connect, patience=0.0).stats()


class TestOperating:
    def test_dead_jobs_are_requeued(self, client, consumer):
        job = client.submit("t:f", "fail")
        consumer.run()
        assert client.requeue() == 1
        assert job.view().state == "ready"
        assert client.requeue([job]) == 0

    def test_an_empty_selection_of_jobs_or_states_purges_none(self, client, consumer):
        jobs = [client.submit("t:f", "fail") for _ in range(2)]
        for _ in jobs:
            consumer.run()
        assert client.purge([]) == 0
        assert client.purge(states=[]) == client.purge(states=[], queue="default") == 0
        with pytest.raises(BadRequest, match="either ids of jobs, or conditions"):
            client.purge([], queue="default")
        with pytest.raises(BadRequest, match="either ids of jobs, or conditions"):
            client.purge()
        assert client.purge(jobs[:1]) == 1
        assert client.purge(states=["dead"], queue="default") == 1

    def test_jobs_are_found(self, client):
        job = client.submit("t:f")
        client.options(queue="other").submit("t:f")
        assert [view.id for view in client.find(queue="default")] == [job.id]

    def test_a_drain_and_its_end(self, client):
        client.drain()
        assert client.stats().drain == 1
        client.resume()
        assert client.stats().drain == 0

    def test_the_feed_reads_on_from_its_cursor(self, client, consumer):
        client.submit("t:f", 1)
        consumer.run()
        page = client.feed()
        assert len(page.outcomes) == 1
        assert client.feed(page.cursor).outcomes == []

    def test_metrics_are_text(self, client):
        assert isinstance(client.metrics(), str)

    def test_workers_are_described(self, client, consumer):
        assert [worker.name for worker in client.workers()] == ["w"]


class TestLate:
    """The error for a job that has not ended in time says which, and why."""

    @pytest.mark.parametrize(
        "wait",
        [
            lambda client, job: job.result(timeout=0.05),
            lambda client, job: client.result(job.id, timeout=0.05),
            lambda client, job: client.results([job], timeout=0.05),
            lambda client, job: list(client.as_completed([job], timeout=0.05)),
            lambda client, job: list(client.follow([job.id], timeout=0.05)),
        ],
    )
    def test_it_has_the_id_and_the_reason(self, client, queue, wait):
        Consumer(queue, print)
        job = client.submit("t:ff")
        with pytest.raises(ResultTimeout) as raised:
            wait(client, job)
        assert (raised.value.job_id, raised.value.job_ids) == (job.id, (job.id,))
        assert raised.value.reason == (
            "waits: no connected worker of queue 'default' knows the task 't:ff'; did you mean t:f?"
        )
        assert str(raised.value).endswith(raised.value.reason)

    @pytest.mark.parametrize(
        ("submit", "reason"),
        [
            (lambda client: client.submit("t:f"), "waits: no worker is connected"),
            (lambda client: client.options(delay=60).submit("t:f"), "waits for its delay to pass"),
            (
                lambda client: (client.drain(), client.submit("t:f"))[1],
                "waits: the service is draining; `svc resume` ends that",
            ),
        ],
    )
    def test_each_reason_has_its_own_sentence(self, client, submit, reason):
        job = submit(client)
        with pytest.raises(ResultTimeout) as raised:
            job.result(timeout=0.01)
        assert raised.value.reason == reason

    def test_of_several_it_names_all_and_the_reason_of_one_that_is_blocked(self, client):
        jobs = [client.options(delay=delay).submit("t:f") for delay in (60, 0, 60)]
        with pytest.raises(ResultTimeout, match="3 jobs have not ended") as raised:
            client.results(jobs, timeout=0.05)
        assert sorted(raised.value.job_ids) == sorted(job.id for job in jobs)
        assert raised.value.job_id == jobs[1].id
        assert raised.value.reason == "waits: no worker is connected"

    def test_it_travels_between_processes(self, client):
        with pytest.raises(ResultTimeout) as raised:
            client.submit("t:f").result(timeout=0.01)
        copy = pickle.loads(pickle.dumps(raised.value))
        assert (str(copy), vars(copy)) == (str(raised.value), vars(raised.value))

    def test_an_answer_in_time_asks_nothing(self, client, queue, monkeypatch):
        job = client.submit("t:f", 1)
        Consumer(queue, lambda value: value).run()
        monkeypatch.setattr(LocalBroker, "get", None)
        assert job.result(timeout=30) == 1
