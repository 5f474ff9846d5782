"""The client on the real queue in memory, with a consumer that does as it is told."""

from __future__ import annotations

import threading

import pytest

from svc.broker.local import LocalBroker
from svc.client.client import BrokerClient
from svc.client.specs import JobSpec
from svc.client.submitter import Job
from svc.codec import encode_arguments
from svc.domain.job import NewChunk, Terms
from svc.errors import (
    CodecError,
    Conflict,
    JobCancelled,
    JobFailed,
    JobTooLarge,
    QueueFull,
    ResultTimeout,
    UnknownJob,
    UnknownTask,
)
from tests.support.local_consumer import Consumer
from tests.support.pickle_keys import PICKLE_KEYS


class TestSubmit:
    def test_ids_of_single_jobs_count_up_within_the_clients_origin(self, client):
        ids = [client.submit("t:f", number).id for number in range(3)]
        assert [job_id.split("-")[1] for job_id in ids] == ["0", "1", "2"]
        assert len({job_id.split("-")[0] for job_id in ids}) == 1

    def test_arguments_and_result_make_the_round(self, client, consumer):
        job = client.submit("t:f", 1, "two", x=[3])
        consumer.run()
        assert job.result(timeout=30) == [1, "two", {"x": [3]}]
        assert client.result(job.id) == [1, "two", {"x": [3]}]
        assert job.done()

    def test_a_callable_that_no_module_names_runs_too(self, client, queue):
        consumer = Consumer(queue, lambda function, *args: function(*args))
        job = client.submit(lambda a, b: a * b, 6, 7)
        consumer.run()
        assert job.result(timeout=30) == 42

    def test_options_are_for_the_jobs_of_that_submitter_alone(self, client):
        other = client.options(queue="other", priority=3, delay=60, retries=0, timeout=5.0)
        view = other.submit("t:f").view()
        assert (view.queue, view.priority, view.state, view.retries, view.timeout) == (
            "other",
            3,
            "scheduled",
            0,
            5.0,
        )
        assert client.submit("t:f").view().queue == "default"
        assert other.options(queue="x").submit("t:f").view().priority == 3

    def test_a_key_makes_a_job_unique(self, client):
        keyed = client.options(key="k")
        assert keyed.submit("t:f", 1) == keyed.submit("t:f", 1)
        with pytest.raises(Conflict):
            keyed.submit("t:f", 2)

    @pytest.mark.parametrize("codec", ["plain", "pickle"])
    def test_a_key_does_not_ask_for_an_order_of_keyword_arguments(self, queue, codec):
        with BrokerClient(lambda: LocalBroker(queue), accept=[codec], pickle_keys=PICKLE_KEYS) as client:
            keyed = client.options(key="k", codec=codec)
            first = keyed.submit("t:f", 1, b=2, a=3, c=[4])
            assert keyed.submit("t:f", 1, c=[4], a=3, b=2) == first
            assert keyed.submit_many(
                "t:f", [JobSpec("t:f", (1,), {"a": 3, "c": [4], "b": 2}, keyed._options)]
            ) == [first]
            with pytest.raises(Conflict):
                keyed.submit("t:f", 1, b=3, a=2, c=[4])

    def test_a_key_of_an_earlier_release_is_found_by_the_call_that_made_it(self, client, queue):
        """Its job has the arguments in the order in which they were written."""
        body, terms = encode_arguments("plain", (1,), {"b": 2, "a": 3}), Terms("t:f", typed=True, large=True)
        with LocalBroker(queue) as broker:
            assert broker.submit("before", [NewChunk(0, terms, [body], 0.0, "k")], strict=False) == []
        keyed = client.options(key="k")
        assert [keyed.submit("t:f", 1, b=2, a=3).view().id for _ in range(2)] == ["before-0"] * 2
        with pytest.raises(Conflict):
            keyed.submit("t:f", 1, b=3, a=2)

    def test_the_task_of_a_job_without_a_key_sees_its_keyword_arguments_as_they_were_written(
        self, client, consumer
    ):
        job = client.submit("t:f", b=1, a=2)
        consumer.run()
        assert list(job.result(timeout=30)[-1]) == ["b", "a"]

    def test_strict_refuses_a_task_that_nobody_knows(self, client):
        with pytest.raises(UnknownTask):
            client.options(strict=True).submit("no:task")

    def test_a_job_over_the_managers_limit_is_refused_by_name_of_the_limit(self, client):
        with pytest.raises(JobTooLarge, match="10000"):
            client.submit("t:f", "x" * 10_001)


class TestMany:
    def test_jobs_come_back_in_input_order_and_of_an_origin_of_their_own(self, client):
        jobs = client.submit_many("t:f", ((number,) for number in range(2500)))
        assert [job.id.split("-")[1] for job in jobs] == [str(number) for number in range(2500)]
        assert client.submit_many("t:f", [(1,)])[0].id.split("-")[0] != jobs[0].id.split("-")[0]

    def test_a_whole_spec_goes_before_the_call(self, client):
        jobs = client.submit_many("t:f", [(1,), JobSpec("t:g", (2,))])
        assert [job.view().task for job in jobs] == ["t:f", "t:g"]

    def test_arguments_that_are_no_tuple_are_a_mistake(self, client):
        with pytest.raises(TypeError, match="come as tuples"):
            client.submit_many("t:f", ["text"])

    def test_the_first_refusal_raises_and_says_how_many_were_accepted(self, client):
        with pytest.raises(QueueFull) as caught:
            client.submit_many("t:f", ((number,) for number in range(5500)))
        assert caught.value.__notes__ == ["5000 jobs of the same call were accepted"]
        assert client.stats().queues[0].ready == 5000

    def test_each_tells_the_fate_of_every_job_in_its_place(self, client):
        specs = [
            JobSpec("t:f", (1,)),
            JobSpec("t:f", (object(),)),
            Conflict("bad line"),
            JobSpec("t:f", ("x" * 99_999,)),
        ]
        ((first, second, third, fourth),) = client.submit_each(specs)
        assert isinstance(first, Job), "one job over the limit must not take its neighbour with it"
        assert isinstance(second, CodecError)
        assert isinstance(third, Conflict)
        assert isinstance(fourth, JobTooLarge)

    def test_nothing_is_sent_of_nothing(self, client):
        assert client.submit_many("t:f", []) == []
        assert list(client.map("t:f", [])) == []


class TestResults:
    def test_a_job_that_failed_raises_with_the_remote_traceback(self, client, consumer):
        job = client.submit("t:f", "fail")
        consumer.run()
        with pytest.raises(JobFailed, match="ValueError: as told") as caught:
            job.result(timeout=30)
        assert caught.value.remote_traceback == "Traceback: far away"
        assert caught.value.job_id == job.id

    def test_a_cancelled_job_raises(self, client):
        job = client.submit("t:f")
        assert job.cancel() is True
        assert job.cancel() is False
        with pytest.raises(JobCancelled, match=job.id):
            job.result(timeout=30)

    def test_a_job_that_is_not_done_in_time_raises_and_goes_on(self, client, consumer):
        job = client.submit("t:f", 1)
        with pytest.raises(ResultTimeout, match=r"0\.05 s"):
            job.result(timeout=0.05)
        assert not job.done()
        consumer.run()
        assert job.result() == 1

    @pytest.mark.parametrize("name", ["k3v9x0m2q7w1z-0", "rubbish", ""])
    def test_an_unknown_job_raises_at_once(self, client, name):
        for ask in (
            client.result,
            client.view,
            lambda job_id: client.results([job_id]),
            lambda i: client.cancel([i]),
        ):
            with pytest.raises(UnknownJob):
                ask(name)

    @pytest.mark.parametrize("name", ["{origin}-01", "{origin}-x", "{origin}-", "{origin}", "-0"])
    def test_a_malformed_id_among_known_ones_is_no_known_job(self, client, consumer, name):
        job = client.submit("t:f", 1)
        consumer.run()
        malformed = name.format(origin=job.id.rpartition("-")[0])
        with pytest.raises(UnknownJob):
            list(client.follow([job.id, malformed], timeout=30))

    def test_results_come_in_the_order_they_were_asked_for(self, client, consumer):
        jobs = [client.submit("t:f", number) for number in range(4)]
        consumer.run(4)
        assert client.results([jobs[2], jobs[0].id, jobs[2]], timeout=30) == [2, 0, 2]

    def test_a_result_that_runs_code_is_read_only_where_that_is_accepted(self, client, queue):
        consumer = Consumer(queue, lambda: {1, object})
        job = client.options(codec="pickle").submit("t:f")
        consumer.run()
        with pytest.raises(CodecError, match="accept pickle"):
            job.result(timeout=30)
        with BrokerClient(lambda: LocalBroker(queue), accept=["pickle"], pickle_keys=PICKLE_KEYS) as trusting:
            assert trusting.result(job.id) == {1, object}

    def test_a_waiting_thread_holds_up_no_submit(self, client, consumer):
        first = client.submit("t:f", 1)
        thread = threading.Thread(target=first.result)
        thread.start()
        second = client.submit("t:f", 2)  # while the other waits
        consumer.run(2)
        thread.join(30)
        assert second.result(timeout=30) == 2

    def test_many_threads_share_a_client(self, client, consumer):
        found: list[int] = []

        def work(number: int) -> None:
            found.append(client.submit("t:f", number).result(timeout=20))

        threads = [
            threading.Thread(target=work, args=[number]) for number in range(25)
        ]  # more than wait at a time
        for thread in threads:
            thread.start()
        consumer.run(25)
        for thread in threads:
            thread.join(20)
        assert sorted(found) == list(range(25))


class TestMap:
    def test_results_come_in_input_order_whatever_ends_first(self, client, consumer):
        results = client.map("t:f", [1, 2, 3], "abc")
        thread = consumer.later(3)
        assert list(results) == [[1, "a", {}], [2, "b", {}], [3, "c", {}]]
        thread.join()

    def test_jobs_are_submitted_at_once(self, client):
        client.map("t:f", range(10))
        assert client.stats().queues[0].ready == 10

    def test_it_raises_when_the_turn_of_a_failed_job_comes(self, client, consumer):
        results = client.map("t:f", [1, "fail", 3])
        consumer.run(3)
        assert next(results) == 1
        with pytest.raises(JobFailed):
            next(results)

    def test_the_time_counts_from_the_call(self, client, consumer):
        results = client.map("t:f", [1, 2], timeout=0.1)
        consumer.run(1)
        assert next(results) == 1
        with pytest.raises(ResultTimeout, match="1 job has not ended"):
            next(results)

    def test_more_jobs_than_fit_a_page(self, client, consumer):
        results = client.map("t:f", range(2500))
        thread = consumer.later(2500)
        assert list(results) == list(range(2500))
        thread.join()


class TestAsCompleted:
    def test_jobs_of_one_submission_come_as_they_end(self, client, consumer):
        jobs = client.submit_many("t:f", [(1,), ("fail",), (3,)])
        thread = consumer.later(3)
        assert list(client.as_completed(jobs, timeout=30)) == jobs
        thread.join()

    def test_so_do_jobs_of_several(self, client, queue, consumer):
        with BrokerClient(lambda: LocalBroker(queue)) as other:
            jobs = [client.submit("t:f", 1), other.submit("t:f", 2), *client.submit_many("t:f", [(3,)])]
        thread = consumer.later(3)
        assert set(client.as_completed(jobs, timeout=30)) == set(jobs)
        thread.join()

    def test_each_comes_once(self, client, consumer):
        job = client.submit("t:f")
        consumer.run()
        assert list(client.as_completed([job, job.id, job], timeout=30)) == [job]

    def test_those_that_do_not_end_in_time_raise(self, client, queue, consumer):
        with BrokerClient(lambda: LocalBroker(queue)) as other:
            mixed = [client.submit("t:f", 1), other.submit("t:f", 2)]
        consumer.run(1)
        found = client.as_completed(mixed, timeout=0.1)
        assert next(found) == mixed[0]
        with pytest.raises(ResultTimeout, match="1 job has not ended"):
            next(found)

    def test_of_nothing_comes_nothing(self, client):
        assert list(client.as_completed([])) == []


def test_a_handle_is_its_id(client):
    job = client.job("k3v9x0m2q7w1z-0")
    assert repr(job) == "Job('k3v9x0m2q7w1z-0')"
    assert job == client.job(job.id)
    assert job != job.id
