"""Requests that wait: whom an event wakes, and that it costs nothing for all others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.handlers import ANSWER_WORK, REPLY_BYTES, REPLY_WORK
from svc.domain.job import ErrorInfo, NewChunk, Terms
from svc.domain.members import Member
from svc.domain.scheduling.lanes import INDEXES_MAX
from tests.support.clock import FakeClock
from tests.support.effort import calls_of
from tests.support.inside import waiting_lessees

FOREVER = 1e9
#: How many jobs a waiting `Await` names, and how many requests wait, in the issue that asked for this.
JOBS = 10_000
WAITING = 60


@pytest.fixture
def host() -> QueueHost:
    return QueueHost(MemoryJournal(), clock=FakeClock())


class Answers(list[list[Any]]):
    """The deliveries for one request."""

    @property
    def ids(self) -> list[str]:
        return [each.id for replies in self for reply in replies for each in reply.outcomes]


def ask(host: QueueHost, member: Member, *commands: c.Command) -> Answers:
    answers = Answers()
    host.call(commands, member, answers.append)
    host.turn()
    return answers


def submit(host: QueueHost, count: int, origin: str = "o", queue: str = "default") -> None:
    ask(host, Member(), c.Submit(origin, [NewChunk(0, Terms("m:f", queue), [b""] * count)]))


def consumer(host: QueueHost, name: str = "w-1", queue: str = "default") -> Member:
    member = Member()
    ask(host, member, c.Hello(1, "consumer", name, "w", tasks=["m:f"], queues=[queue]))
    return member


def granted(host: QueueHost, member: Member, count: int) -> list[r.Delivery]:
    ((grant,),) = ask(host, member, c.Lease(count))
    assert isinstance(grant, r.Grant)
    return grant.deliveries


def leased(host: QueueHost, member: Member, count: int = 1) -> r.Delivery:
    return granted(host, member, count)[0]


def acked(host: QueueHost, member: Member, delivery: r.Delivery, count: int = 1) -> Answers:
    return ask(host, member, c.Ack(delivery.token, delivery.first, [b"r"] * count, [0.0] * count))


def waiting(kind: str, place: int) -> c.Command:
    names = [f"o-{number}" for number in range(JOBS)]
    match kind:
        case "jobs of the same origin, none of which ends":
            return c.Await(names[1:], FOREVER)
        case "jobs of which the first one ends":
            return c.Await(names, FOREVER)
        case "jobs of other origins":
            return c.Await(["p-0"] * JOBS, FOREVER)
        case "outcomes of other origins":
            return c.Feed(f"other-{place}", 0, JOBS, FOREVER)
        case "another queue to be done":
            return c.Join("busy", FOREVER)
    return c.Take(FOREVER)


@pytest.mark.parametrize(
    "kind",
    [
        "jobs of the same origin, none of which ends",
        "jobs of which the first one ends",
        "jobs of other origins",
        "outcomes of other origins",
        "another queue to be done",
        "answers for plain clients",
    ],
)
def test_an_ack_costs_as_good_as_nothing_more_while_others_wait_for(host, kind):
    submit(host, JOBS)
    submit(host, 1, "p", "busy")
    member = consumer(host)
    alone, crowded = leased(host, member), leased(host, member)
    effort_alone = calls_of(lambda: acked(host, member, alone))
    answers = [ask(host, Member("plain"), waiting(kind, place)) for place in range(WAITING)]

    effort = calls_of(lambda: acked(host, member, crowded))

    assert not any(answers)
    assert effort < effort_alone + 2 * WAITING


def test_an_ack_costs_little_while_ten_thousand_others_wait_for_its_origin(host):
    submit(host, 2 * JOBS)
    member = consumer(host)
    alone, crowded = leased(host, member), leased(host, member)
    effort_alone = calls_of(lambda: acked(host, member, alone))
    for number in range(JOBS):
        host.call([c.Await([f"o-{JOBS + number}"], FOREVER)], Member(), lambda replies: None)

    assert calls_of(lambda: acked(host, member, crowded)) < 2 * effort_alone


def test_an_await_looks_at_each_of_its_jobs_once_however_they_end(host):
    """As the last one of those that wait is watched, jobs that end from the back are the worst for it."""
    count = 300
    names = [f"o-{number}" for number in range(count)]
    submit(host, count)
    member = consumer(host)
    deliveries = [leased(host, member) for _ in names]
    answers = ask(host, Member(), c.Await(names, FOREVER))

    efforts = [calls_of(partial(acked, host, member, each)) for each in reversed(deliveries[1:])]

    assert not answers
    assert max(efforts[-50:]) <= 1.5 * max(efforts[:50])
    acked(host, member, deliveries[0])
    assert answers.ids == names


def test_a_submit_costs_little_while_idle_consumers_of_other_queues_wait(host):
    idle = 2_000
    effort_alone = calls_of(lambda: submit(host, 1, "alone"))
    for number in range(idle):
        ask(host, consumer(host, f"w-{number}", "quiet"), c.Lease(1, FOREVER))

    assert calls_of(lambda: submit(host, 1, "crowded")) < 2 * effort_alone
    assert waiting_lessees(host) == idle


def submit_beside_waiting(count: int, *, lanes: int = 0, own_queues: bool = False) -> int:
    """Return the effort of a submit while so many consumers wait, each with a subscription of its own.

    Meanwhile jobs that nobody takes stand in *lanes*.
    """
    host = QueueHost(MemoryJournal(), clock=FakeClock())
    ask(
        host,
        Member(),
        c.Submit("p", [NewChunk(number, Terms(f"m:g{number}"), [b""]) for number in range(lanes)]),
    )
    for number in range(count):
        member, queue = Member(), f"q{number}" if own_queues else "default"
        ask(host, member, c.Hello(1, "consumer", f"w-{number}", "w", tasks=[f"m:h{number}"], queues=[queue]))
        ask(host, member, c.Lease(1, FOREVER))
    return calls_of(lambda: submit(host, 1))


def test_a_submit_costs_a_look_at_most_for_each_subscription_that_waits():
    """More wait than are indexed. The number of lanes does not matter."""
    count = 2 * INDEXES_MAX

    alone = submit_beside_waiting(0)
    assert submit_beside_waiting(count, own_queues=True) < alone + 2 * count
    beside_few = submit_beside_waiting(count)
    assert beside_few < alone + 25 * count
    assert submit_beside_waiting(count, lanes=2_000) < 1.2 * beside_few


def test_consumers_that_take_the_same_jobs_are_served_in_the_order_in_which_they_came(host):
    order: list[str] = []

    def wait(name: str, queue: str) -> None:
        host.call([c.Lease(1, FOREVER)], consumer(host, name, queue), lambda replies: order.append(name))

    for name, queue in (("a", "x"), ("b", "y"), ("c", "x"), ("d", "y"), ("e", "x")):
        wait(name, queue)

    for origin, queue, count in (("o", "x", 2), ("p", "y", 2)):
        chunk = NewChunk(0, Terms("m:f", queue), [b""] * count)
        host.call([c.Submit(origin, [chunk])], Member(), lambda replies: None)
    host.turn()

    assert order == ["a", "b", "c", "d"]
    assert waiting_lessees(host) == 1


def test_a_drain_reaches_those_who_wait_for_jobs_that_there_are_none_of(host):
    answers = [ask(host, consumer(host, f"w-{place}"), c.Lease(1, FOREVER)) for place in range(3)]

    ask(host, Member(), c.Drain("w"))

    assert [replies[0].pill for (replies,) in answers] == [1, 1, 1]


def test_a_drain_answers_thousands_who_wait_for_jobs_over_several_turns(host):
    answers = [ask(host, consumer(host, f"w-{number}"), c.Lease(1, FOREVER)) for number in range(1500)]
    ask(host, Member(), c.Drain())
    told = [sum(map(len, answers))]
    while told[-1] < len(answers):
        assert host.seconds_to_next() == 0.0
        host.turn()
        told.append(sum(map(len, answers)))
        assert told[-2] < told[-1] <= told[-2] + REPLY_WORK // ANSWER_WORK + 1

    assert len(told) > 2
    assert all(replies == [r.Grant([], 1)] for (replies,) in answers)


def test_one_whose_pill_is_due_waits_on_if_the_drain_has_ended_by_then(host):
    members = [consumer(host, f"w-{number}") for number in range(700)]
    answers = [ask(host, member, c.Lease(1, FOREVER)) for member in members]
    ask(host, Member(), c.Drain())
    ask(host, Member(), c.Resume())
    host.turn()
    left = [each for each in answers if not each]
    assert 0 < len(left) < len(answers)
    assert waiting_lessees(host) == len(left)
    submit(host, 1)
    host.turn()
    assert sum(not each for each in answers) == len(left) - 1


def fed(host: QueueHost, *feeds: c.Feed) -> Sequence[Answers]:
    answers = [ask(host, Member(), feed) for feed in feeds]
    submit(host, 2)
    member = consumer(host)
    delivery = leased(host, member)
    assert not any(answers)
    acked(host, member, delivery)
    return answers


def test_feeds_that_wait_are_answered_by_the_next_outcome_of_their_origin(host):
    one, every, other = fed(host, c.Feed("o", wait=9.0), c.Feed(wait=9.0), c.Feed("p", wait=9.0))

    assert (one.ids, every.ids, list(other)) == (["o-0"], ["o-0"], [])


def test_a_cursor_that_lies_ahead_reads_on_from_now(host):
    one, every = fed(host, c.Feed("o", 1 << 62, wait=9.0), c.Feed(cursor=1 << 62, wait=9.0))

    assert one.ids == every.ids == ["o-0"]
    assert one[0][0].cursor == ask(host, Member(), c.Feed("o"))[0][0].cursor


def test_an_await_whose_job_is_made_ready_again_waits_for_it_once_more(host):
    submit(host, 2)
    member = consumer(host)
    first, second = leased(host, member), leased(host, member)
    answers = ask(host, Member(), c.Await(["o-0", "o-1"], FOREVER))
    ask(host, member, c.Nack(second.token, 1, ErrorInfo("E", "m")))  # it watches o-0 from now on
    ask(host, Member(), c.Requeue(["o-1"]))

    acked(host, member, first)
    assert not answers
    acked(host, member, leased(host, member))

    assert answers.ids == ["o-0", "o-1"]


def test_who_has_gone_is_forgotten_and_who_is_woken_is_answered_at_once(host):
    submit(host, 1)
    gone, woken = Member(), Member()
    unheard = ask(host, gone, c.Await(["o-0"], FOREVER))
    heard = [ask(host, woken, c.Await(["o-0"], FOREVER)), ask(host, woken, c.Feed("o", wait=FOREVER))]

    host.disconnected(gone)
    host.wake(woken)
    host.turn()
    delivery = leased(host, member := consumer(host))
    acked(host, member, delivery)

    assert not unheard
    assert [replies[0].outcomes for (replies,) in heard] == [[], []]


def test_a_request_is_answered_at_its_deadline_with_what_there_is(host):
    submit(host, 1)
    answers = [ask(host, Member(), c.Await(["o-0"], seconds)) for seconds in (5.0, 1.0, 3.0)]

    host.clock.advance(3.0)
    host.turn()

    assert [len(each) for each in answers] == [0, 1, 1]


def test_an_await_that_names_unknown_jobs_twice_neither_hangs_nor_waits_for_them(host):
    submit(host, 1)
    member = consumer(host)
    answers = ask(host, Member(), c.Await(["q-0", "o-0", "q-0"], FOREVER))

    acked(host, member, leased(host, member))

    assert [replies[0].code for replies in answers] == ["unknown_job"]


def test_one_that_ends_twice_in_a_turn_is_told_once(host):
    """A failed attempt and the success of the next one, reported in one frame."""
    submit(host, 1)
    member = consumer(host)
    answers = ask(host, Member(), c.Await(["o-0"], FOREVER))
    delivery = leased(host, member)

    host.call([c.Nack(delivery.token, 0, ErrorInfo("E", "m"), 0.0)], member, lambda replies: None)
    host.call([c.Lease(1)], member, lambda replies: None)
    token = next(iter(member.leases))
    host.call([c.Ack(token, 0, [b"r"], [0.0])], member, lambda replies: None)
    host.turn()
    host.turn()

    assert answers.ids == ["o-0"]


@pytest.mark.parametrize("event", ["the last job ends", "their time is up", "who asked wakes them"])
def test_many_that_become_due_at_once_are_answered_over_several_turns(host, event):
    submit(host, JOBS)
    member, asking = consumer(host), Member()
    first, ended = leased(host, member), 1
    while ended < JOBS:
        for rest in granted(host, member, JOBS):
            acked(host, member, rest, len(rest.bodies))
            ended += len(rest.bodies)
    names = [f"o-{number}" for number in range(JOBS)]
    waiting = [ask(host, asking, c.Await(names, 5.0, paged=True)) for _ in range(WAITING // 4)]
    alone = calls_of(lambda: ask(host, Member(), c.Await(names, paged=True)))

    def happen() -> None:
        if event == "the last job ends":
            acked(host, member, first)
        elif event == "their time is up":
            host.clock.advance(6.0)
            host.turn()
        else:
            ask(host, asking, c.Wake())

    efforts = [calls_of(happen)]
    while not all(waiting):
        assert host.seconds_to_next() == 0.0
        efforts.append(calls_of(host.turn))

    assert max(efforts) < 2 * alone
    assert all(len(each) == 1 for each in waiting)
    assert host.seconds_to_next() > 0.0


def test_large_outcomes_that_many_wait_for_do_not_go_out_in_one_turn(host):
    submit(host, 1)
    member = consumer(host)
    delivery = leased(host, member)
    megabytes = 4
    waiting = [ask(host, Member(), c.Feed("o", wait=FOREVER)) for _ in range(WAITING)]

    result = bytes(megabytes << 20)
    host.call([c.Ack(delivery.token, 0, [result], [0.0])], member, lambda replies: None)
    told: list[int] = []
    while sum(told) < WAITING:
        host.turn()
        told.append(sum(map(bool, waiting)) - sum(told))

    assert max(told) <= 1 + REPLY_BYTES // len(result)
