from __future__ import annotations

from svc.domain.commands import Ack, Held, Nack, Release
from svc.domain.job import ErrorInfo, Terms
from svc.domain.replies import Delivery
from svc.worker.outbox import NEVER, Holdings, Outbox

ERROR = ErrorInfo("E", "m")


def delivery(token: int, first: int, count: int) -> Delivery:
    return Delivery(token, "origin", first, Terms("m:f"), [b""] * count)


def test_consecutive_successes_of_one_lease_are_one_ack() -> None:
    outbox = Outbox()
    for number in (5, 6, 7):
        outbox.succeeded(1, number, b"%d" % number, 0.1 * number, now=10.0 + number)
    assert outbox.content() == (Ack(1, 5, [b"5", b"6", b"7"], [0.5, 0.6000000000000001, 0.7000000000000001]),)
    assert outbox.due_at == 15.005
    assert outbox.size == 3


def test_another_lease_a_gap_or_a_failure_begins_another_ack() -> None:
    outbox = Outbox()
    outbox.succeeded(1, 5, b"a", 0.0, 0.0)
    outbox.succeeded(2, 6, b"b", 0.0, 0.0)
    outbox.succeeded(2, 8, b"c", 0.0, 0.0)
    outbox.add(Nack(2, 9, ERROR), 0.0)
    outbox.succeeded(2, 10, b"d", 0.0, 0.0)
    outbox.add(Release(2, 11), 0.0)
    assert [type(each).__name__ for each in outbox.content()] == [
        "Ack",
        "Ack",
        "Ack",
        "Nack",
        "Ack",
        "Release",
    ]


def test_what_was_handed_out_is_not_added_to() -> None:
    """It may be on its way already, or have to be sent again just as it was."""
    outbox = Outbox()
    outbox.succeeded(1, 0, b"a", 0.0, 0.0)
    sent = outbox.content()
    outbox.succeeded(1, 1, b"b", 0.0, 0.0)
    assert sent == (Ack(1, 0, [b"a"], [0.0]),)
    assert len(outbox.content()) == 2


def test_only_what_was_sent_is_forgotten() -> None:
    outbox = Outbox()
    outbox.add(Nack(1, 0, ERROR), 0.0)
    sent = outbox.content()
    outbox.sent(sent)
    assert (outbox.content(), outbox.due_at, outbox.size) == ((), NEVER, 0)


def test_a_lease_is_held_until_the_manager_has_the_outcome_of_every_job() -> None:
    holdings = Holdings()
    holdings.add([delivery(1, 10, 3), delivery(2, 20, 1)])
    assert holdings.all() == [Held(1, "origin", 10, 3), Held(2, "origin", 20, 1)]
    holdings.settled([Ack(1, 10, [b""], [0.0])])
    assert holdings.all()[0] == Held(1, "origin", 11, 2)
    holdings.settled([Nack(1, 11, ERROR), Ack(2, 20, [b""], [0.0])])
    assert holdings.all() == [Held(1, "origin", 12, 1)]
    holdings.settled([Release(1, 12)])
    assert holdings.all() == []


def test_what_was_taken_back_is_no_longer_held() -> None:
    holdings = Holdings()
    holdings.add([delivery(1, 10, 5), delivery(2, 20, 2)])
    holdings.drop(1, 12)
    holdings.drop(2, 20)
    holdings.drop(3, 0)
    assert holdings.all() == [Held(1, "origin", 10, 2)]


def test_an_outcome_of_a_lease_that_is_not_held_changes_nothing() -> None:
    holdings = Holdings()
    holdings.settled([Ack(9, 0, [b""], [0.0])])
    assert holdings.all() == []


def test_outcomes_are_due_when_they_have_waited_or_are_many_bytes() -> None:
    outbox = Outbox()
    assert outbox.due_at >= 99.0
    outbox.succeeded(1, 0, b"a", 0.0, now=10.0)
    assert outbox.due_at >= 10.004
    assert outbox.due_at < 10.006
    outbox.postpone(12.0)
    assert outbox.due_at >= 11.0
    outbox.succeeded(1, 1, bytes(1 << 20), 0.0, now=11.0)
    assert outbox.due_at < 11.0
