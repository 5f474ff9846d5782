"""Grants that go out before the commit of the jobs in them (decision 15)."""

from __future__ import annotations

import pytest

from svc.broker.host import QueueHost
from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replay
from svc.domain import replies as r
from svc.domain.job import NewChunk, Terms
from svc.domain.members import Member
from svc.errors import JournalError
from tests.support.hosts import ask, consumer_of, handed_out, submit


@pytest.fixture(autouse=True)
def watermark(host):
    """Move the watermark of the default queue far ahead: a grant that has to move it is not early."""
    state = host.state
    moved = e.WatermarkMoved(0.0, "default", 1 << 20)
    replay.watermark_moved(state.ledger, state.record(moved), moved)
    host.turn()


def test_a_grant_that_moves_the_watermark_waits_for_the_commit(host, journal):
    """After a restart the journal has to say that this job may be held."""
    state = host.state
    state.ledger.forgotten += state.ledger.roster.drop("default")
    granted: list[list[r.Reply]] = []
    host.call([c.Lease(1, 10.0)], consumer_of(host), granted.append)
    host.turn()
    submit(host)
    journal.failing = True

    with pytest.raises(JournalError):
        host.turn()

    assert granted == []


def test_jobs_are_handed_out_before_the_commit_and_nothing_is_acknowledged_if_it_fails(host, journal):
    """So a job may run though the manager dies before it is on record; its submitter was told nothing."""
    granted: list[list[r.Reply]] = []
    host.call([c.Lease(1, 10.0)], consumer_of(host), granted.append)
    host.turn()
    submitted = submit(host)
    journal.failing = True

    with pytest.raises(JournalError):
        host.turn()

    assert handed_out(granted) == 1
    assert submitted == []


def test_who_has_only_just_asked_is_answered_in_turn_with_all_else(host, journal):
    """A stock client's answers have no numbers: its calls must be answered in their order."""
    granted: list[list[r.Reply]] = []
    host.call([c.Lease(1, 10.0)], consumer_of(host), granted.append)
    submit(host)
    journal.failing = True

    with pytest.raises(JournalError):
        host.turn()

    assert granted == []


def test_a_plain_client_that_waits_for_nothing_else_need_not_wait_for_the_commit(host, journal):
    consumer = Member("plain")
    submit(host)
    granted: list[list[r.Reply]] = []
    consumer.outstanding = 1  # as its connection counts: this one
    host.call([c.Lease(1)], consumer, granted.append)
    journal.failing = True

    with pytest.raises(JournalError):
        host.turn()

    assert handed_out(granted) == 1


def test_so_need_one_that_asked_just_before_the_jobs_came(host, journal):
    consumer = Member("plain")
    granted: list[list[r.Reply]] = []
    consumer.outstanding = 1
    host.call([c.Lease(1, 10.0)], consumer, granted.append)
    submit(host)
    journal.failing = True

    with pytest.raises(JournalError):
        host.turn()

    assert handed_out(granted) == 1


def reported(host: QueueHost, *, early: bool) -> list[list[r.Reply]]:
    """Submit two jobs and let a consumer report the first; return the answers to that, in the same turn."""
    submit(host)
    submit(host, 1)
    consumer = consumer_of(host)
    ((grant,),) = ask(host, consumer, c.Lease(1))
    assert isinstance(grant, r.Grant)
    answers: list[list[r.Reply]] = []
    ack = c.Ack(grant.deliveries[0].token, 0, [b"r"], [0.0])
    host.call([ack, c.Lease(1, 10.0, early=early)], consumer, answers.append)
    return answers


def test_who_reports_gets_no_jobs_before_the_end_of_the_turn(host):
    """Coming again in the same turn, it would take its report as recorded; see `Grant`."""
    answers = reported(host, early=True)

    host.hand_out()
    assert answers == []
    host.turn()
    assert handed_out(answers) == 1


def test_a_plain_client_that_asks_for_jobs_behind_another_call_is_answered_after_that(host, journal):
    consumer = Member("plain")
    submit(host)
    granted: list[list[r.Reply]] = []
    consumer.outstanding = 2
    host.call([c.Lease(1)], consumer, granted.append)
    journal.failing = True

    with pytest.raises(JournalError):
        host.turn()

    assert granted == []


def test_jobs_that_come_with_the_answer_to_a_report_wait_for_its_commit(host, journal):
    answers = reported(host, early=False)
    journal.failing = True

    with pytest.raises(JournalError):
        host.turn()

    assert answers == []


def test_who_takes_jobs_early_has_them_before_the_commit_of_its_report_and_is_told_so(host, journal):
    answers = reported(host, early=True)
    journal.failing = True

    with pytest.raises(JournalError):
        host.turn()

    ((done, grant),) = answers
    assert done == r.Done(1)
    assert isinstance(grant, r.Grant)
    assert grant.early
    assert handed_out(answers) == 1


def test_once_a_commit_has_failed_nothing_is_handed_out_any_more(host, journal):
    """It would say that the earlier reports are on record."""
    submit(host)
    consumer = consumer_of(host)
    submit(host, 1)
    journal.failing = True
    with pytest.raises(JournalError):
        host.turn()
    journal.failing = False
    answers: list[list[r.Reply]] = []
    host.call([c.Lease(1, early=True)], consumer, answers.append)

    host.turn()
    host.close()

    assert answers == []


def test_a_grant_is_early_only_where_something_was_reported_with_it_in_the_same_turn(host):
    submit(host)
    consumer = consumer_of(host)

    ((first,),) = ask(host, consumer, c.Lease(1, 10.0, early=True))
    assert isinstance(first, r.Grant)
    ack = c.Ack(first.deliveries[0].token, 0, [b"r"], [0.0])
    waited = ask(host, consumer, ack, c.Lease(1, 10.0, early=True))
    submit(host, 1)
    host.turn()

    ((_, second),) = waited
    assert isinstance(second, r.Grant)
    assert handed_out(waited) == 1
    assert (first.early, second.early) == (False, False)


def test_a_report_that_is_on_record_does_not_hold_up_later_jobs(host, journal):
    submit(host)
    consumer = consumer_of(host)
    ((grant,),) = ask(host, consumer, c.Lease(1))
    assert isinstance(grant, r.Grant)
    ack = c.Ack(grant.deliveries[0].token, 0, [b"r"], [0.0])
    answers = ask(host, consumer, ack, c.Lease(1, 10.0))
    submit(host, 1)
    journal.failing = True

    with pytest.raises(JournalError):
        host.turn()

    assert handed_out(answers) == 1


def test_a_pill_put_by_hand_waits_for_its_commit(host, journal):
    """It stops exactly one consumer, so it must be gone from the journal when one has it."""
    pill = NewChunk(0, Terms("#pill", codec="item"), [b""])
    host.call([c.Submit("o", [pill])], Member(inside=True), lambda replies: None)
    host.turn()
    answers: list[list[r.Reply]] = []
    host.call([c.Lease(1)], consumer_of(host), answers.append)
    journal.failing = True

    with pytest.raises(JournalError):
        host.turn()

    assert answers == []


def test_an_early_grant_overtakes_no_answer_to_a_report(host):
    """A new connection would begin with the reports beside the grant, and miss those before them."""
    for number in range(3):
        submit(host, number)
    consumer = consumer_of(host)
    first, second = (held(host, consumer) for _ in range(2))
    answers: list[list[r.Reply]] = []
    host.call([first], consumer, answers.append)
    host.call([second, c.Lease(1, 10.0, early=True)], consumer, answers.append)

    host.turn()

    ((done,), (also_done, jobs)) = answers
    assert done == also_done == r.Done(1)
    assert isinstance(jobs, r.Grant)
    assert not jobs.early


def test_a_grant_is_early_behind_an_answer_that_confirms_no_report(host):
    submit(host)
    consumer = consumer_of(host)
    ack = held(host, consumer)
    answers: list[list[r.Reply]] = []
    host.call([c.Lease(1)], consumer, answers.append)
    submit(host, 1)
    host.call([ack, c.Lease(1, 10.0, early=True)], consumer, answers.append)

    host.turn()

    assert sorted(replies[-1].early for replies in answers if isinstance(replies[-1], r.Grant)) == [
        False,
        True,
    ]


def held(host: QueueHost, consumer: Member) -> c.Ack:
    """Lease a job; return the report of its result."""
    ((grant,),) = ask(host, consumer, c.Lease(1))
    assert isinstance(grant, r.Grant)
    (delivery,) = grant.deliveries
    return c.Ack(delivery.token, delivery.first, [b"r"], [0.0])
