"""A host whose manager is not always sure that it leads."""

from __future__ import annotations

import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.broker.leading import LeadFacts, LeadingHost
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.members import Member
from tests.support.clock import FakeClock
from tests.support.hosts import ask, consumer_of, handed_out, submit


class Key:
    """The right to lead, as a test says."""

    held = True

    def __call__(self) -> bool:
        return self.held


@pytest.fixture
def key() -> Key:
    return Key()


@pytest.fixture
def host(key: Key) -> LeadingHost:
    return LeadingHost(MemoryJournal(), leads=key, clock=FakeClock())


def test_nothing_is_granted_while_the_manager_is_not_sure_and_all_is_afterwards(host, key):
    consumer = consumer_of(host)
    submit(host)
    host.turn()
    key.held = False
    answers = ask(host, consumer, c.Lease(1))
    host.turn()
    assert answers == []
    key.held = True
    host.turn()
    assert handed_out(answers) == 1


def test_a_parked_consumer_gets_no_job_that_comes_free_meanwhile(host, key):
    holder, waiting = consumer_of(host, "w-1"), consumer_of(host, "w-2")
    submit(host)
    host.turn()
    assert handed_out(ask(host, holder, c.Lease(1))) == 1
    answers = ask(host, waiting, c.Lease(1, wait=60.0))
    key.held = False
    host.turn()
    host.disconnected(holder)
    host.turn()
    assert answers == []


def test_a_request_that_is_held_ends_with_its_connection(host, key):
    consumer = consumer_of(host)
    submit(host)
    host.turn()
    key.held = False
    answers = ask(host, consumer, c.Lease(1))
    host.disconnected(consumer)
    key.held = True
    host.turn()
    assert (answers, len(host.state.leases)) == ([], 0)


def test_what_its_own_process_asks_is_refused_meanwhile_and_never_held(host, key):
    """The requests of a poller over HTTP, which has no connection here, would pile up."""
    answers: list[r.Reply] = []
    key.held = False
    for command in (c.Stats(), c.Stats(), c.Ping()):
        host.ask([command], answers.extend)
        host.turn()
    assert [getattr(answer, "code", "") for answer in answers] == ["unreachable", "unreachable", ""]
    key.held = True
    host.turn()
    assert len(answers) == 3
    host.ask([c.Stats()], answers.extend)
    host.turn()
    assert isinstance(answers[-1], r.Totals)


def test_a_ping_is_answered_meanwhile_and_requests_keep_their_order(host, key):
    key.held = False
    assert len(ask(host, Member(), c.Ping())) == 1
    member, order = Member(), []
    host.call([c.List()], member, lambda replies: order.append("list"))
    host.call([c.Drain()], member, lambda replies: order.append("drain"))
    host.turn()
    assert order == []
    key.held = True
    host.turn()
    assert order == ["list", "drain"]


def test_a_hand_over_is_refused_with_the_reason_or_begun(key):
    reasons = ["no standby is there", ""]
    host = LeadingHost(MemoryJournal(), leads=key, leave=lambda: reasons.pop(0), clock=FakeClock())
    ((refused,),) = ask(host, Member(), c.HandOver())
    assert refused == r.Refused("conflict", "no standby is there")
    assert ask(host, Member(), c.HandOver()) == [[r.Done()]]


def test_a_manager_with_a_journal_of_its_own_cannot_hand_over():
    ((refused,),) = ask(QueueHost(MemoryJournal(), clock=FakeClock()), Member(), c.HandOver())
    assert isinstance(refused, r.Refused)
    assert refused.code == "conflict"


def test_the_overview_names_the_leader_and_counts_its_standbys():
    host = LeadingHost(
        MemoryJournal(), leads=Key(), facts=lambda: LeadFacts("m-1:7077", 2), clock=FakeClock()
    )
    totals = host.totals()
    assert (totals.leader, totals.standbys, totals.durability) == ("m-1:7077", 2, "memory")


def test_a_ping_tells_for_how_long_the_servers_of_the_journal_have_been_silent(key):
    facts = [LeadFacts(), LeadFacts(silent=12.7)]
    host = LeadingHost(MemoryJournal(), leads=key, facts=lambda: facts.pop(0), clock=FakeClock())
    first = ask(host, Member(), c.Ping())
    key.held = False
    second = ask(host, Member(), c.Ping())
    host.turn()
    assert [*first, *second] == [[r.Done(0)], [r.Done(12)]]
