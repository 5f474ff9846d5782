"""The executor on the real queue in memory, whose jobs are run in place by a consumer's own runner."""

from __future__ import annotations

import concurrent.futures
import itertools
import operator
import threading

import pytest

from svc.broker.local import LocalBroker
from svc.client.executor import BrokerExecutor
from svc.client.futures import Future
from svc.errors import (
    JobFailed,
    UnknownJob,
)
from svc.testing import local_client
from tests.support import executor_tasks as tasks


class TestSubmit:
    def test_a_function_that_workers_serve_goes_by_its_name(self, executor, run):
        future = executor.submit(tasks.add, 2, b=3)
        run()
        assert future.result(timeout=30) == 5

    def test_so_does_a_name(self, executor, run):
        future = executor.submit(f"{tasks.__name__}:add", 2, 3)
        run()
        assert future.result(timeout=30) == 5

    def test_any_callable_goes_where_pickle_is_the_codec(self, pickling, run):
        futures = [pickling.submit(pow, 2, 8), pickling.submit("-".join, ["a", "b"])]
        futures.append(pickling.submit(operator.itemgetter(1), {1: "one"}))
        run()
        assert [future.result(timeout=30) for future in futures] == [256, "a-b", "one"]

    def test_its_result_comes_back_as_it_was(self, pickling, run):
        future = pickling.submit(tasks.as_it_is, ((1, 2), {3}))
        run()
        assert future.result(timeout=30) == ((1, 2), {3})

    def test_even_where_it_is_a_coroutine(self, pickling, run):
        future = pickling.submit(tasks.later, 7)
        run()
        assert future.result(timeout=30) == 7

    def test_a_marked_task_goes_by_name_even_there(self, pickling, run):
        future = pickling.submit(tasks.marked, 1)
        run()
        assert future.result(timeout=30) == (1, 2)

    def test_keywords_may_have_the_names_of_our_own_parameters(self, pickling, run):
        future = pickling.submit(dict, self=1, fn=2, function=3, target=4)
        run()
        assert future.result(timeout=30) == {"self": 1, "fn": 2, "function": 3, "target": 4}

    def test_the_id_is_known_at_once_and_that_of_the_job(self, queue, executor, run):
        futures = [executor.submit(name, 1, 2) for name in ("a:x", "a:y", tasks.add)]
        futures.append(executor.options(priority=3, delay=60).submit("a:x"))
        executor.flush(30)
        views = [local_client(queue).view(future.job_id) for future in futures]
        assert [view.task for view in views] == ["a:x", "a:y", f"{tasks.__name__}:add", "a:x"]
        assert (views[3].priority, views[3].state) == (3, "scheduled")

    def test_more_jobs_than_fit_a_frame_all_come_in_order(self, executor, run):
        futures = [executor.submit(tasks.add, number, 1) for number in range(2500)]
        assert run() == 2500
        assert [future.result(timeout=30) for future in futures] == list(range(1, 2501))

    def test_jobs_of_one_loop_travel_together(self, queue):
        frames: list[int] = []

        class Counting(LocalBroker):
            def submit(self, origin, chunks, *, strict=False, under=0):
                frames.append(sum(len(chunk.bodies) for chunk in chunks))
                return super().submit(origin, chunks, strict=strict, under=under)

        with BrokerExecutor(lambda: Counting(queue)) as executor:
            for number in range(1000):
                executor.submit(tasks.add, number, 1)
            executor.flush(30)
            assert sum(frames) == 1000
            assert len(frames) < 500
            executor.shutdown(wait=False, cancel_futures=True)

    def test_submit_blocks_while_too_much_waits_to_be_sent(self, queue, monkeypatch):
        monkeypatch.setattr("svc.client.pipeline.WAITING_JOBS_MAX", 3)
        gate = threading.Event()

        class Held(LocalBroker):
            def submit(self, origin, chunks, *, strict=False, under=0):
                gate.wait(30)
                return super().submit(origin, chunks, strict=strict, under=under)

        executor = BrokerExecutor(lambda: Held(queue))
        sent: list[Future] = []
        thread = threading.Thread(target=lambda: sent.extend(executor.submit("t:f") for _ in range(8)))
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
        gate.set()
        thread.join(30)
        executor.shutdown(wait=False, cancel_futures=True)
        assert len({future.job_id for future in sent}) == 8


class TestRetries:
    def test_a_callable_is_called_once(self, executor, pickling, run):
        futures = [executor.submit(tasks.fail, "twice"), pickling.submit(tasks.fail, "twice")]
        assert run() == 2
        for future in futures:
            with pytest.raises((JobFailed, ValueError), match="twice"):
                future.result(timeout=30)

    def test_a_task_is_tried_again_as_it_declares(self, queue, executor, run):
        future = executor.submit(tasks.stubborn)
        assert run() == 1
        assert local_client(queue).view(future.job_id).state == "scheduled"

    def test_an_option_has_the_last_word(self, executor, run):
        future = executor.options(retries=0).submit(tasks.stubborn)
        run()
        with pytest.raises(JobFailed):
            future.result(timeout=30)


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
        executor.flush(30)
        with BrokerExecutor(local_client(queue)) as other:
            early = other.future(future.job_id)
            assert not early.done()
            assert other.future(future.job_id) is early
            run()
            assert early.result(timeout=30) == 2
            assert other.future(future.job_id).result(timeout=0) == 2

    def test_it_can_be_cancelled_from_there(self, queue, executor):
        future = executor.submit(tasks.add, 1, 1)
        executor.flush(30)
        with BrokerExecutor(local_client(queue)) as other:
            assert other.future(future.job_id).cancel() is True
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(timeout=30)

    def test_an_unknown_job_raises(self, executor):
        with pytest.raises(UnknownJob):
            executor.future("k3v9x0m2q7w1z-0")
