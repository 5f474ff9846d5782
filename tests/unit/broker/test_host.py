"""Turns: what is applied, committed and delivered when."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.events import AnyEvent
from svc.domain.job import ErrorInfo, NewChunk, Terms
from svc.domain.members import Member
from svc.errors import JournalError
from tests.support.clock import FakeClock


class CountingJournal(MemoryJournal):
    """Counts commits, and fails on request."""

    commits = 0
    failing = False

    def append(self, records: Sequence[tuple[int, AnyEvent]], forget: Sequence[int] = ()) -> None:
        if self.failing:
            raise JournalError("disk full")
        self.commits += 1
        super().append(records, forget)


@pytest.fixture
def journal() -> CountingJournal:
    return CountingJournal()


@pytest.fixture
def host(journal: CountingJournal) -> QueueHost:
    return QueueHost(journal, clock=FakeClock())


def submit(host: QueueHost, number: int = 0, body: bytes = b"") -> list[list[r.Reply]]:
    answers: list[list[r.Reply]] = []
    host.call([c.Submit("o", [NewChunk(number, Terms("m:f"), [body])])], Member(), answers.append)
    return answers


def ask(host: QueueHost, member: Member, *commands: c.Command) -> list[list[r.Reply]]:
    answers: list[list[r.Reply]] = []
    host.call(commands, member, answers.append)
    host.turn()
    return answers


def test_nothing_is_answered_before_it_is_durable(host, journal):
    answers = submit(host)
    assert answers == []

    host.turn()

    assert answers == [[r.Accepted([])]]
    assert journal.commits == 1


def consumer_of(host: QueueHost, name: str = "w-1") -> Member:
    member = Member()
    ask(host, member, c.Hello(1, "consumer", name, "w", tasks=["m:f"]))
    return member


def handed_out(answers: list[list[r.Reply]]) -> int:
    grants = [reply for replies in answers for reply in replies if isinstance(reply, r.Grant)]
    return sum(len(each.bodies) for grant in grants for each in grant.deliveries)


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
    """A stock client's answers have no numbers: what it asked before has to be answered before."""
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
    """It would tell that what was reported before is on record."""
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


def test_all_of_a_turn_share_one_commit(host, journal):
    answers = [submit(host, number) for number in range(50)]
    host.turn()

    assert journal.commits == 1
    assert all(answers)


def test_a_turn_in_which_nothing_happens_commits_nothing(host, journal):
    ask(host, Member(), c.Ping())

    assert journal.commits == 0


def test_after_a_failed_commit_nobody_is_answered(host, journal):
    answers = submit(host)
    journal.failing = True

    with pytest.raises(JournalError):
        host.turn()

    assert answers == []
    assert list(QueueHost(journal.reopened()).journal.replay()) == []


def test_a_waiting_request_is_answered_in_the_turn_that_brings_what_it_waits_for(host):
    waiting = ask(host, Member("plain"), c.Lease(1, 60.0))
    assert waiting == []
    submit(host)
    host.turn()

    assert isinstance(waiting[0][0], r.Grant)


def test_those_who_wait_longest_are_served_first(host):
    waiting = [ask(host, Member("plain"), c.Lease(1, 60.0)) for _ in range(3)]
    for number in range(2):
        submit(host, number)
        host.turn()

    assert [bool(answers) for answers in waiting] == [True, True, False]


def test_who_is_gone_eats_no_job(host):
    gone = Member("plain")
    ask(host, gone, c.Lease(1, 60.0))
    waiting = ask(host, Member("plain"), c.Lease(1, 60.0))
    host.disconnected(gone)
    submit(host)
    host.turn()

    assert waiting


def test_only_the_last_command_of_a_request_may_wait(host):
    answers = ask(host, Member("plain"), c.Lease(1, 60.0), c.Ping())

    assert answers == [[r.Grant(), r.Done()]]


def test_wake_answers_what_a_member_waits_for(host):
    member = Member("plain")
    waiting = ask(host, member, c.Lease(1, 60.0))
    woken = ask(host, member, c.Wake())

    assert (waiting, woken) == ([[r.Grant()]], [[r.Done()]])


def test_a_wait_ends_in_time(host):
    waiting = ask(host, Member("plain"), c.Lease(1, 1.0))
    host.clock.advance(0.9)
    host.turn()
    assert waiting == []
    host.clock.advance(0.2)
    host.turn()

    assert waiting == [[r.Grant()]]


def test_the_host_may_sleep_until_the_next_thing_is_due(host):
    host.turn()
    chunk = NewChunk(0, Terms("m:f"), [b""], 2.0)
    ask(host, Member(), c.Submit("o", [chunk]))
    host.turn()

    assert host.seconds_to_next() == pytest.approx(2.0)


def test_closing_commits_and_answers_what_is_pending(host, journal):
    answers = submit(host)
    host.close()

    assert answers
    assert len(list(journal.reopened().replay())) == 1


def test_totals_say_what_the_host_is(host):
    totals = host.totals()

    assert (totals.durability, totals.incarnation, totals.uptime) == ("memory", 1, 0.0)


def test_at_an_orderly_end_who_reported_outcomes_is_answered_and_others_are_not(host):
    consumer, idle = Member(), Member()
    for member, name in ((consumer, "w-1"), (idle, "w-2")):
        ask(host, member, c.Hello(1, "consumer", name, "w", tasks=["m:f"]))
    submit(host)
    ((grant,),) = ask(host, consumer, c.Lease(1))
    assert isinstance(grant, r.Grant)
    ack = c.Ack(grant.deliveries[0].token, 0, [b"r"], [0.0])
    reported = ask(host, consumer, ack, c.Lease(1, 10.0))
    waited = ask(host, idle, c.Lease(1, 10.0))
    assert reported == []

    host.answer_reports()
    host.turn()

    assert reported == [[r.Done(1), r.Grant()]]
    assert waited == []


def came(order: int) -> Member:
    member = Member()
    member.order = order
    return member


def test_a_hello_that_was_overtaken_takes_nothing_from_the_newer_connection(host):
    """It comes late, over a connection that its consumer has given up, and names what that held then."""
    hello = c.Hello(c.PROTOCOL_VERSION, "consumer", "w-1", "w", tasks=["m:f"])
    supervisor = c.Hello(c.PROTOCOL_VERSION, "worker", "w", "w", tasks=["m:f"])
    old, new = came(2), came(3)
    ask(host, came(1), supervisor)
    ask(host, new, hello)
    submit(host)
    ((granted,),) = ask(host, new, c.Lease(1))
    assert isinstance(granted, r.Grant)
    (delivery,) = granted.deliveries

    ((late,),) = ask(host, old, hello)

    assert isinstance(late, r.Refused)
    assert (late.code, new.worker is None, list(new.leases)) == ("conflict", False, [delivery.token])
    ((nothing,),) = ask(host, old, c.Lease(1))
    assert isinstance(nothing, r.Refused)
    host.disconnected(old)
    host.turn()
    ask(host, new, c.Ack(delivery.token, 0, [b"x"], [0.1]))
    assert host.totals().queues[0].succeeded == 1


def test_a_supervisors_late_hello_does_not_replace_the_one_on_its_newer_connection(host):
    supervisor = c.Hello(c.PROTOCOL_VERSION, "worker", "w", "w", tasks=["m:f"])
    old, new = came(1), came(2)
    ask(host, new, supervisor)
    ((late,),) = ask(host, old, supervisor)
    assert isinstance(late, r.Refused)
    assert late.code == "conflict"
    assert host.state.workers["w"].supervisor is new


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "left"])
def test_a_late_hello_of_a_consumer_that_has_ended_takes_up_no_lease(host, killed):
    """Nobody would ever end that: its supervisor has said all that it had to say of it."""
    hello = c.Hello(c.PROTOCOL_VERSION, "consumer", "w-1", "w", tasks=["m:f"])
    supervisor, first, late = Member(), Member(), Member()
    for each in (supervisor, first, late):
        host.state.arrived(each)
    ask(host, supervisor, c.Hello(c.PROTOCOL_VERSION, "worker", "w", "w", tasks=["m:f"]))
    ask(host, first, hello)
    if killed:
        ask(host, supervisor, c.Lost("w-1", ErrorInfo("Killed", "by a signal")))
    else:
        ask(host, first, c.Leave())

    ((answer,),) = ask(host, late, hello)

    assert isinstance(answer, r.Refused)
    assert answer.code == "conflict"
    assert host.state.workers["w"].consumers == {}
    successor = Member()
    host.state.arrived(successor)
    ((welcome,),) = ask(host, successor, hello)
    assert isinstance(welcome, r.Welcome), "a new process may have the name of an old one"
