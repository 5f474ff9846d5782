"""Nobody holds so many leases that to give them back at once would stall the manager."""

from __future__ import annotations

import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain import stops
from svc.domain.limits import Limits
from svc.domain.members import Member
from svc.server.plain import SharedObjects
from svc.wire import PROTOCOL_VERSION
from tests.support.asking import chunk
from tests.support.hosts import answers
from tests.support.svc import ROOT
from tests.support.work import instructions_of

MOST = 3


@pytest.fixture
def host() -> QueueHost:
    host = QueueHost(MemoryJournal(), limits=Limits(member_leases=MOST, grant_jobs=MOST))
    # Every other number, so that each job takes a lease of its own.
    answers(host, Member(), c.Submit("o", [chunk(2 * number) for number in range(4 * MOST)]))
    return host


def consumer(host: QueueHost) -> Member:
    member = Member()
    answers(host, member, c.Hello(PROTOCOL_VERSION, "consumer", "w-1", "w", tasks=["m:f"]))
    return member


@pytest.fixture(params=["consumer", "plain"])
def member(request: pytest.FixtureRequest, host: QueueHost) -> Member:
    return consumer(host) if request.param == "consumer" else Member("plain")


def test_who_holds_as_many_as_he_may_gets_no_more(host, member):
    granted = answers(host, member, *[c.Lease(1)] * MOST)
    assert all(isinstance(each, r.Grant) and each.deliveries for each in granted)
    refused = answers(host, member, c.Lease(1), c.Lease(MOST, wait=5.0))
    assert [each.code for each in refused if isinstance(each, r.Refused)] == ["conflict"] * 2
    assert len(member.leases) == MOST


def test_who_settles_or_releases_one_gets_another(host, member):
    answers(host, member, *[c.Lease(1)] * MOST)
    for settle in (lambda token, first: c.Ack(token, first, [b"r"], [0.0]), c.Release):
        lease = next(iter(member.leases.values()))
        done, grant = answers(host, member, settle(lease.token, lease.chunk.first + lease.start), c.Lease(1))
        assert done == r.Done(1)
        assert isinstance(grant, r.Grant)
        assert len(grant.deliveries) == 1


def test_another_member_is_not_concerned(host, member):
    answers(host, member, *[c.Lease(1)] * MOST)
    (grant,) = answers(host, Member("plain"), c.Lease(1))
    assert isinstance(grant, r.Grant)
    assert grant.deliveries


def test_a_stock_client_that_acknowledges_nothing_is_told(host):
    told: list[object] = []
    face, member = SharedObjects(host), Member("plain")
    for _ in range(MOST + 1):
        face.carry_out(face.method("tasks", "get"), member, (), {}, told.append)
        host.turn()
    assert isinstance(told[-1], ValueError)
    assert "acknowledge" in str(told[-1])
    assert not any(isinstance(each, Exception) for each in told[:-1])


def test_the_page_for_stock_clients_names_the_most_leases():
    page = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    assert f"may hold {Limits().member_leases:,} leases" in page


def test_a_cancel_of_many_running_jobs_compares_each_lease_with_its_own_jobs_alone():
    """With 5,000 leases in one chunk, a cancel of 1,000 jobs took 0.1 s of the manager's loop."""
    host = QueueHost(MemoryJournal())
    answers(host, Member(), c.Submit("o", [chunk(0, 600)]))
    member = consumer(host)
    for _ in range(3):
        answers(host, member, *[c.Lease(1)] * 200)
    (held,) = host.state.ledger.chunks.values()
    places = [(held, index) for index in range(600)]
    assert instructions_of(lambda: stops.leases_at(host.state, places)) < 200 * 600
    assert [lease.start for lease in stops.leases_at(host.state, places).values()] == list(range(600))


def test_an_answer_to_a_supervisor_names_a_bounded_number_of_attempts_to_end(monkeypatch):
    monkeypatch.setattr(stops, "STOPS_TOLD", 2)
    host = QueueHost(MemoryJournal())
    answers(host, Member(), c.Submit("o", [chunk(0, MOST)]))
    answers(host, consumer(host), *[c.Lease(1)] * MOST)
    answers(host, Member(), c.Cancel([f"o-{number}" for number in range(MOST)], running=True))
    supervisor = Member()
    (_, told) = answers(host, supervisor, c.Hello(PROTOCOL_VERSION, "worker", "w", "w"), c.Extend(told=True))
    assert isinstance(told, r.Extended)
    assert [each.number for each in told.stops] == [2, 1]
