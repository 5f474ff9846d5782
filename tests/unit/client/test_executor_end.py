"""The end of an executor, callbacks of its futures, and its use by the standard library."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import weakref
from typing import Any

import pytest

from svc.broker.local import LocalBroker
from svc.client.executor import BrokerExecutor
from svc.client.futures import Future
from svc.testing import local_client, run_jobs
from tests.support import executor_tasks as tasks
from tests.unit.client.conftest import TASKS


class TestEnd:
    def test_leaving_the_block_waits_for_all(self, queue):
        with BrokerExecutor(local_client(queue)) as executor:
            future = executor.submit(tasks.add, 1, 1)
            executor.flush(30)
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
        assert ended.wait(30)
        executor.shutdown()

    def test_a_dropped_executor_ends_its_threads_when_its_last_future_ends(self, queue):
        before = set(threading.enumerate())
        executor = BrokerExecutor(local_client(queue))
        future = executor.options(queue="default").submit(tasks.add, 1, 1)
        executor.flush(30)
        threads = set(threading.enumerate()) - before
        assert len(threads) == 2
        gone = weakref.ref(executor)
        del executor
        gc.collect()
        assert gone() is None
        run_jobs(queue, TASKS)
        assert future.result(timeout=30) == 2
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()

    def test_no_connection_is_closed_under_a_call_that_still_waits_for_its_answer(self, queue):
        """The outcome of a job may overtake the acknowledgement of its submit."""
        gate, ended = threading.Event(), threading.Event()
        closed: list[bool] = []

        class Late(LocalBroker):
            def submit(self, origin, chunks, *, strict=False, under=0):
                notes = super().submit(origin, chunks, strict=strict, under=under)
                gate.wait(30)
                run_jobs(queue, TASKS)
                # Both last as long as they may: the outcome waits for the acknowledgement today.
                ended.wait(0.5)
                collector.join(0.5)
                closed.append(self.closed)
                return notes

            closed = False

            def close(self):
                self.closed = True

        executor = BrokerExecutor(lambda: Late(queue))
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

        before = set(threading.enumerate())
        BrokerExecutor(connect).shutdown()
        assert set(threading.enumerate()) <= before  # a thread of another test may end meanwhile

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
        assert ended.wait(30)
        run()
        assert found[0] is True
        assert found[1].result(timeout=30) == 3

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
        assert ended.wait(30)
        assert answers[0] in (True, False)
        assert executor.flush(30)


class TestWithTheStandardLibrary:
    def test_wait_and_as_completed_take_its_futures(self, executor, run):
        futures = [executor.submit(tasks.add, number, 0) for number in range(3)]
        late = executor.submit("t:f")
        run()
        assert not concurrent.futures.wait(futures, timeout=30).not_done
        done, waiting = concurrent.futures.wait([*futures, late], timeout=0.05)
        assert (done, waiting) == (set(futures), {late})
        assert set(concurrent.futures.as_completed(futures, timeout=30)) == set(futures)

    def test_it_is_an_executor(self, executor):
        assert issubclass(BrokerExecutor, concurrent.futures.Executor)
        assert isinstance(executor.submit("t:f"), concurrent.futures.Future)

    def test_a_coroutine_can_await_it(self, executor, queue):
        async def main() -> int:
            call = asyncio.get_running_loop().run_in_executor(executor, tasks.add, 1, 2)
            await asyncio.to_thread(executor.flush, 5)
            await asyncio.to_thread(run_jobs, queue, TASKS)
            return await call

        assert asyncio.run(main()) == 3
