"""The executor on the real queue in memory, whose jobs are run in place by a consumer's own runner."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import itertools
import operator
import threading
import weakref
from typing import Any

import pytest

from svc.broker.local import LocalBroker
from svc.client.executor import Executor
from svc.client.futures import Future, RemoteTraceback
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

TASKS = [tasks.__name__]
_BAD_OPTIONS = [
    ("strict", "yes"),
    ("strict", 2),
    ("codec", "nope"),
    ("priority", 2**70),
    ("queue", "caf\udce9"),
]
ACCEPT = ["plain", "pickle"]


@pytest.fixture
def executor(queue):
    """An executor of tasks and data."""
    executor = Executor(local_client(queue), patience=5.0)
    yield executor
    executor.shutdown(wait=False, cancel_futures=True)


@pytest.fixture
def pickling(queue):
    """An executor of any callable."""
    executor = Executor(local_client(queue), codec="pickle", patience=5.0)
    yield executor
    executor.shutdown(wait=False, cancel_futures=True)


@pytest.fixture
def run(queue, executor, pickling):
    """Run all that was submitted; return how many attempts that took."""

    def run() -> int:
        executor.flush(5)
        pickling.flush(5)
        return run_jobs(queue, TASKS, accept=ACCEPT)

    return run


class TestSubmit:
    def test_a_function_that_workers_serve_goes_by_its_name(self, executor, run):
        future = executor.submit(tasks.add, 2, b=3)
        run()
        assert future.result(timeout=5) == 5

    def test_so_does_a_name(self, executor, run):
        future = executor.submit(f"{tasks.__name__}:add", 2, 3)
        run()
        assert future.result(timeout=5) == 5

    def test_any_callable_goes_where_pickle_is_the_codec(self, pickling, run):
        futures = [pickling.submit(pow, 2, 8), pickling.submit("-".join, ["a", "b"])]
        futures.append(pickling.submit(operator.itemgetter(1), {1: "one"}))
        run()
        assert [future.result(timeout=5) for future in futures] == [256, "a-b", "one"]

    def test_its_result_comes_back_as_it_was(self, pickling, run):
        future = pickling.submit(tasks.as_it_is, ((1, 2), {3}))
        run()
        assert future.result(timeout=5) == ((1, 2), {3})

    def test_even_where_it_is_a_coroutine(self, pickling, run):
        future = pickling.submit(tasks.later, 7)
        run()
        assert future.result(timeout=5) == 7

    def test_a_marked_task_goes_by_name_even_there(self, pickling, run):
        future = pickling.submit(tasks.marked, 1)
        run()
        assert future.result(timeout=5) == [1, 2], "its result is plain data, as its task says"

    def test_keywords_may_have_the_names_of_our_own_parameters(self, pickling, run):
        future = pickling.submit(dict, self=1, fn=2, function=3, target=4)
        run()
        assert future.result(timeout=5) == {"self": 1, "fn": 2, "function": 3, "target": 4}

    def test_the_id_is_known_at_once_and_that_of_the_job(self, queue, executor, run):
        futures = [executor.submit(name, 1, 2) for name in ("a:x", "a:y", tasks.add)]
        futures.append(executor.options(priority=3, delay=60).submit("a:x"))
        executor.flush(5)
        views = [local_client(queue).view(future.job_id) for future in futures]
        assert [view.task for view in views] == ["a:x", "a:y", f"{tasks.__name__}:add", "a:x"]
        assert (views[3].priority, views[3].state) == (3, "scheduled")

    def test_more_jobs_than_fit_a_frame_all_come_in_order(self, executor, run):
        futures = [executor.submit(tasks.add, number, 1) for number in range(2500)]
        assert run() == 2500
        assert [future.result(timeout=5) for future in futures] == list(range(1, 2501))

    def test_jobs_of_one_loop_travel_together(self, queue):
        frames: list[int] = []

        class Counting(LocalBroker):
            def submit(self, origin, chunks, *, strict=False):
                frames.append(sum(len(chunk.bodies) for chunk in chunks))
                return super().submit(origin, chunks, strict=strict)

        with Executor(lambda: Counting(queue)) as executor:
            for number in range(1000):
                executor.submit(tasks.add, number, 1)
            executor.flush(5)
            assert sum(frames) == 1000
            assert len(frames) < 500
            executor.shutdown(wait=False, cancel_futures=True)

    def test_submit_blocks_while_too_much_waits_to_be_sent(self, queue, monkeypatch):
        monkeypatch.setattr("svc.client.pipeline.WAITING_JOBS_MAX", 3)
        gate = threading.Event()

        class Held(LocalBroker):
            def submit(self, origin, chunks, *, strict=False):
                gate.wait(10)
                return super().submit(origin, chunks, strict=strict)

        executor = Executor(lambda: Held(queue))
        sent: list[Future] = []
        thread = threading.Thread(target=lambda: sent.extend(executor.submit("t:f") for _ in range(8)))
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
        gate.set()
        thread.join(10)
        executor.shutdown(wait=False, cancel_futures=True)
        assert len({future.job_id for future in sent}) == 8


class TestRetries:
    def test_a_callable_is_called_once(self, executor, pickling, run):
        futures = [executor.submit(tasks.fail, "twice"), pickling.submit(tasks.fail, "twice")]
        assert run() == 2
        for future in futures:
            with pytest.raises((JobFailed, ValueError), match="twice"):
                future.result(timeout=5)

    def test_a_task_is_tried_again_as_it_declares(self, queue, executor, run):
        future = executor.submit(tasks.stubborn)
        assert run() == 1
        assert local_client(queue).view(future.job_id).state == "scheduled"

    def test_an_option_has_the_last_word(self, executor, run):
        future = executor.options(retries=0).submit(tasks.stubborn)
        run()
        with pytest.raises(JobFailed):
            future.result(timeout=5)


class TestErrors:
    def test_a_failed_job_has_the_traceback_of_its_consumer_as_cause(self, executor, run):
        future = executor.submit(tasks.fail, "as told")
        run()
        error = future.exception(timeout=5)
        assert isinstance(error, JobFailed)
        assert error.job_id == future.job_id
        assert isinstance(error.__cause__, RemoteTraceback)
        assert "raise ValueError(message)\nValueError: as told" in str(error.__cause__)

    def test_with_pickle_it_is_the_exception_itself(self, pickling, run):
        future = pickling.submit(tasks.fail, "as told")
        run()
        error = future.exception(timeout=5)
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
        assert isinstance(future.exception(timeout=5), JobFailed)

    @pytest.mark.parametrize("kind", ["noteless", "deadly"])
    def test_or_where_its_own_code_ends_who_reads_it(self, pickling, run, kind):
        future = pickling.submit(tasks.fail_with, kind)
        run()
        error = future.exception(timeout=5)
        assert isinstance(error, JobFailed)
        assert (error.type, error.message, error.attempts) == (kind.capitalize(), "as told", 1)

    def test_a_bad_option_fails_its_own_future_alone(self, executor, run):
        good = [executor.submit("t:f") for _ in range(50)]
        bad = [executor.options(**{name: value}).submit("t:f") for name, value in _BAD_OPTIONS]
        assert executor.flush(5)
        assert all(isinstance(future.exception(timeout=5), BadRequest) for future in bad)
        assert not any(future.done() for future in good)

    def test_a_task_that_exits_does_not_end_its_caller(self, pickling, run):
        future = pickling.submit(tasks.leave)
        run()
        assert isinstance(future.exception(timeout=5), JobFailed)

    def test_nothing_is_unpickled_where_pickle_is_not_the_codec(self, queue, pickling, executor, run):
        """Also not for a job that somebody else submitted with that codec."""
        bad, good = pickling.submit(tasks.fail, "as told"), pickling.submit(tasks.as_it_is, (1,))
        run()
        concurrent.futures.wait([bad, good], timeout=5)
        assert isinstance(executor.future(bad.job_id).exception(timeout=5), JobFailed)
        assert isinstance(executor.future(good.job_id).exception(timeout=5), CodecError)

    def test_arguments_that_cannot_be_encoded_fail_their_future(self, executor, pickling):
        assert isinstance(executor.submit(tasks.add, object()).exception(timeout=0), CodecError)
        assert isinstance(pickling.submit(len, threading.Lock()).exception(timeout=0), CodecError)
        assert executor.submit(tasks.add, object()).cancel() is False

    def test_a_refused_job_fails_alone(self, executor, run):
        futures = [executor.submit(tasks.add, text, text) for text in ("a", "b" * 9999, "c")]
        executor.flush(5)
        assert isinstance(futures[1].exception(timeout=5), JobTooLarge)
        assert not futures[0].done()
        assert not futures[2].done()
        assert isinstance(executor.options(strict=True).submit("no:task").exception(timeout=5), UnknownTask)

    def test_a_full_queue_is_told_to_those_it_has_no_room_for(self, executor):
        futures = [executor.submit("t:f", number) for number in range(6000)]
        executor.flush(10)
        refused = [future for future in futures if future.done()]
        assert refused
        assert all(isinstance(future.exception(), QueueFull) for future in refused)
        assert refused[0].exception() is not refused[1].exception()

    def test_a_manager_that_is_away_fails_what_was_not_sent_and_the_executor_goes_on(self, queue, run):
        away = threading.Event()
        away.set()

        class Flaky(LocalBroker):
            def submit(self, origin, chunks, *, strict=False):
                if away.is_set():
                    raise ManagerUnreachable("away")
                return super().submit(origin, chunks, strict=strict)

        with Executor(lambda: Flaky(queue)) as executor:
            assert isinstance(executor.submit(tasks.add, 1, 1).exception(timeout=5), ManagerUnreachable)
            away.clear()
            future = executor.submit(tasks.add, 1, 2)
            executor.flush(5)
            run()
            assert future.result(timeout=5) == 3

    def test_one_that_stays_away_fails_what_it_had(self, queue):
        executor = Executor(local_client(queue), patience=0.1)
        future = executor.submit(tasks.add, 1, 1)
        executor.flush(5)
        queue.close()
        assert isinstance(future.exception(timeout=10), ManagerUnreachable)
        executor.shutdown()

    def test_a_job_whose_retention_has_passed_is_noticed(self, queue, monkeypatch):
        """An outcome that was dropped before it could be collected must not be waited for for ever."""
        monkeypatch.setattr("svc.client.collector.SLICE_SECONDS", 0.0)
        monkeypatch.setattr("svc.client.collector.LOOK_SECONDS", 0.01)
        with Executor(local_client(queue)) as executor:
            future = executor.submit(tasks.add, 1, 1)
            executor.flush(5)
            queue.host.state.ledger.origins.discard(executor._dispatch.pipeline.own_origin)
            assert isinstance(future.exception(timeout=5), UnknownJob)

    def test_mistakes_are_told_at_once(self, queue, executor):
        with pytest.raises(ConfigurationError, match="codecs are plain, pickle"):
            Executor(local_client(queue), codec="json")
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
            future.result(timeout=5)

    def test_one_that_has_ended_is_not(self, executor, run):
        future = executor.submit(tasks.add, 1, 1)
        run()
        assert future.result(timeout=5) == 2
        assert future.cancel() is False
        assert not future.cancelled()

    def test_one_that_runs_is_not(self, queue, executor):
        future = executor.submit(tasks.add, 1, 1)
        executor.flush(5)
        answers: list[bool] = []
        tasks.HOOK.append(lambda: answers.append(future.cancel()))
        run_jobs(queue, TASKS)
        assert answers == [False]
        assert future.result(timeout=5) == 2

    def test_a_job_that_another_client_cancels_ends_as_cancelled(self, queue, executor):
        future = executor.submit(tasks.add, 1, 1)
        executor.flush(5)
        assert local_client(queue).cancel([future.job_id]) == 1
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(timeout=5)

    def test_a_manager_that_is_away_cancels_nothing(self, queue, executor):
        future = executor.submit(tasks.add, 1, 1)
        executor.flush(5)
        queue.close()
        assert future.cancel() is False


class TestMap:
    def test_results_come_in_order(self, executor, run):
        results = executor.map(tasks.add, range(5), range(5))
        run()
        assert list(results) == [0, 2, 4, 6, 8]

    @pytest.mark.parametrize("chunksize", [1, 3, 10, 99])
    def test_chunks_make_jobs_not_results_larger(self, pickling, run, chunksize):
        results = pickling.map(pow, range(10), range(10), chunksize=chunksize)
        assert run() == -(-10 // chunksize)
        assert list(results) == list(map(pow, range(10), range(10)))

    def test_tasks_are_a_job_each_whatever_the_chunksize(self, executor, run):
        results = executor.map(tasks.add, range(4), range(4), chunksize=3)
        assert run() == 4
        assert list(results) == [0, 2, 4, 6]

    def test_a_buffer_bounds_what_is_submitted_ahead(self, queue, executor, run):
        taken: list[int] = []

        def numbers():
            for number in range(6):
                taken.append(number)
                yield number

        results = executor.map(tasks.add, numbers(), [1] * 6, buffersize=2)
        assert taken == [0, 1]
        run()
        assert next(results) == 1
        assert taken == [0, 1, 2]
        run()
        assert next(results) == 2
        assert taken == [0, 1, 2, 3]
        results.close()
        assert local_client(queue).stats().queues[0].cancelled >= 1

    def test_so_it_takes_from_what_never_ends(self, queue, executor, run):
        results = executor.map(tasks.add, itertools.count(), itertools.repeat(0), buffersize=1)
        run()
        assert next(results) == 0

    def test_a_failure_raises_in_its_turn(self, pickling, run):
        results = pickling.map(divmod, [1, 1], [1, 0])
        run()
        assert next(results) == (1, 0)
        with pytest.raises(ZeroDivisionError):
            next(results)

    def test_what_is_left_when_the_time_is_up_is_cancelled(self, queue, executor):
        with pytest.raises(TimeoutError):
            next(executor.map(tasks.add, [1, 2, 3], [1, 2, 3], timeout=0.05))
        assert local_client(queue).stats().queues[0].cancelled == 3

    def test_nothing_gives_nothing(self, executor):
        assert list(executor.map(tasks.add, [], [])) == []

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"chunksize": 0}, ValueError),
            ({"buffersize": 0}, ValueError),
            ({"buffersize": "2"}, TypeError),
        ],
    )
    def test_senseless_sizes_are_refused(self, executor, options, error):
        with pytest.raises(error):
            executor.map(tasks.add, [1], [2], **options)


class TestFutureById:
    def test_it_is_the_same_one_while_it_waits(self, executor):
        future = executor.submit(tasks.add, 1, 1)
        assert executor.future(future.job_id) is future

    def test_another_executor_finds_it_before_and_after_its_end(self, queue, executor, run):
        future = executor.submit(tasks.add, 1, 1)
        executor.flush(5)
        with Executor(local_client(queue)) as other:
            early = other.future(future.job_id)
            assert not early.done()
            assert other.future(future.job_id) is early
            run()
            assert early.result(timeout=5) == 2
            assert other.future(future.job_id).result(timeout=0) == 2

    def test_it_can_be_cancelled_from_there(self, queue, executor):
        future = executor.submit(tasks.add, 1, 1)
        executor.flush(5)
        with Executor(local_client(queue)) as other:
            assert other.future(future.job_id).cancel() is True
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(timeout=5)

    def test_an_unknown_job_raises(self, executor):
        with pytest.raises(UnknownJob):
            executor.future("k3v9x0m2q7w1z-0")


class TestEnd:
    def test_leaving_the_block_waits_for_all(self, queue):
        with Executor(local_client(queue)) as executor:
            future = executor.submit(tasks.add, 1, 1)
            executor.flush(5)
            timer = threading.Timer(0.05, run_jobs, [queue, TASKS])
            timer.start()
        assert future.done()
        timer.join()

    @pytest.mark.parametrize(
        "ask", [lambda e: e.submit(pow, 1), lambda e: e.options(queue="x").submit("t:f")]
    )
    def test_nothing_is_taken_afterwards(self, executor, ask):
        executor.shutdown()
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            ask(executor)

    def test_what_was_submitted_is_durable_even_if_nobody_waits(self, queue, executor):
        futures = [executor.submit("t:f", number) for number in range(1500)]
        executor.shutdown(wait=False)
        assert local_client(queue).stats().queues[0].ready == 1500
        assert not any(future.done() for future in futures)

    def test_waiting_jobs_are_cancelled_on_request(self, queue, executor):
        futures = [executor.submit("t:f", number) for number in range(1500)]
        executor.shutdown(cancel_futures=True)
        assert all(future.cancelled() for future in futures)
        assert local_client(queue).stats().queues[0].cancelled == 1500

    def test_it_may_be_said_twice_and_from_a_callback(self, executor, run):
        future = executor.submit(tasks.add, 1, 1)
        ended = threading.Event()

        def end(future):
            executor.shutdown()
            ended.set()

        future.add_done_callback(end)
        run()
        assert ended.wait(5)
        executor.shutdown()

    def test_a_dropped_executor_ends_its_threads_when_its_last_future_ends(self, queue):
        before = set(threading.enumerate())
        executor = Executor(local_client(queue))
        future = executor.options(queue="default").submit(tasks.add, 1, 1)
        executor.flush(5)
        threads = set(threading.enumerate()) - before
        assert len(threads) == 2
        gone = weakref.ref(executor)
        del executor
        gc.collect()
        assert gone() is None
        run_jobs(queue, TASKS)
        assert future.result(timeout=5) == 2
        for thread in threads:
            thread.join(5)
            assert not thread.is_alive()

    def test_no_connection_is_closed_under_a_call_that_still_waits_for_its_answer(self, queue):
        """The outcome of a job may overtake the acknowledgement of its submit."""
        gate, ended = threading.Event(), threading.Event()
        closed: list[bool] = []

        class Late(LocalBroker):
            def submit(self, origin, chunks, *, strict=False):
                notes = super().submit(origin, chunks, strict=strict)
                gate.wait(5)
                run_jobs(queue, TASKS)
                ended.wait(5)
                collector.join(5)
                closed.append(self.closed)
                return notes

            closed = False

            def close(self):
                self.closed = True

        executor = Executor(lambda: Late(queue))
        before = set(threading.enumerate())
        executor.submit(tasks.add, 1, 1).add_done_callback(lambda _: ended.set())
        (collector,) = (
            each for each in set(threading.enumerate()) - before if each.name == "svc-executor-collect"
        )
        threading.Timer(0.02, gate.set).start()
        executor.shutdown()
        assert closed == [False]

    def test_one_that_was_never_used_makes_no_connection_and_no_thread(self):
        def connect():
            raise AssertionError("connected")

        before = threading.active_count()
        Executor(connect).shutdown()
        assert threading.active_count() == before

    def test_all_threads_are_daemons(self, executor):
        executor.submit("t:f")
        assert executor._dispatch.pipeline._thread.daemon
        assert executor._dispatch.collector._thread.daemon


class TestCallbacks:
    def test_one_may_submit_and_cancel(self, executor, run):
        other = executor.submit("t:f")
        found: list[Any] = []
        ended = threading.Event()

        def follow_up(future):
            found.append(other.cancel())
            found.append(executor.submit(tasks.add, future.result(), 1))
            ended.set()

        executor.submit(tasks.add, 1, 1).add_done_callback(follow_up)
        run()
        assert ended.wait(5)
        run()
        assert found[0] is True
        assert found[1].result(timeout=5) == 3

    def test_even_one_that_runs_because_a_job_was_refused(self, executor):
        """It runs in the thread that submits, which must not wait for itself."""
        other: list[Future] = []
        answers: list[object] = []
        ended = threading.Event()

        def follow_up(future):
            answers.append(other[0].cancel())
            answers.append(executor.submit("t:f"))
            ended.set()

        future = executor.options(strict=True).submit("no:task")
        other.append(executor.submit("t:f"))
        future.add_done_callback(follow_up)
        assert ended.wait(5)
        assert answers[0] in (True, False)
        assert executor.flush(5)


class TestWithTheStandardLibrary:
    def test_wait_and_as_completed_take_its_futures(self, executor, run):
        futures = [executor.submit(tasks.add, number, 0) for number in range(3)]
        late = executor.submit("t:f")
        run()
        done, waiting = concurrent.futures.wait([*futures, late], timeout=0.2)
        assert (done, waiting) == (set(futures), {late})
        assert set(concurrent.futures.as_completed(futures, timeout=5)) == set(futures)

    def test_it_is_an_executor(self, executor):
        assert issubclass(Executor, concurrent.futures.Executor)
        assert isinstance(executor.submit("t:f"), concurrent.futures.Future)

    def test_a_coroutine_can_await_it(self, executor, queue):
        async def main() -> int:
            call = asyncio.get_running_loop().run_in_executor(executor, tasks.add, 1, 2)
            await asyncio.to_thread(executor.flush, 5)
            await asyncio.to_thread(run_jobs, queue, TASKS)
            return await call

        assert asyncio.run(main()) == 3
