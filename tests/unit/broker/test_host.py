"""Turns: the order of applying, committing and delivering."""

from __future__ import annotations

import pytest

from svc.broker.host import QueueHost
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import ErrorInfo, NewChunk, Terms
from svc.domain.members import Member
from svc.errors import JournalError
from tests.support.hosts import ask, submit
from tests.support.memory_journals import reopened
from tests.support.state_checks import about_jobs


def test_nothing_is_answered_before_it_is_durable(host, journal):
    answers = submit(host)
    assert answers == []

    host.turn()

    assert answers == [[r.Accepted([])]]
    assert journal.commits == 1


def test_all_of_a_turn_share_one_commit(host, journal):
    answers = [submit(host, number) for number in range(50)]
    host.turn()

    assert journal.commits == 1
    assert all(answers)


def test_a_turn_in_which_nothing_happens_commits_nothing(host, journal):
    host.turn()  # it begins the roster
    before = journal.commits
    ask(host, Member(), c.Ping())

    assert journal.commits == before


def test_after_a_failed_commit_nobody_is_answered(host, journal):
    answers = submit(host)
    journal.failing = True

    with pytest.raises(JournalError):
        host.turn()

    assert answers == []
    assert list(QueueHost(reopened(journal)).journal.replay()) == []


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
    assert len(about_jobs(event for _, event in reopened(journal).replay())) == 1


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
    """It comes late, over a connection that its consumer has given up, and names the leases of that time."""
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
