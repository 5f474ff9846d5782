"""Answers are bounded by bytes and by work, and a broker puts their pages together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest

from svc.broker.journal import MemoryJournal
from svc.broker.local import LocalBroker, LocalQueue
from svc.domain import commands as c
from svc.domain import operations
from svc.domain import replies as r
from svc.domain.field_bounds import FRAME_COMMANDS_MAX
from svc.domain.handlers import REPLY_BYTES, REPLY_WORK
from svc.domain.job import ErrorInfo, NewChunk, Terms
from svc.domain.job_records import ATTEMPTS_KEPT
from svc.domain.limits import Limits
from svc.errors import BadRequest
from svc.wire import HEADER, RESPONSE_BYTES_MAX, decode_response, encode_response, response_frame
from tests.support.asking import record
from tests.support.effort import calls_of

NOW = timedelta()
MB = 1_000_000
#: Calls of functions in the work of one request, 15 a microsecond; an older client may have twice that.
CALLS_MAX = 2 * 15 * REPLY_WORK
JOBS_MAX = 100_000


class Site:
    """A queue in memory with one client and one consumer."""

    def __init__(self) -> None:
        limits = Limits(
            max_queue_jobs=JOBS_MAX, grant_jobs=JOBS_MAX, max_job_bytes=64 * MB, grant_bytes=1000 * MB
        )
        self.queue = LocalQueue(MemoryJournal(), limits=limits)
        self.broker = LocalBroker(self.queue)
        self.consumer = self.join("w-1")

    def join(self, name: str, worker: str = "w", tasks: Sequence[str] = ("m:f",)) -> LocalBroker:
        hello = c.Hello(1, "consumer", name, worker, tasks=list(tasks))
        return LocalBroker(self.queue, lambda: hello)

    def submit(self, count: int, origin: str = "o", queue: str = "default", body: bytes = b"") -> list[str]:
        self.broker.submit(origin, [NewChunk(0, Terms("m:f", queue), [body] * count)])
        return [f"{origin}-{number}" for number in range(count)]

    def succeed(self, count: int, result: bytes, origin: str = "o") -> list[str]:
        ids = self.submit(count, origin)
        for each in self.consumer.lease(limit=count, wait=NOW).grant.deliveries:
            jobs = len(each.bodies)
            record(self.consumer, c.Ack(each.token, each.first, [result] * jobs, [0.0] * jobs))
        return ids

    def die(self, count: int, text: int = 0, attempts: int = 1, origin: str = "o") -> list[str]:
        """Return jobs that died at the last of so many attempts, each with a traceback of *text* letters."""
        ids = self.submit(count, origin)
        error = ErrorInfo("E", "m", "x" * text)
        for attempt in range(1, attempts + 1):
            retry_in = None if attempt == attempts else 0.0
            while deliveries := self.consumer.lease(limit=count, wait=NOW).grant.deliveries:
                nacks = [
                    c.Nack(each.token, each.first + place, error, retry_in)
                    for each in deliveries
                    for place in range(len(each.bodies))
                ]
                for first in range(0, len(nacks), FRAME_COMMANDS_MAX):
                    self.consumer.call(nacks[first : first + FRAME_COMMANDS_MAX])
                if sum(len(each.bodies) for each in deliveries) == count:
                    break
        return ids


@pytest.fixture
def site() -> Site:
    return Site()


def size_of(replies: Sequence[r.Reply]) -> int:
    return len(encode_response(1, replies))


def large_results(site: Site) -> list[str]:
    return site.succeed(30, bytes(MB))


def large_attempts(site: Site) -> list[str]:
    return site.die(100, text=16_000, attempts=ATTEMPTS_KEPT)


def tiny_results(site: Site) -> list[str]:
    return site.succeed(10_000, b"")


def many_queues(site: Site) -> list[str]:
    return [site.submit(1, f"o{number}", f"queue-{number}")[0] for number in range(1000)]


Prepare = Callable[[Site], list[str]]
#: The stored jobs, and the requests for them.
READINGS: dict[str, tuple[Prepare, Callable[[list[str]], list[c.AnyCommand]]]] = {
    "one large outcome 2,200 times": (large_results, lambda ids: [c.Await(ids[:1] * 2200)]),
    "large outcomes": (large_results, lambda ids: [c.Await(ids, paged=True)]),
    "large outcomes, by an older client": (large_results, lambda ids: [c.Await(ids)]),
    "a feed of large results": (large_results, lambda _: [c.Feed("o")]),
    "a feed of all large results": (large_results, lambda _: [c.Feed()]),
    "a thousand feeds in a frame": (large_results, lambda _: [c.Feed("o")] * 1000),
    "a thousand feeds of all": (large_results, lambda _: [c.Feed()] * 1000),
    "a thousand waits": (large_results, lambda ids: [c.Await(ids[:1])] * 1000),
    "descriptions with long tracebacks": (large_attempts, lambda ids: [c.Get(ids, paged=True)]),
    "a list with long tracebacks": (large_attempts, lambda _: [c.List(limit=10_000, paged=True)]),
    "a thousand lists": (large_attempts, lambda _: [c.List(limit=10_000)] * 1000),
    "ten thousand outcomes": (tiny_results, lambda ids: [c.Await(ids, paged=True)]),
    "ten thousand descriptions": (tiny_results, lambda ids: [c.Get(ids, paged=True)]),
    "ten thousand outcomes forty times": (tiny_results, lambda ids: [c.Await(ids)] * 40),
    "the totals a thousand times": (many_queues, lambda _: [c.Stats()] * 1000),
}


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS.keys())
def test_an_answer_is_bounded_in_bytes_and_in_work(site, reading):
    prepare, ask = reading
    commands = ask(prepare(site))
    answers: list[list[r.AnyReply]] = []

    effort = calls_of(lambda: answers.append(site.broker.call(commands)))

    (replies,) = answers
    assert len(replies) == len(commands)
    assert size_of(replies) < 2 * REPLY_BYTES + MB
    assert effort < CALLS_MAX + 40 * len(commands)


def test_the_names_of_the_tasks_of_many_workers_do_not_fit_into_one_answer(site):
    names = [f"module.of.tasks:{'x' * 80}{number}" for number in range(1000)]
    workers = [f"w{number:03}" for number in range(120)]
    for worker in workers:
        site.join(f"{worker}/1", worker, names)

    (page,) = site.broker.call([c.Members(paged=True)])

    assert size_of([page]) < REPLY_BYTES + MB
    assert len(page.workers) < len(workers)
    assert sorted(each.name for each in site.broker.members()) == ["w", *workers]


def test_leases_in_one_frame_do_not_add_up(site):
    site.submit(200, body=bytes(MB))
    replies = site.consumer.call([c.Lease(4)] * 50)

    assert size_of(replies) < REPLY_BYTES + 8 * MB


def test_what_changes_something_is_done_though_the_answers_are_long_enough(site):
    ids = large_results(site)
    (waiting,) = site.submit(1, "p")

    replies = site.broker.call([*[c.Await(ids[:20], paged=True)] * 3, c.Cancel([waiting])])

    assert isinstance(replies[0], r.Outcomes)
    assert replies[2].code == "bad_request"
    assert "too large together" in replies[2].message
    assert replies[3] == r.Done(1)


def test_a_broker_puts_pages_of_outcomes_together(site):
    ids = site.succeed(25, bytes(MB))
    asked = [*reversed(ids), ids[3], ids[3]]

    assert [each.id for each in site.broker.wait(asked, NOW)] == asked
    assert sum(len(each.result) for each in site.broker.wait(ids, NOW)) == 25 * MB


def test_a_broker_puts_pages_of_descriptions_together(site):
    ids = large_attempts(site)

    assert [each.id for each in site.broker.get(ids)] == ids
    assert [each.id for each in site.broker.find(c.List(limit=10_000))] == ids[::-1]
    assert [each.id for each in site.broker.find(c.List(limit=70))] == ids[::-1][:70]


def test_a_list_of_a_few_among_very_many_jobs_is_found_in_several_looks(site):
    dead = site.die(2, origin="first")
    for number in range(300):
        site.broker.call(
            [c.Submit(f"many{number}x{place}", [NewChunk(0, Terms("m:f"), [b""])]) for place in range(100)]
        )
    (page,) = site.broker.call([c.List("dead", paged=True)])

    assert (page.jobs, page.before > 0) == ([], True)
    assert [each.id for each in site.broker.find(c.List("dead"))] == dead[::-1]
    assert [each.id for each in site.broker.find(c.List("dead", limit=1))] == dead[1:]


def test_pages_of_a_list_have_every_job_once_also_within_one_chunk(site):
    ids = site.submit(5000)
    found, before = [], 0
    while True:
        (page,) = site.broker.call([c.List("ready", limit=10_000, before=before, paged=True)])
        found += [each.id for each in page.jobs]
        before = page.before
        if not before:
            break

    assert found == ids[::-1]


def test_an_older_client_is_told_that_an_answer_is_too_large_and_never_has_a_part(site):
    ids = large_results(site)
    (whole,), (none,) = site.broker.call([c.Await(ids[:15])]), site.broker.call([c.Await(ids)])

    assert (len(whole.outcomes), whole.left) == (15, 0)
    assert (none.code, "fewer jobs" in none.message) == ("bad_request", True)


@pytest.mark.parametrize("queue", ["", "default"])
def test_all_dead_jobs_are_requeued_in_as_many_requests_as_it_takes(site, monkeypatch, queue):
    monkeypatch.setattr(operations, "DEAD_LOOKED_AT_MAX", 700)
    count = 2 * c.CHANGED_JOBS_MAX + 500
    site.die(count)
    (first,) = site.broker.call([c.Requeue(queue=queue)])

    assert 0 < first.count <= c.CHANGED_JOBS_MAX
    assert first.more is not None
    assert first.count + site.broker.requeue(queue=queue) == count
    assert site.broker.requeue(queue=queue) == 0


def test_the_jobs_that_died_first_are_requeued_first(site, monkeypatch):
    monkeypatch.setattr(operations, "CHANGED_JOBS_MAX", 500)
    site.die(1000)
    died = [each.id for each in reversed(site.broker.find(c.List("dead", limit=1000)))]
    site.broker.call([c.Requeue()])

    assert {each.id for each in site.broker.find(c.List("ready", limit=1000))} == set(died[:500])


def test_dead_jobs_of_other_queues_are_passed_over_and_stay_dead(site, monkeypatch):
    monkeypatch.setattr(operations, "DEAD_LOOKED_AT_MAX", 10)
    hello = c.Hello(1, "consumer", "w-2", "w", tasks=["m:f"], queues=["a", "b"])
    consumer = LocalBroker(site.queue, lambda: hello)
    for number in range(12):
        site.submit(5, f"p{number}", "ab"[number % 2])
        for _ in range(5):
            (each,) = consumer.lease(limit=1, wait=NOW).grant.deliveries
            record(consumer, c.Nack(each.token, each.first, ErrorInfo("E", "m")))

    assert site.broker.requeue(queue="b") == 30
    assert {
        each.name: (each.dead, each.ready) for each in site.broker.stats().queues if each.name in "ab"
    } == {
        "a": (30, 0),
        "b": (0, 30),
    }


def test_very_many_named_jobs_are_cancelled_and_requeued_page_by_page(site):
    count = 2 * c.CHANGED_JOBS_MAX + 500
    ids, dead = site.submit(count), []
    with pytest.raises(BadRequest, match=str(c.CHANGED_JOBS_MAX)):
        site.broker._one(c.Cancel(ids), r.Done)
    assert site.broker.cancel([*ids, ids[0]]) == count

    dead = site.die(count, origin="p")
    assert site.broker.requeue([*dead, dead[0]]) == count


def test_answers_that_no_client_takes_are_refused_and_not_a_crash():
    text = "x" * (RESPONSE_BYTES_MAX // 4)

    message = encode_response(7, [r.Text(text)] * 5)

    frame = response_frame(message[HEADER.size :])
    assert frame is not None
    request, replies = decode_response(frame)
    assert request == 7
    assert [isinstance(each, r.Refused) and each.code for each in replies] == ["bad_request"] * 5
