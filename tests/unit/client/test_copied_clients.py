"""Clients and executors that are copies of another one, as in a cloned virtual machine: they number alike."""

from __future__ import annotations

import threading

import pytest

from svc.client.executor import BrokerExecutor
from svc.client.pipeline import SubmitPipeline
from svc.testing import local_client, run_jobs
from tests.support import executor_tasks as tasks

ADD = f"{tasks.__name__}:add"


@pytest.fixture
def clients(queue):
    """A client that has submitted a job, and a copy of it as it was before that."""
    original, copy = local_client(queue), local_client(queue)
    copy._pipeline.origin = original._pipeline.origin
    assert original.submit(ADD, 1, 2).id == f"{original._pipeline.origin}-0"
    return original, copy


def results(queue, jobs):
    run_jobs(queue, [tasks.__name__])
    return [job.result(timeout=30) for job in jobs]


def test_a_copy_that_submits_another_job_gets_its_own_result(queue, clients):
    job = clients[1].submit(ADD, 10, 20)
    assert results(queue, [job]) == [30]
    assert queue.host.totals().queues[0].submitted == 2


def test_all_that_it_submits_afterwards_is_its_own_too(queue, clients):
    jobs = [clients[1].submit(ADD, number, 10) for number in range(5)]
    assert results(queue, jobs) == [10, 11, 12, 13, 14]
    assert len({job.id.rpartition("-")[0] for job in jobs}) == 1


def test_the_original_goes_on_as_the_copy_has_used_its_next_numbers(queue, clients):
    original, copy = clients
    copy._pipeline._next += 1
    jobs = [client.submit(ADD, number, 10) for number, client in enumerate((copy, original, copy, original))]
    assert results(queue, jobs) == [10, 11, 12, 13]
    assert queue.host.totals().queues[0].submitted == 5


def test_streams_of_copies_keep_apart(queue, monkeypatch):
    """Each stream has an origin of its own, whose random name is the same in both copies."""

    class OfTheSnapshot(SubmitPipeline):
        def begin_anew(self):
            super().begin_anew()
            self.origin = "same"

    monkeypatch.setattr("svc.client.client.SubmitPipeline", OfTheSnapshot)
    jobs = [
        job
        for offset in (0, 100)
        for job in local_client(queue).submit_many(ADD, [(number, offset) for number in range(3)])
    ]
    assert results(queue, jobs) == [0, 1, 2, 100, 101, 102]


class TestExecutors:
    @pytest.fixture
    def executors(self, queue):
        """An executor, and a copy of it before its first job."""
        original, copy = (BrokerExecutor(local_client(queue), patience=30.0) for _ in range(2))
        copy._dispatch.pipeline.own_origin = original._dispatch.pipeline.own_origin
        yield original, copy
        for executor in (original, copy):
            executor.shutdown(wait=False, cancel_futures=True)

    def test_the_futures_of_a_copy_end_as_its_own_jobs(self, queue, executors):
        original, copy = executors
        first = [original.submit(ADD, number, 0) for number in range(20)]
        original.flush(30)
        run_jobs(queue, [tasks.__name__])
        second = [copy.submit(ADD, number, 100) for number in range(40)]
        copy.flush(30)
        run_jobs(queue, [tasks.__name__])
        assert [future.result(timeout=30) for future in first] == list(range(20))
        assert [future.result(timeout=30) for future in second] == list(range(100, 140))

    def test_its_future_has_the_id_under_which_the_job_was_accepted(self, queue, executors):
        original, copy = executors
        kept = original.submit(ADD, 1, 0)
        original.flush(30)
        moved = copy.submit(ADD, 2, 0)
        copy.flush(30)
        run_jobs(queue, [tasks.__name__])
        assert moved.result(timeout=30) == 2
        assert moved.job_id != kept.job_id
        assert copy.future(moved.job_id).result(timeout=30) == 2

    def test_it_can_cancel_its_own_job_and_no_other(self, queue, executors):
        original, copy = executors
        kept = original.submit(ADD, 1, 0)
        original.flush(30)
        moved = copy.submit(ADD, 2, 0)
        assert moved.cancel()
        run_jobs(queue, [tasks.__name__])
        assert kept.result(timeout=30) == 1

    def test_an_outcome_that_comes_before_the_acknowledgment_ends_no_future_of_another_job(
        self, queue, executors, monkeypatch
    ):
        """The original's outcome has the id that the copy's future has until its submit is answered."""
        original, copy = executors
        original.submit(ADD, 1, 0)
        original.flush(30)
        run_jobs(queue, [tasks.__name__])
        fed, end = threading.Event(), copy._dispatch.collector._end

        def note(outcomes):
            end(outcomes)
            fed.set()

        submit = copy._dispatch.pipeline._submit

        def send_late(*arguments):
            assert fed.wait(30)
            return submit(*arguments)

        monkeypatch.setattr(copy._dispatch.collector, "_end", note)
        monkeypatch.setattr(copy._dispatch.pipeline, "_submit", send_late)
        future = copy.submit(ADD, 2, 0)
        assert fed.wait(30)
        assert not future.done()
        copy.flush(30)
        run_jobs(queue, [tasks.__name__])
        assert future.result(timeout=30) == 2
