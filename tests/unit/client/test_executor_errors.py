"""Errors and cancels of an executor."""

from __future__ import annotations

import concurrent.futures
import threading

import pytest

from svc.broker.local import LocalBroker
from svc.client.executor import BrokerExecutor
from svc.client.futures import RemoteTraceback
from svc.errors import (
    BadRequest,
    CodecError,
    ConfigurationError,
    JobFailed,
    JobTooLarge,
    ManagerUnreachable,
    QueueFull,
    UnknownJob,
    UnknownTask,
)
from svc.testing import local_client, run_jobs
from tests.support import executor_tasks as tasks
from tests.support.workers import until
from tests.unit.client.conftest import TASKS

_BAD_OPTIONS = [
    ("strict", "yes"),
    ("strict", 2),
    ("codec", "nope"),
    ("priority", 2**70),
    ("queue", "caf\udce9"),
]


class TestErrors:
    def test_a_failed_job_has_the_traceback_of_its_consumer_as_cause(self, executor, run):
        future = executor.submit(tasks.fail, "as told")
        run()
        error = future.exception(timeout=30)
        assert isinstance(error, JobFailed)
        assert error.job_id == future.job_id
        assert isinstance(error.__cause__, RemoteTraceback)
        assert "raise ValueError(message)\nValueError: as told" in str(error.__cause__)

    def test_a_manager_that_is_away_while_a_job_of_others_is_looked_up_fails_no_future(
        self, queue, executor, run, monkeypatch
    ):
        """Nor does it while the executor waits for outcomes: it may be away for as long as its patience."""
        submitted = executor.submit(tasks.add, 1, 1)
        executor.flush(30)
        lost: list[list[str]] = []
        get = LocalBroker.get

        def away(broker, ids, *, content=False):
            if len(lost) < 3:
                lost.append(ids)
                raise ManagerUnreachable("it restarts")
            return get(broker, ids, content=content)

        with BrokerExecutor(local_client(queue), patience=30.0) as other:
            future = other.future(submitted.job_id)
            monkeypatch.setattr(LocalBroker, "get", away)
            until(lambda: len(lost) == 3)
            run()
            assert future.result(timeout=30) == 2

    def test_with_pickle_it_is_the_exception_itself(self, pickling, run):
        future = pickling.submit(tasks.fail, "as told")
        run()
        error = future.exception(timeout=30)
        assert type(error) is ValueError
        assert error.args == ("as told",)
        assert "raise ValueError(message)" in str(error.__cause__)
        assert error.__notes__ == [f"raised by job {future.job_id}"]

    @pytest.mark.parametrize(
        "function", [tasks.fail_unpicklably, tasks.fail_and_unpickle_not, tasks.fail_hugely]
    )
    def test_or_the_usual_error_where_that_cannot_travel(self, pickling, run, function):
        future = pickling.submit(function)
        run()
        assert isinstance(future.exception(timeout=30), JobFailed)

    @pytest.mark.parametrize("kind", ["noteless", "deadly"])
    def test_or_where_its_own_code_ends_who_reads_it(self, pickling, run, kind):
        future = pickling.submit(tasks.fail_with, kind)
        run()
        error = future.exception(timeout=30)
        assert isinstance(error, JobFailed)
        assert (error.type, error.message, error.attempts) == (kind.capitalize(), "as told", 1)

    def test_a_bad_option_fails_its_own_future_alone(self, executor, run):
        good = [executor.submit("t:f") for _ in range(50)]
        bad = [executor.options(**{name: value}).submit("t:f") for name, value in _BAD_OPTIONS]
        assert executor.flush(30)
        assert all(isinstance(future.exception(timeout=30), BadRequest) for future in bad)
        assert not any(future.done() for future in good)

    def test_a_task_that_exits_does_not_end_its_caller(self, pickling, run):
        future = pickling.submit(tasks.leave)
        run()
        assert isinstance(future.exception(timeout=30), JobFailed)

    def test_nothing_is_unpickled_where_pickle_is_not_the_codec(self, queue, pickling, executor, run):
        """Also not for a job that somebody else submitted with that codec."""
        bad, good = pickling.submit(tasks.fail, "as told"), pickling.submit(tasks.as_it_is, (1,))
        run()
        concurrent.futures.wait([bad, good], timeout=30)
        assert isinstance(executor.future(bad.job_id).exception(timeout=30), JobFailed)
        assert isinstance(executor.future(good.job_id).exception(timeout=30), CodecError)

    def test_arguments_that_cannot_be_encoded_fail_their_future(self, executor, pickling):
        assert isinstance(executor.submit(tasks.add, object()).exception(timeout=0), CodecError)
        assert isinstance(pickling.submit(len, threading.Lock()).exception(timeout=0), CodecError)
        assert executor.submit(tasks.add, object()).cancel() is False

    def test_a_refused_job_fails_alone(self, executor, run):
        futures = [executor.submit(tasks.add, text, text) for text in ("a", "b" * 9999, "c")]
        executor.flush(30)
        assert isinstance(futures[1].exception(timeout=30), JobTooLarge)
        assert not futures[0].done()
        assert not futures[2].done()
        assert isinstance(executor.options(strict=True).submit("no:task").exception(timeout=30), UnknownTask)

    def test_a_full_queue_is_told_to_those_it_has_no_room_for(self, executor):
        futures = [executor.submit("t:f", number) for number in range(6000)]
        executor.flush(30)
        refused = [future for future in futures if future.done()]
        assert refused
        assert all(isinstance(future.exception(), QueueFull) for future in refused)
        assert refused[0].exception() is not refused[1].exception()

    def test_a_manager_that_is_away_fails_what_was_not_sent_and_the_executor_goes_on(self, queue, run):
        away = threading.Event()
        away.set()

        class Flaky(LocalBroker):
            def submit(self, origin, chunks, *, strict=False, under=0):
                if away.is_set():
                    raise ManagerUnreachable("away")
                return super().submit(origin, chunks, strict=strict, under=under)

        with BrokerExecutor(lambda: Flaky(queue)) as executor:
            assert isinstance(executor.submit(tasks.add, 1, 1).exception(timeout=30), ManagerUnreachable)
            away.clear()
            future = executor.submit(tasks.add, 1, 2)
            executor.flush(30)
            run()
            assert future.result(timeout=30) == 3

    def test_one_that_stays_away_fails_what_it_had(self, queue):
        executor = BrokerExecutor(local_client(queue), patience=0.1)
        future = executor.submit(tasks.add, 1, 1)
        executor.flush(30)
        queue.close()
        assert isinstance(future.exception(timeout=30), ManagerUnreachable)
        executor.shutdown()

    def test_a_job_whose_retention_has_passed_is_noticed(self, queue, monkeypatch):
        """An outcome that was dropped before it could be collected must not be waited for for ever."""
        monkeypatch.setattr("svc.client.collector.SLICE_SECONDS", 0.0)
        monkeypatch.setattr("svc.client.collector.LOOK_SECONDS", 0.01)
        with BrokerExecutor(local_client(queue)) as executor:
            future = executor.submit(tasks.add, 1, 1)
            executor.flush(30)
            queue.host.state.ledger.origins.discard(executor._dispatch.pipeline.own_origin)
            assert isinstance(future.exception(timeout=30), UnknownJob)

    def test_mistakes_are_told_at_once(self, queue, executor):
        with pytest.raises(ConfigurationError, match="codecs are plain, pickle"):
            BrokerExecutor(local_client(queue), codec="json")
        with pytest.raises(TypeError, match="key"):
            executor.options(key="k")
        with pytest.raises(TypeError):
            executor.options(colour="red")


class TestCancel:
    def test_a_waiting_job_is_cancelled_at_the_manager(self, queue, executor):
        future = executor.submit(tasks.add, 1, 1)
        assert future.cancel() is True
        assert future.cancel() is True
        assert future.cancelled()
        assert local_client(queue).view(future.job_id).state == "cancelled"
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(timeout=30)

    def test_one_that_has_ended_is_not(self, executor, run):
        future = executor.submit(tasks.add, 1, 1)
        run()
        assert future.result(timeout=30) == 2
        assert future.cancel() is False
        assert not future.cancelled()

    def test_one_that_runs_is_and_its_result_counts_no_more(self, queue, executor):
        future = executor.submit(tasks.add, 1, 1)
        executor.flush(30)
        answers: list[bool] = []
        tasks.HOOK.append(lambda: answers.append(future.cancel()))
        run_jobs(queue, TASKS)
        assert answers == [True]
        assert future.cancelled()
        assert local_client(queue).view(future.job_id).state == "cancelled"

    def test_a_job_that_another_client_cancels_ends_as_cancelled(self, queue, executor):
        future = executor.submit(tasks.add, 1, 1)
        executor.flush(30)
        assert local_client(queue).cancel([future.job_id]) == 1
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(timeout=30)

    def test_a_manager_that_is_away_cancels_nothing(self, queue, executor):
        future = executor.submit(tasks.add, 1, 1)
        executor.flush(30)
        queue.close()
        assert future.cancel() is False
