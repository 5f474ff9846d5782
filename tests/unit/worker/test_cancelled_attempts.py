"""The orders of a supervisor to end attempts, and when a consumer dies of one that it leaves unanswered."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import msgspec
import pytest

from svc.domain.job import Terms
from svc.domain.replies import Delivery, Extended, Stop
from svc.domain.retry import RetryPolicy
from svc.worker import consumer_process
from svc.worker.attempt_limits import AttemptLimits
from svc.worker.consumer_exit import Killed
from svc.worker.consumer_process import ConsumerProcess
from svc.worker.orders import END, OVER
from svc.worker.slot import Phase, Slot, encoded_names
from svc.worker.stacks import StackReader

CONTEXT = multiprocessing.get_context("spawn")
#: The monotonic times at which the job that the slot shows began, and at which another one was cancelled.
BEGUN, NOW = 100.0, 200.0
GRACE = 5.0
SHOWN, OTHER = 7, 8


@pytest.fixture
def pipe() -> Iterator[tuple[Connection, Connection]]:
    ours, theirs = CONTEXT.Pipe()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def child(pipe: tuple[Connection, Connection], monkeypatch: pytest.MonkeyPatch) -> Iterator[ConsumerProcess]:
    """A consumer as its supervisor sees it; there is no process behind it."""
    monkeypatch.setattr(consumer_process, "kill", lambda pid: None)
    trace, written = CONTEXT.Pipe(duplex=False)
    process = BaseProcess.__new__(BaseProcess)
    slot = Slot(CONTEXT)
    yield ConsumerProcess("w-1", process, slot, pipe[0], StackReader(trace), os.getpid(), loaded=True)
    trace.close()
    written.close()


def show(child: ConsumerProcess, phase: Phase = Phase.SHARED, started: float = BEGUN) -> None:
    delivery = Delivery(SHOWN, "origin", 100, Terms("m:f"), [b""])
    limits, names = AttemptLimits(None, None, None), encoded_names(delivery.terms)
    child.slot.begin(delivery, SHOWN, RetryPolicy(4, 0.25), limits, names, False)
    child.slot.share(100, started, 0.0, phase)


def cancel(child: ConsumerProcess, *tokens: int, now: float = NOW) -> None:
    child.obey(Extended(stops=[Stop("w-1", token, 100, GRACE) for token in tokens]), now)


def check(child: ConsumerProcess, seconds: float) -> Killed | None:
    """Return the reason if the consumer is killed so many seconds after the cancel."""
    child.check(NOW + seconds, 10.0, 10.0)
    return child.killed


def answer(child: ConsumerProcess, seconds: float, token: int = OTHER) -> None:
    """Have the consumer answer the order about one attempt, so many seconds after the cancel."""
    assert child.cancelled.take(OVER, msgspec.msgpack.encode([(token, 100)]), NOW + seconds)


def orders(reader: Connection) -> list[tuple[int, int, float]]:
    found = []
    while reader.poll():
        message = reader.recv_bytes()
        assert message.startswith(END)
        found += msgspec.msgpack.decode(message[len(END) :], type=list[tuple[int, int, float]])
    return found


def test_a_cancel_without_an_answer_ends_the_consumer_whichever_job_it_shows(child: ConsumerProcess) -> None:
    show(child)
    cancel(child, OTHER)

    assert check(child, GRACE + 0.2) is None
    assert check(child, GRACE + 0.4) is Killed.CANCELLED


def test_a_cancel_that_is_answered_ends_nothing(child: ConsumerProcess) -> None:
    show(child)
    cancel(child, OTHER)
    answer(child, GRACE)
    cancel(child, OTHER)  # the manager names it as long as jobs run there

    assert check(child, GRACE + 100) is None


def test_a_consumer_that_answers_one_after_the_other_is_not_blocked(child: ConsumerProcess) -> None:
    show(child)
    cancel(child, OTHER, OTHER + 1)
    answer(child, GRACE + 0.25)

    assert check(child, GRACE + 0.5) is None
    assert check(child, GRACE + 0.6) is Killed.CANCELLED


@pytest.mark.parametrize("phase", [Phase.BUSY, Phase.LISTED])
def test_a_job_that_runs_alone_or_in_a_list_outlives_the_cancel_of_another_one(
    child: ConsumerProcess, phase: Phase
) -> None:
    """It may hold the GIL, and so keep its consumer from the answer."""
    show(child, phase)
    cancel(child, OTHER)

    assert check(child, GRACE + 100) is None


def test_there_is_time_for_an_answer_once_jobs_begin_to_run_side_by_side(
    child: ConsumerProcess,
) -> None:
    cancel(child, OTHER)
    show(child, started=NOW + GRACE + 50)

    assert check(child, GRACE + 50.2) is None
    assert check(child, GRACE + 50.4) is Killed.CANCELLED


def test_each_order_is_sent_once(child: ConsumerProcess, pipe: tuple[Connection, Connection]) -> None:
    cancel(child, 1, 2)
    cancel(child, 1, 2, 3, now=NOW + 1)

    assert orders(pipe[1]) == [(1, 100, GRACE), (2, 100, GRACE), (3, 100, GRACE)]


def test_a_consumer_that_reads_no_orders_does_not_hold_up_its_supervisor(
    child: ConsumerProcess, pipe: tuple[Connection, Connection]
) -> None:
    """Its task holds the GIL. What it has not been sent comes once it reads again."""
    tokens = list(range(1, 2001))

    def cancel_one_by_one() -> None:
        for count in range(1, len(tokens) + 1):
            cancel(child, *tokens[:count])

    supervisor = threading.Thread(target=cancel_one_by_one, daemon=True)
    supervisor.start()
    supervisor.join(60)
    assert not supervisor.is_alive()
    found = orders(pipe[1])
    assert len(found) < len(tokens)
    cancel(child, *tokens, now=NOW + 2)
    found += orders(pipe[1])

    assert [token for token, *_ in found] == tokens
    assert found[-1][2] == GRACE - 2
