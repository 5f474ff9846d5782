"""The state after a recovery in place: its tokens, its puts, its holders, and nothing of the old one."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from multiprocessing import connection as stdlib

import pytest

from svc.broker.journal import Journal
from svc.broker.manager import ManagerBroker
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.events import AnyEvent, Submitted
from svc.domain.limits import incarnation_of
from svc.wire import PROTOCOL_VERSION
from tests.support import broken_manager
from tests.support.asking import ack_of, chunk, lease, lease_one
from tests.support.broken_manager import FAULTS, GRANTS, TICKS
from tests.support.manager import RunningManager
from tests.support.recovering import Told, ask, breakable, send_once, submit, trip, unfinished

#: Puts of a stock client, of each kind: object, method and arguments.
PUTS: list[tuple[str, str, tuple[object, ...]]] = [
    ("tasks", "put", ("an item",)),
    ("tasks", "put", (("m:f", (1,)),)),
    ("tasks", "put", ({"task": "m:f", "priority": 3, "delay": 5},)),
    ("tasks", "put_nowait", (7,)),
    ("results", "put", (["an item"],)),
    ("jobs", "submit", ("m:f", 1)),
]


@pytest.fixture(autouse=True)
def _faults(monkeypatch: pytest.MonkeyPatch) -> None:
    broken_manager.replaced(monkeypatch)


def have_break(manager: RunningManager, told: Told, task: str) -> None:
    """Break the state, and wait until it is recovered."""
    faults = len(told.places)
    if task == TICKS:  # If upkeep failed in the same turn, a client's second try would have it fail again.
        send_once(manager, submit(task, faults, origin="b"))
    else:
        trip(manager, task, faults)
    manager.until(lambda: len(told.places) > faults)
    ask(manager, c.Ping())


class Holder:
    """A consumer, and the leases that the hello of its next connection names."""

    def __init__(self, manager: RunningManager, name: str, *counts: int) -> None:
        self.held: list[c.Held] = []
        self.broker = ManagerBroker(manager.endpoint, manager.authkey, hello=lambda: self._hello(name))
        self.deliveries = [delivery for count in counts for delivery in lease(self.broker, count)]
        assert [len(each.bodies) for each in self.deliveries] == [*counts]
        self.held += [c.Held(each.token, "o", each.first, len(each.bodies)) for each in self.deliveries]

    def _hello(self, name: str) -> c.Hello:
        return c.Hello(PROTOCOL_VERSION, "consumer", name, "w", tasks=["m:f"], held=list(self.held))

    def end(self) -> list[list[r.AnyReply]]:
        """Report each lease twice; return the replies, a list for each lease."""
        return [self.broker.call([ack_of(each), ack_of(each)]) for each in self.deliveries]


@pytest.mark.parametrize("task", FAULTS)
def test_no_token_is_given_again_and_each_begins_with_its_incarnation(journal, tmp_path, task):
    told, given = Told(), list[int]()
    first = journal.incarnation
    with breakable(journal, tmp_path / "faults", told) as manager:
        for life in range(3):
            if life:
                have_break(manager, told, task)
            # Those of before the recovery wait for the worker that may hold them.
            ask(manager, *(submit("m:f", number, origin=f"o{life}") for number in range(5)))
            consumer = manager.consumer(f"w-{life}")
            tokens = [lease_one(consumer).token for _ in range(3)]
            consumer._discard()
            assert {incarnation_of(token) for token in tokens} == {first + life}
            given += tokens

    assert len(given) == len(set(given)) == 9
    assert given == sorted(given)


def called(manager: RunningManager, calls: list[tuple[str, str, tuple[object, ...]]]) -> list[str]:
    """Call as a stock client does; return the kinds of the answers."""
    with stdlib.Client(manager.endpoint, authkey=manager.authkey) as connection:
        connection.send((None, "accept_connection", ("c",), {}))
        connection.recv()
        kinds = []
        for typeid, method, args in calls:
            connection.send((typeid, method, args, {}))
            kinds.append(connection.recv()[0])
    return kinds


def rows_of_puts(manager: RunningManager, journal: Journal) -> list[tuple[str, int]]:
    """Return the origin and the number of each job in the journal that a stock client put there."""
    rows = manager.server.ask(lambda: [event for _, event in journal.replay()]).result(60)
    submitted = [event for event in rows if isinstance(event, Submitted) and event.origin.startswith("put")]
    return [(each.origin, each.first + place) for each in submitted for place in range(len(each.bodies))]


@pytest.mark.parametrize("task", FAULTS)
def test_puts_of_each_kind_are_numbered_under_the_new_incarnation(journal, tmp_path, task):
    told = Told()
    first = journal.incarnation
    with breakable(journal, tmp_path / "faults", told) as manager:
        for life in range(3):
            if life:
                have_break(manager, told, task)
            assert called(manager, PUTS) == ["#RETURN"] * len(PUTS)
        rows = rows_of_puts(manager, journal)

    assert len(rows) == len(set(rows))
    per_life = [sum(origin == f"put{first + life}" for origin, _ in rows) for life in range(3)]
    assert per_life == [len(PUTS)] * 3


@pytest.mark.parametrize("task", FAULTS)
def test_each_consumer_comes_back_with_all_its_leases_and_ends_each_job_once(journal, tmp_path, task):
    told = Told()
    with breakable(journal, tmp_path / "faults", told) as manager:
        ask(manager, c.Submit("o", [chunk(0, 60)]))
        holders = [
            Holder(manager, f"w-{n}", *counts) for n, counts in enumerate([(1,), (2, 1), (3,), (1, 1)])
        ]

        have_break(manager, told, task)

        for holder in holders:
            assert holder.end() == [[r.Done(1), r.Done(1)]] * len(holder.deliveries)
            assert (holder.broker.welcome.lost, holder.broker.reconnects) == ([], 1)
            holder.broker._discard()
        (page,) = ask(manager, c.Feed("o"))
        assert isinstance(page, r.Outcomes)
        assert sorted(outcome.id for outcome in page.outcomes) == sorted(f"o-{number}" for number in range(9))
        assert 51 <= unfinished(manager) <= 51 + (task in (TICKS, GRANTS))


@pytest.mark.parametrize("task", FAULTS)
def test_a_lease_that_its_consumer_does_not_name_is_given_to_another(journal, tmp_path, task):
    told = Told()
    with breakable(journal, tmp_path / "faults", told) as manager:
        ask(manager, c.Submit("o", [chunk(0, 9)]))
        holder = Holder(manager, "w-0", 1, 1, 1)
        dropped = holder.held.pop()

        have_break(manager, told, task)

        assert holder.end()[:2] == [[r.Done(1), r.Done(1)]] * 2
        supervisor = manager.broker(lambda: c.Hello(PROTOCOL_VERSION, "worker", "w", "w"))
        supervisor.connect()
        supervisor.close()  # which says that nothing else is held
        other = manager.consumer("w-1")
        (again,) = lease(other, wait=timedelta(seconds=30))
        assert (again.first, again.token > dropped.token) == (dropped.first, True)
        for broker in (holder.broker, other):
            broker._discard()


@pytest.mark.parametrize("task", FAULTS)
def test_nothing_holds_the_old_state_when_the_journal_is_read(journal, tmp_path, monkeypatch, task):
    told, alive = Told(), list[bool]()
    with breakable(journal, tmp_path / "faults", told) as manager, ThreadPoolExecutor(1) as pool:
        ask(manager, c.Submit("o", [chunk(0, 12)]))
        holder, asking = Holder(manager, "w-0", 1, 1), manager.broker()
        waited = pool.submit(asking.call, [c.Await(["o-11"], wait=60.0)], wait=60.0)
        manager.until(lambda: bool(manager.host._waiters.all))
        old = manager.server.ask(lambda: weakref.ref(manager.host.state.ledger)).result(60)
        replay = journal.replay

        def replay_noted() -> Iterator[tuple[int, AnyEvent]]:
            alive.append(old() is not None)
            yield from replay()

        monkeypatch.setattr(journal, "replay", replay_noted)

        have_break(manager, told, task)

        ask(manager, c.Cancel(["o-11"]))
        (outcomes,) = waited.result(60)
        assert isinstance(outcomes, r.Outcomes)
        assert [outcome.id for outcome in outcomes.outcomes] == ["o-11"]
        assert alive == [False]
        for broker in (holder.broker, asking):
            broker._discard()
