"""A job that fails and fails keeps a few rows in the journal, and a few bytes in memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replies as r
from svc.domain import upkeep
from svc.domain.apply import apply
from svc.domain.enrolment import give_up, recover
from svc.domain.job import Cause, ErrorInfo, NewChunk, Terms
from svc.domain.job_records import ATTEMPTS_KEPT
from svc.domain.job_view import JobView
from svc.domain.lifecycle import JobState
from svc.domain.members import Member
from svc.domain.queue_state import QueueState
from svc.domain.replay import replay
from svc.domain.retry import CRASH_BUDGET
from tests.support.state_checks import about_jobs
from tests.unit.domain.test_grown_chunks import Queue

TERMS = Terms("m:f", retries=2**52, backoff=0.0)
MANY = 2 * ATTEMPTS_KEPT + 5
TRACEBACK = "x" * 16 * 1024


@pytest.fixture
def queue() -> Queue:
    made = Queue()
    made.submit(0, terms=TERMS)
    return made


def error(number: int) -> ErrorInfo:
    return ErrorInfo("ValueError", f"failure {number}", "a traceback")


def fail(queue: Queue, number: int, retry_in: float | None = 0.0) -> None:
    (delivery,) = queue.lease(1)
    nack = c.Nack(delivery.token, delivery.first, error(number), retry_in)
    assert apply(queue.state, nack, Member("plain"), queue.now) == r.Done(1)
    queue.commit()  # compares with a replay


def interrupt(queue: Queue, number: int) -> None:
    (delivery,) = queue.lease(1)
    release = c.Release(delivery.token, delivery.first, started=True)
    assert apply(queue.state, release, Member("plain"), queue.now) == r.Done(1)
    queue.commit()


def requeue(queue: Queue, number: int) -> None:
    fail(queue, number, None)
    assert apply(queue.state, c.Requeue(["o-0"]), Member(), queue.now) == r.Done(1)
    queue.commit()


def answer(queue: Queue, number: int) -> None:
    """Let the job die, take its outcome out of `results`, and requeue it."""
    fail(queue, number, None)
    assert apply(queue.state, c.Take(), Member("plain", inside=True), queue.now) is not None
    assert apply(queue.state, c.Requeue(["o-0"]), Member(), queue.now) == r.Done(1)
    queue.commit()


def shown(queue: Queue) -> JobView:
    views = apply(queue.state, c.Get(["o-0"]), Member(), queue.now)
    assert isinstance(views, r.Views)
    return views.jobs[0]


def rows(queue: Queue) -> int:
    """Return how many rows there are beside that of the submit."""
    return len(about_jobs(event for _, event in queue.journal.replay())) - 1


@pytest.mark.parametrize("end", [fail, interrupt, requeue])
def test_a_job_keeps_a_bounded_number_of_rows_however_its_attempts_end(queue, end):
    for number in range(MANY):
        end(queue, number)

    assert rows(queue) <= ATTEMPTS_KEPT + 1


def test_a_job_whose_answers_are_taken_keeps_one_row_more():
    queue = Queue()
    queue.submit(0, terms=Terms("m:f", answer=True))
    for number in range(MANY):
        answer(queue, number)

    assert rows(queue) <= ATTEMPTS_KEPT + 2


def test_the_last_attempts_are_shown_and_all_are_counted(queue):
    for number in range(MANY):
        fail(queue, number)

    view = shown(queue)

    assert view.failures == MANY
    assert [each.error for each in view.attempts] == [error(n) for n in range(MANY - ATTEMPTS_KEPT, MANY)]


def test_the_ledgers_and_the_history_survive_a_restart(queue):
    for number in range(MANY):
        (interrupt if number % 3 == 0 else fail)(queue, number)
    fail(queue, MANY, None)
    before = shown(queue)

    again = Queue()
    again.journal = queue.journal
    again.state = QueueState(read=queue.journal.read)
    for sequence, event in queue.journal.replay():
        replay(again.state.ledger, sequence, event)
    recover(again.state, queue.now)

    assert shown(again) == before
    for command in (c.Await(["o-0"]), c.Feed("o")):
        page = apply(again.state, command, Member(), queue.now)
        assert isinstance(page, r.Outcomes)
        assert [outcome.error for outcome in page.outcomes] == [error(MANY)]


def test_nothing_of_a_job_that_failed_stays_when_it_is_forgotten(queue):
    for number in range(MANY):
        fail(queue, number)
    fail(queue, MANY, None)
    queue.now = queue.state.limits.dead_retention_seconds + 1
    for _ in range(2):
        upkeep.tick(queue.state, queue.now)
    queue.commit()

    assert [type(event) for event in about_jobs(each for _, each in queue.journal.replay())] == [e.Forgotten]


def test_a_job_joins_no_chunk_that_ended_once_though_the_row_that_says_so_has_gone(queue):
    """The chunk ended when its only job died; the replay does not see that death any more."""
    requeue(queue, 0)
    queue.submit(1, terms=TERMS)
    for number in range(ATTEMPTS_KEPT + 1):
        fail(queue, number)  # each commit compares with a replay

    assert queue.chunks() == [("o", 0, 1), ("o", 1, 1)]


def test_failures_in_journals_of_the_last_release_are_counted_up():
    """Their events do not have the charges after them."""
    journal = MemoryJournal()
    events: list[e.AnyEvent] = [e.Submitted(0.0, "o", 0, TERMS, [b"0"])]
    causes = [Cause.FAILED, Cause.CRASHED, Cause.INTERRUPTED, Cause.TIMED_OUT] * ATTEMPTS_KEPT
    events += [e.Failed(0.0, "o", 0, cause, error(n), 0.0) for n, cause in enumerate(causes)]
    journal.append(list(enumerate(events, start=1)))
    queue = Queue()
    queue.journal = journal
    queue.state = QueueState(read=journal.read)
    for sequence, event in journal.replay():
        replay(queue.state.ledger, sequence, event)
    recover(queue.state, 0.0)
    give_up(queue.state, queue.now)
    queue.journal.append(*queue.state.take_events())
    kept = about_jobs(event for _, event in journal.replay())
    assert len(kept) == len(events), "all are needed to count up to the same again"

    fail(queue, 0)

    view = shown(queue)
    assert (view.failures, view.crashes, view.interruptions) == (
        2 * ATTEMPTS_KEPT + 1,
        ATTEMPTS_KEPT,
        ATTEMPTS_KEPT,
    )
    assert rows(queue) == ATTEMPTS_KEPT


#: Of a dead job with all its attempts: its record and its place in three tables.
DEAD_JOB_BYTES = 1000
#: Makes the error of each attempt of a job.
ERRORS: dict[str, Callable[[int], ErrorInfo]] = {
    "equal tracebacks": lambda attempt: ErrorInfo("ValueError", "no", TRACEBACK + "x"),
    "distinct tracebacks": lambda attempt: ErrorInfo("ValueError", "no", f"{TRACEBACK}{attempt}"),
    "long messages": lambda attempt: ErrorInfo("ValueError", f"{attempt}" * 4000),
    "wide text": lambda attempt: ErrorInfo("ValueError", "\U0001f600" * 1000, f"{attempt}\u20ac" * 5000),
    "pickled exceptions": lambda attempt: ErrorInfo("ValueError", "no", "", bytes([attempt]) * 16 * 1024),
    "classes of their own": lambda attempt: ErrorInfo(f"Error{attempt}" * 10, "no", TRACEBACK),
}


@pytest.mark.parametrize(
    ("attempts", "errors"),
    [
        *((CRASH_BUDGET, each) for each in ERRORS),
        (ATTEMPTS_KEPT, "equal tracebacks"),
        (ATTEMPTS_KEPT, "wide text"),
        (MANY, "distinct tracebacks"),
    ],
)
def test_a_dead_job_takes_some_hundred_bytes_whatever_its_errors_were(attempts, errors, monkeypatch):
    monkeypatch.setattr("svc.domain.leases.SETTLED_KEPT", 1)  # this has a bound of its own
    state, member, jobs = QueueState(), Member("plain"), 400
    apply(state, c.Submit("o", [NewChunk(0, TERMS, [b"x"] * (jobs + 1))]), Member(), 0.0)

    def die() -> None:
        for attempt in range(attempts):
            grant = apply(state, c.Lease(1), member, 0.0)
            assert isinstance(grant, r.Grant)
            (delivery,) = grant.deliveries
            retry_in = 0.0 if attempt < attempts - 1 else None
            nack = c.Nack(delivery.token, delivery.first, ERRORS[errors](attempt), retry_in)
            assert apply(state, nack, member, 0.0) == r.Done(1)
        state.take_events()  # to the journal, which is not in memory
        state.progressed.clear()

    die()  # the first makes the things that all share
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(jobs):
        die()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert state.ledger.counts["default"][JobState.DEAD] == jobs + 1
    assert (after - before) / jobs < DEAD_JOB_BYTES
