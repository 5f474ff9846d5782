"""The names by which consumers take jobs: each kind is kept once, and all of them are bounded together."""

from __future__ import annotations

from itertools import count

import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain import enrolment
from svc.domain import replies as r
from svc.domain.field_bounds import TASKS_MAX
from svc.domain.members import Member
from svc.domain.scheduling import kinds
from svc.domain.scheduling.kinds import kind_bytes
from svc.wire import PROTOCOL_VERSION

NUMBERS = count()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> QueueHost:
    monkeypatch.setattr(kinds, "KINDS_BYTES", 100_000)
    return QueueHost(MemoryJournal())


def ask(host: QueueHost, member: Member, command: c.Command) -> r.Reply:
    told: list[list[r.Reply]] = []
    host.call([command], member, told.append)
    host.turn()
    ((reply,),) = told
    return reply


def hello(worker: str, *tasks: str, role: str = "consumer", queues: tuple[str, ...] = ()) -> c.Hello:
    return c.Hello(PROTOCOL_VERSION, role, f"{worker}-1", worker, tasks=list(tasks), queues=list(queues))


def names(number: int = 300) -> list[str]:
    """Return so many names that nobody has used."""
    return [f"m:{next(NUMBERS)}" for _ in range(number)]


def kept(host: QueueHost) -> int:
    """Return the bytes of all names that members and the roster hold, each object counted once."""
    state = host.state
    held = {id(kind): kind for kind in enrolment.kinds_in_use(state)}
    return sum(map(kind_bytes, held.values()))


def test_consumers_of_very_many_names_are_refused_and_small_ones_let_in(host):
    """150 connections with 10,000 names each took 1.4 GB."""
    replies = [ask(host, Member(), hello(f"w{number}", *names())) for number in range(20)]
    refused = [each.code for each in replies if isinstance(each, r.Refused)]
    assert 0 < len(refused) < 20
    assert set(refused) == {"conflict"}
    assert kept(host) <= 100_000
    assert isinstance(ask(host, Member(), hello("small", "m:f")), r.Welcome)


def test_a_refused_hello_changes_nothing(host):
    member = Member()
    ask(host, member, hello("w", "m:f"))
    before = member.subscription
    assert isinstance(ask(host, member, hello("w", *names(1000))), r.Refused)
    assert member.subscription is before


def test_consumers_with_the_same_names_share_them_and_so_does_the_roster(host):
    tasks = names(500)
    for number in range(50):
        assert isinstance(ask(host, Member(), hello(f"w{number}", *tasks)), r.Welcome)
    assert len({id(each.subscription) for each in host.state.ledger.roster.workers.values()}) == 1
    assert kept(host) < 100_000


def test_there_is_room_again_once_the_others_have_left(host):
    members = [Member() for _ in range(3)]
    for number, member in enumerate(members):
        ask(host, member, hello(f"w{number}", *names()))
    assert isinstance(ask(host, Member(), hello("w9", *names(800))), r.Refused)
    for member in members:
        ask(host, member, c.Leave())
    assert isinstance(ask(host, Member(), hello("w9", *names(800))), r.Welcome)


@pytest.mark.parametrize("of", ["tasks", "queues"])
def test_one_connection_with_new_names_in_each_hello_keeps_a_bounded_number(host, of):
    member = Member()
    for _ in range(20):
        some = names()
        said = hello("w", *some) if of == "tasks" else hello("w", "m:f", queues=tuple(some))
        assert isinstance(ask(host, member, said), r.Welcome)
    assert kept(host) <= 100_000
    assert host.state.ledger.roster.knows("w", member.subscription)


def test_a_worker_whose_consumers_name_very_much_is_waited_for_as_if_it_knew_all_tasks(monkeypatch):
    host, member = QueueHost(MemoryJournal()), Member()
    for _ in range(4):
        ask(host, member, hello("w", *names(TASKS_MAX)))
    assert host.state.ledger.roster.workers["w"].subscription[1] is None


def test_the_names_in_renewals_are_bounded_together_and_a_small_worker_keeps_its_own(host):
    """200 connections that renewed with 10,000 names each took 1.1 GB."""
    for number in range(20):
        supervisor = Member()
        ask(host, supervisor, hello(f"w{number}", role="worker"))
        ask(host, supervisor, c.Extend(consumers=names()))
    named = [worker.report.consumers for worker in host.state.workers.values()]
    assert sum(map(kinds.names_bytes, filter(None, named))) <= 100_000
    assert None in named
    supervisor = Member()
    ask(host, supervisor, hello("small", role="worker"))
    ask(host, supervisor, c.Extend(consumers=["small-1"]))
    assert host.state.workers["small"].report.consumers == ["small-1"]


def test_a_supervisor_keeps_no_names_of_what_its_consumers_take(host):
    ask(host, Member(), hello("w", *names(), role="worker"))
    told = host.state.workers["w"].hello
    assert told is not None
    assert told.tasks == []


def test_the_workers_for_http_are_described_without_the_names_that_they_serve(host):
    ask(host, Member(), hello("w", *names(10)))
    (view,) = host.workers() or []
    assert (view.name, view.tasks, view.queues) == ("w", [], [])
