"""Stats of very many queues are counted over several turns, and are the same as at once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.broker.requests import Request
from svc.broker.surveys import COUNTED_AT_ONCE
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.field_bounds import SUBMIT_JOBS_MAX
from svc.domain.job import NewChunk, Terms
from svc.domain.members import Member
from tests.support.clock import FakeClock

QUEUES = 4 * COUNTED_AT_ONCE
#: Of each frame: how many commands, and at which place the stats are asked for.
FRAMES = {
    "alone": [c.Stats()],
    "last": [c.Ping(), c.Stats()],
    "first": [c.Stats(), c.Ping()],
    "between": [c.Ping(), c.Stats(), c.Ping()],
}


@pytest.fixture
def host() -> QueueHost:
    host = QueueHost(MemoryJournal(), clock=FakeClock())
    chunks = [NewChunk(number, Terms("m:f", f"q{number:05}"), [b"x"]) for number in range(QUEUES)]
    host.call([c.Submit("filler", chunks)], Member(), lambda replies: None)
    host.turn()
    return host


def served(host: QueueHost, commands: Sequence[c.Command]) -> tuple[list[r.Reply], int]:
    """Return the replies to a request that has no time in any turn, and how many turns it took."""
    replies: list[r.Reply] = []
    request, turns = Request(commands, Member(), replies.extend), 1
    while not host.proceed(request, until=0.0):
        turns += 1
        host.turn()
    host.turn()
    return replies, turns


def totals_in(replies: Sequence[r.Reply]) -> r.Totals:
    (found,) = [reply for reply in replies if isinstance(reply, r.Totals)]
    return found


@pytest.mark.parametrize("commands", FRAMES.values(), ids=FRAMES)
def test_stats_of_many_queues_are_counted_over_several_turns(
    host: QueueHost, commands: list[c.Command]
) -> None:
    replies, turns = served(host, commands)

    assert turns > QUEUES // COUNTED_AT_ONCE
    assert len(replies) == len(commands)
    assert totals_in(replies).queues == host.totals().queues


def test_counts_that_nobody_waits_for_any_more_keep_nobody_waiting(host: QueueHost) -> None:
    abandoned = Request([c.Stats()], Member(), lambda replies: None)
    assert not host.proceed(abandoned, until=0.0)

    replies, _ = served(host, [c.Stats()])

    assert totals_in(replies).queues == host.totals().queues


def test_stats_count_what_was_submitted_before_them_in_the_same_frame(host: QueueHost) -> None:
    assert not host.proceed(Request([c.Stats()], Member(), lambda replies: None), until=0.0)

    submit = c.Submit("o", [NewChunk(0, Terms("m:f", "q00000"), [b"x"] * 6)])
    replies, _ = served(host, [submit, c.Stats()])

    assert totals_in(replies).queues[0].ready == 7


def test_a_queue_that_is_forgotten_meanwhile_is_left_out(host: QueueHost) -> None:
    replies: list[r.Reply] = []
    request = Request([c.Stats()], Member(), replies.extend)
    assert not host.proceed(request, until=0.0)
    del host.state.ledger.counts[f"q{QUEUES - 1:05}"]

    while not host.proceed(request, until=0.0):
        host.turn()
    host.turn()

    assert totals_in(replies).queues == host.totals().queues


def test_what_the_owner_asks_is_answered_over_several_turns(host: QueueHost) -> None:
    replies: list[r.Reply] = []

    host.ask([c.Stats()], replies.extend)
    assert host.seconds_to_next() == 0.0
    while not replies:
        host.turn()

    assert totals_in(replies).queues == host.totals().queues


@pytest.mark.parametrize("shape", [(SUBMIT_JOBS_MAX, 1), (1, SUBMIT_JOBS_MAX), (60_000, 60_000)])
def test_a_submit_of_too_many_jobs_changes_nothing(host: QueueHost, shape: tuple[int, ...]) -> None:
    first, chunks = 0, []
    for count in shape:
        chunks.append(NewChunk(first, Terms("m:f"), [b""] * count))
        first += count

    replies, _ = served(host, [c.Submit("o", chunks)])

    assert isinstance(replies[0], r.Refused)
    assert str(SUBMIT_JOBS_MAX) in replies[0].message
    assert "default" not in [queue.name for queue in host.totals().queues]
