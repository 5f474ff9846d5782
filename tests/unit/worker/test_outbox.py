from __future__ import annotations

from svc.domain.commands import Ack, Checkpoint, Held, Nack, Release
from svc.domain.job import Cause, ErrorInfo, Terms
from svc.domain.limits import BODY_BYTES_MAX, MESSAGE_BYTES_MAX
from svc.domain.replies import Delivery
from svc.wire import HEADER, encode_request
from svc.worker.outbox import NEVER, REQUEST_BYTES, REQUEST_OUTCOMES, Holdings, Outbox

ERROR = ErrorInfo("E", "m")


def delivery(token: int, first: int, count: int) -> Delivery:
    return Delivery(token, "origin", first, Terms("m:f"), [b""] * count)


def test_consecutive_successes_of_one_lease_are_one_ack() -> None:
    outbox = Outbox()
    for number in (5, 6, 7):
        outbox.succeeded(1, number, b"%d" % number, 0.1 * number, now=10.0 + number)
    assert outbox.content() == (Ack(1, 5, [b"5", b"6", b"7"], [0.5, 0.6000000000000001, 0.7000000000000001]),)
    assert outbox.due_at == 15.02
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


def requests_of(outbox: Outbox) -> list[list[int]]:
    """Report all; return the tokens in each request."""
    requests = []
    while outcomes := outbox.content():
        assert len(encode_request(1, outcomes)) < 2 * REQUEST_BYTES or len(outcomes) == 1
        requests.append([outcome.token for outcome in outcomes])
        assert outbox.due_at < NEVER
        outbox.sent(outcomes)
    assert (outbox.due_at, outbox.size) == (NEVER, 0)
    return requests


def test_a_request_holds_as_many_results_as_its_bound_and_a_larger_one_alone() -> None:
    outbox, half = Outbox(), REQUEST_BYTES // 2
    for token, size in enumerate((half, half, 1, half, 3 * half, 1, 1)):
        outbox.succeeded(token, 0, bytes(size), 0.0, 0.0)
    assert requests_of(outbox) == [[0, 1], [2, 3], [4], [5, 6]]


def test_outcomes_that_a_lost_connection_brings_back_are_reported_in_bounded_requests_and_in_order() -> None:
    outbox, parts = Outbox(), []
    for token in range(16):
        outbox.succeeded(token, 0, bytes(5_000_000), 0.0, 0.0)
        parts.append(outbox.content())
        outbox.sent(parts[-1])
    outbox.succeeded(16, 0, b"later", 0.0, 0.0)
    for part in reversed(parts):
        outbox.restore(part)
    assert requests_of(outbox) == [[token] for token in range(17)]


def test_errors_and_checkpoints_count_as_results_do_and_their_number_is_bounded() -> None:
    outbox, large = Outbox(), ErrorInfo("E", "m" * 2000, "t" * 16000, bytes(17000))
    for token in range(300):
        outbox.add(Checkpoint(token, 0, bytes(60_000)), 0.0)
        outbox.add(Nack(token, 0, large), 0.0)
    assert outbox.full
    assert len(requests_of(outbox)) > 5
    for token in range(REQUEST_OUTCOMES + 1):
        outbox.add(Release(token, 0), 0.0)
    assert outbox.full
    assert [len(each) for each in requests_of(outbox)] == [REQUEST_OUTCOMES, 1]


def test_the_largest_result_that_a_message_carries_fits_into_one() -> None:
    outbox = Outbox()
    for number in range(3):
        outbox.succeeded(1, number, bytes(1000), 0.0, 0.0)
    outbox.succeeded(1, 3, bytes(BODY_BYTES_MAX), 0.0, 0.0)
    first = outbox.content()
    outbox.sent(first)
    (ack,) = outbox.content()
    assert ack == Ack(1, 3, [bytes(BODY_BYTES_MAX)], [0.0])
    assert len(encode_request(1, [ack])) - HEADER.size <= MESSAGE_BYTES_MAX


def test_a_result_over_a_limit_that_was_lowered_becomes_a_failure_that_tells_it() -> None:
    outbox = Outbox()
    outbox.succeeded(1, 5, bytes(2_000_000), 0.5, 0.0, peak=7)
    outbox.succeeded(1, 6, b"small", 0.5, 0.0)
    outbox.refuse_over(2_000_000)
    assert isinstance(outbox.content()[0], Ack)
    outbox.refuse_over(1_000_000)
    nack, ack = outbox.content()
    assert isinstance(nack, Nack)
    assert (nack.token, nack.number, nack.retry_in, nack.cause) == (1, 5, None, Cause.REFUSED)
    assert (nack.seconds, nack.peak) == (0.5, 7)
    assert "takes 2000000 bytes and the manager's limit is 1000000" in nack.error.message
    assert ack == Ack(1, 6, [b"small"], [0.5])
    outbox.refuse_over(0)  # a failure is not refused again
    assert outbox.content() == (nack, ack)


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
    assert outbox.due_at < 10.021
    outbox.postpone(12.0)
    assert outbox.due_at >= 11.0
    outbox.succeeded(1, 1, bytes(1 << 20), 0.0, now=11.0)
    assert outbox.due_at < 11.0
