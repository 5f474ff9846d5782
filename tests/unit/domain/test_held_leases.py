"""Nobody holds so many leases that to give them back at once would stall the manager."""

from __future__ import annotations

import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.limits import Limits
from svc.domain.members import Member
from svc.server.plain import SharedObjects
from svc.wire import PROTOCOL_VERSION
from tests.support.asking import chunk

MOST = 3


@pytest.fixture
def host() -> QueueHost:
    host = QueueHost(MemoryJournal(), limits=Limits(member_leases=MOST, grant_jobs=MOST))
    # Every other number, so that each job takes a lease of its own.
    ask(host, Member(), c.Submit("o", [chunk(2 * number) for number in range(4 * MOST)]))
    return host


def ask(host: QueueHost, member: Member, *commands: c.Command) -> list[r.Reply]:
    told: list[list[r.Reply]] = []
    host.call(commands, member, told.append)
    host.turn()
    (replies,) = told
    return replies


def consumer(host: QueueHost) -> Member:
    member = Member()
    ask(host, member, c.Hello(PROTOCOL_VERSION, "consumer", "w-1", "w", tasks=["m:f"]))
    return member


@pytest.fixture(params=["consumer", "plain"])
def member(request: pytest.FixtureRequest, host: QueueHost) -> Member:
    return consumer(host) if request.param == "consumer" else Member("plain")


def test_who_holds_as_many_as_he_may_gets_no_more(host, member):
    granted = ask(host, member, *[c.Lease(1)] * MOST)
    assert all(isinstance(each, r.Grant) and each.deliveries for each in granted)
    refused = ask(host, member, c.Lease(1), c.Lease(MOST, wait=5.0))
    assert [each.code for each in refused if isinstance(each, r.Refused)] == ["conflict"] * 2
    assert len(member.leases) == MOST


def test_who_settles_or_releases_one_gets_another(host, member):
    ask(host, member, *[c.Lease(1)] * MOST)
    for settle in (lambda token, first: c.Ack(token, first, [b"r"], [0.0]), c.Release):
        lease = next(iter(member.leases.values()))
        done, grant = ask(host, member, settle(lease.token, lease.chunk.first + lease.start), c.Lease(1))
        assert done == r.Done(1)
        assert isinstance(grant, r.Grant)
        assert len(grant.deliveries) == 1


def test_another_member_is_not_concerned(host, member):
    ask(host, member, *[c.Lease(1)] * MOST)
    (grant,) = ask(host, Member("plain"), c.Lease(1))
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
