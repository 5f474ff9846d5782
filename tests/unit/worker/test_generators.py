"""Tasks that are generators, run in place by the queue and the runner of the product."""

from __future__ import annotations

import pytest

from svc import task
from svc.broker.local import LocalBroker, LocalQueue
from svc.client.client import BrokerClient
from svc.domain.limits import Limits
from svc.errors import ConfigurationError, JobFailed, StreamRestarted
from svc.testing import run_jobs
from svc.worker.value_sender import LineRecorder, ValueBounds
from tests.support import generator_tasks as tasks

MODULE = tasks.__name__


@pytest.fixture
def queue():
    queue = LocalQueue(limits=Limits(stream_value_bytes=1000, stream_values=50, stream_bytes=5000))
    yield queue
    queue.close()


@pytest.fixture
def client(queue):
    with BrokerClient(lambda: LocalBroker(queue)) as client:
        yield client


def run(queue: LocalQueue) -> int:
    return run_jobs(queue, [MODULE])


@pytest.mark.parametrize("task", [tasks.count, tasks.count_async])
@pytest.mark.parametrize("stop", [0, 1, 7, 50])
def test_what_a_generator_yields_is_its_stream(queue, client, task, stop):
    job = client.submit(task, stop)
    run(queue)
    assert list(job.stream()) == list(range(stop))


def test_what_it_returns_is_the_result(queue, client):
    jobs = [client.submit(tasks.count, 5), client.submit(tasks.count_async, 5), client.submit(tasks.nothing)]
    run(queue)
    assert [job.result(30) for job in jobs] == [10, None, None]


def test_a_failure_comes_after_what_was_yielded(queue, client):
    job = client.submit(tasks.fail_after, 3)
    run(queue)
    stream = job.stream()
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(JobFailed, match="as told") as raised:
        next(stream)
    assert "in fail_after" in raised.value.remote_traceback
    assert "svc/worker" not in raised.value.remote_traceback


def test_what_cannot_be_carried_fails_the_attempt_and_is_named(queue, client, monkeypatch, tmp_path):
    monkeypatch.setenv("SVC_TEST_NOTES", str(tmp_path / "notes"))
    job = client.submit(tasks.unsendable, 3)
    run(queue)
    with pytest.raises(JobFailed, match=r"CodecError: partial result 3: .*object"):
        job.result(30)
    assert job.view().state == "dead", "it would be so again"
    assert (tmp_path / "notes").read_text() == "closed"
    stream = job.stream()
    assert [next(stream) for _ in range(3)] == [0, 1, 2]


def test_a_generator_that_does_not_end_when_closed_has_failed_too(queue, client):
    job = client.submit(tasks.stubborn)
    run(queue)
    with pytest.raises(JobFailed):
        job.result(30)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (["x" * 1100], r"JobTooLarge: partial result 0: it takes 1103 bytes and the manager's limit is 1000"),
        (list(range(51)), r"StreamTooLong: partial result 50: the manager's limit is 50"),
        (["x" * 900] * 6, r"StreamTooLong: partial result 5: all together take over 5000 bytes"),
    ],
)
def test_what_is_too_much_fails_the_attempt_and_is_named(queue, client, values, why):
    job = client.submit(tasks.give, values)
    run(queue)
    with pytest.raises(JobFailed, match=why):
        job.result(30)
    assert job.view().state == "dead"


def test_a_retry_begins_a_new_stream(queue, client):
    job = client.submit(tasks.flaky, 3, 2)
    run(queue)
    stream = job.stream()
    assert next(stream) == 0
    while not job.done():
        run(queue)
    assert job.result(30) is None
    with pytest.raises(StreamRestarted, match="attempt 2"):
        list(stream)
    assert list(job.stream()) == ["of the second 0", "of the second 1"]


def test_the_current_job_is_known_in_a_generator(queue, client):
    job = client.submit(tasks.about_itself)
    run(queue)
    assert list(job.stream()) == [job.id, job.id, "half"]


def test_a_child_process_gives_no_partial_results(queue, client):
    job = client.submit(tasks.forks)
    run(queue)
    assert list(job.stream()) == ["before", 7]


def test_an_older_manager_has_no_streams(queue, client, monkeypatch):
    monkeypatch.setattr(LineRecorder, "bounds", lambda self: ValueBounds(0, 0, 0))
    job = client.submit(tasks.give, [1])
    run(queue)
    with pytest.raises(JobFailed, match="ProtocolMismatch: the manager is of a release without partial"):
        job.result(30)


def test_a_generator_takes_no_concurrency():
    async def values():
        yield 1

    with pytest.raises(ConfigurationError, match="cannot have a concurrency of 2; start more consumers"):
        task(concurrency=2)(values)


def test_a_pickled_generator_function_gives_pickled_values(queue):
    from svc.testing import local_client

    def squares(stop: int):
        for number in range(stop):
            yield slice(number)
        return slice(stop)

    with local_client(queue) as own:
        client = BrokerClient(
            lambda: LocalBroker(queue), accept=["plain", "pickle"], pickle_keys=own.pickle_keys
        )
        job = client.submit(squares, 3)
        run_jobs(queue, [MODULE], accept=["plain", "pickle"])
        assert list(job.stream()) == [slice(0), slice(1), slice(2)]
        assert job.result(30) == slice(3)
