"""Replies that wait for commits which other hosts have still to confirm."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from svc.broker import unsettled
from svc.broker.host import QueueHost
from svc.broker.requests import Request
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import NewChunk, Terms
from svc.domain.members import Member
from svc.errors import JournalError
from tests.support.asking import ack_of
from tests.support.clock import FakeClock
from tests.support.hosts import consumer_of, handed_out, submit
from tests.support.memory_journals import HeldJournal

Answers = list[list[r.Reply]]


@pytest.fixture
def journal() -> HeldJournal:
    return HeldJournal()


@pytest.fixture
def host(journal: HeldJournal) -> QueueHost:
    return QueueHost(journal, clock=FakeClock())


def ask(host: QueueHost, member: Member, *commands: c.Command) -> Answers:
    answers: Answers = []
    host.call(commands, member, answers.append)
    host.turn()
    return answers


def confirm(host: QueueHost, journal: HeldJournal) -> None:
    for ticket in journal.tickets:
        ticket.confirm()
    host.turn()


def submitted(host: QueueHost, number: int = 0) -> Answers:
    answers = submit(host, number)
    host.turn()
    return answers


def leased(host: QueueHost, journal: HeldJournal, consumer: Member) -> r.Grant:
    """Return a grant of one job, with all commits confirmed."""
    submitted(host)
    confirm(host, journal)
    answers = ask(host, consumer, c.Lease(1, early=True))
    confirm(host, journal)
    ((grant,),) = answers
    assert isinstance(grant, r.Grant)
    return grant


def ack(grant: r.Grant) -> c.Ack:
    (delivery,) = grant.deliveries
    return ack_of(delivery)


def joined(host: QueueHost, journal: HeldJournal, name: str = "w-1") -> Member:
    consumer = consumer_of(host, name)
    confirm(host, journal)
    return consumer


def test_a_submit_is_answered_when_its_commit_is_confirmed_and_not_before(host, journal):
    answers = submitted(host)
    host.turn()
    assert answers == []
    journal.tickets[-1].confirm()
    host.turn()
    ((reply,),) = answers
    assert isinstance(reply, r.Accepted)


def test_a_turn_that_changes_nothing_waits_for_the_commit_that_it_may_tell_of(host, journal):
    submitted(host)
    reader = ask(host, Member(), c.List())
    assert reader == []
    confirm(host, journal)
    assert len(reader) == 1


def test_commits_are_acknowledged_in_their_order_also_if_a_later_one_is_confirmed_first(host, journal):
    first, second = submitted(host, 0), submitted(host, 1)
    journal.tickets[1].confirm()
    host.turn()
    assert (first, second) == ([], [])
    journal.tickets[0].confirm()
    host.turn()
    assert len(first) == len(second) == 1


def test_turns_that_share_a_ticket_are_acknowledged_together(host, journal):
    journal.gathers = True
    answers = [submitted(host, number) for number in range(3)]
    assert len(journal.tickets) == 1
    confirm(host, journal)
    assert all(len(each) == 1 for each in answers)


def test_pings_renewals_and_metrics_are_answered_while_no_commit_gets_on(host, journal):
    worker = Member()
    ask(host, worker, c.Hello(1, "worker", "w-0", "w"))
    confirm(host, journal)
    submitted(host)
    assert len(ask(host, Member(), c.Ping())) == 1
    assert len(ask(host, worker, c.Extend(told=True))) == 1
    assert len(ask(host, Member(), c.Exposition())) == 1


def test_a_ping_behind_a_submit_of_the_same_connection_waits_for_it(host, journal):
    member = Member()
    answers: Answers = []
    submit_answers = submit(host)
    host.turn()
    host.call([c.Submit("p", [])], member, answers.append)
    host.turn()
    host.call([c.Ping()], member, answers.append)
    host.turn()
    assert (submit_answers, answers) == ([], [])
    confirm(host, journal)
    assert len(answers) == 2


def test_a_grant_waits_for_the_commit_that_says_what_may_be_granted(host, journal):
    consumer = joined(host, journal)
    submitted(host)
    confirm(host, journal)
    answers = ask(host, consumer, c.Lease(1, early=True))
    assert handed_out(answers) == 0, "the mark is not durable yet"
    confirm(host, journal)
    assert handed_out(answers) == 1


def test_a_grant_beside_reports_waits_while_an_earlier_commit_is_not_confirmed(host, journal):
    consumer = joined(host, journal)
    grant = leased(host, journal, consumer)
    for number in (1, 2):
        submitted(host, number)
    confirm(host, journal)
    submitted(host, 3)
    answers = ask(host, consumer, ack(grant), c.Lease(1, early=True))
    assert answers == [], "the consumer would take reports of an earlier turn as recorded"
    confirm(host, journal)
    assert handed_out(answers) == 1


def test_with_all_commits_confirmed_a_grant_beside_reports_leaves_before_its_own(host, journal):
    consumer = joined(host, journal)
    grant = leased(host, journal, consumer)
    submitted(host, 1)
    confirm(host, journal)
    ((_, early),) = ask(host, consumer, ack(grant), c.Lease(1, early=True))
    assert isinstance(early, r.Grant)
    assert early.early


def test_a_failed_commit_acknowledges_nothing_and_ends_the_host(host, journal):
    answers: Sequence[Answers] = [submitted(host, 0), submitted(host, 1)]
    journal.tickets[1].confirm()
    journal.tickets[0].fail("deposed")
    with pytest.raises(JournalError, match="deposed"):
        host.turn()
    assert list(answers) == [[], []]
    submit(host, 2)
    with pytest.raises(JournalError, match="deposed"):
        host.turn()


def test_closing_waits_for_the_last_commit_and_answers_it(host, journal):
    answers = submitted(host)
    journal.tickets[0].confirm()
    host.close()
    assert len(answers) == 1


def request(member: Member, *commands: c.Command) -> Request:
    return Request(commands, member, lambda replies: None)


def test_while_too_many_bytes_are_unsettled_only_requests_without_content_are_begun(
    host, journal, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(unsettled, "UNSETTLED_BYTES_MAX", 10)
    consumer = joined(host, journal)
    renewal = c.Extend()
    content = c.Submit("o", [NewChunk(9, Terms("m:f"), [b"x"])])
    assert not host.puts_off(request(Member(), content))
    submit(host, body=b"x" * 11)
    host.turn()
    assert host.behind
    assert host.puts_off(request(Member(), content))
    assert host.puts_off(request(consumer, renewal, content))
    assert not host.puts_off(request(consumer, renewal))
    assert not host.puts_off(request(Member(), c.Ping(), c.Stats()))
    confirm(host, journal)
    assert not host.behind
    assert not host.puts_off(request(Member(), content))
    assert host.commits.unsettled.size == 0
