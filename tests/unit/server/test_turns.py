"""No request takes the loop for itself: long ones go on in later turns, and nobody is passed over."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from svc import wire
from svc.broker import host as broker_host
from svc.broker.host import UNTIMED_COMMANDS, QueueHost
from svc.broker.journal import MemoryJournal
from svc.broker.manager import ManagerBroker
from svc.broker.requests import Request
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import NewChunk
from svc.domain.lifecycle import JobState
from svc.domain.limits import Limits
from svc.domain.members import Member
from svc.domain.observer import Observer
from svc.server import loop as subject
from svc.server.loop import Turns
from svc.wire import PROTOCOL_VERSION
from tests.support.asking import ack_of, chunk, lease_one
from tests.support.clock import FakeClock, LeapingClock
from tests.support.manager import RunningManager, running_manager
from tests.support.stranger import Stranger

COMMANDS = 10 * UNTIMED_COMMANDS + 1


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> QueueHost:
    """The commands that are applied without a look at the time take none."""
    monkeypatch.setattr(broker_host, "UNTIMED_SECONDS", math.inf)
    return QueueHost(MemoryJournal(), clock=FakeClock())


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each share of a turn is used up as soon as it begins; the first connections take no time."""
    monkeypatch.setattr(subject, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(subject, "_UNTIMED_SECONDS", math.inf)


@pytest.fixture
def served(no_time: None) -> Iterator[RunningManager]:
    with running_manager() as manager:
        yield manager


def client(manager: RunningManager) -> Stranger:
    stranger = Stranger(manager.endpoint)
    stranger.serve(manager.authkey)
    return stranger


def answer(stranger: Stranger) -> tuple[int, list[r.AnyReply]]:
    frame = wire.response_frame(stranger.receive())
    assert frame is not None
    return wire.decode_response(frame)


def submits(origin: str) -> list[c.AnyCommand]:
    return [c.Submit(origin, [chunk(number)]) for number in range(COMMANDS)]


def test_a_request_without_time_goes_on_a_few_commands_at_a_time(host):
    told: list[list[r.Reply]] = []
    request = Request(submits("o"), Member(), told.append)
    steps = 0
    while not host.proceed(request, until=0.0):
        steps += 1
        assert len(request.replies) == steps * UNTIMED_COMMANDS
        host.turn()
        assert told == []
    host.turn()

    assert steps == COMMANDS // UNTIMED_COMMANDS
    assert told == [[r.Accepted([])] * COMMANDS]


def test_no_reply_of_a_request_in_parts_goes_out_before_the_turn_of_its_last_command_is_committed():
    journal = MemoryJournal()
    host, told = QueueHost(journal, clock=FakeClock()), []
    request = Request(submits("o"), Member(), lambda replies: told.append(len(list(journal.replay()))))
    while not host.proceed(request, until=0.0):
        host.turn()
    assert told == []
    host.turn()

    assert told == [len(list(journal.replay()))]


def test_a_command_that_takes_long_is_the_last_one_of_its_turn(host, monkeypatch):
    monkeypatch.setattr(broker_host, "UNTIMED_SECONDS", 0.0)
    request = Request(submits("o"), Member(), lambda replies: None)
    for applied in range(1, COMMANDS):
        assert not host.proceed(request, until=0.0)
        assert len(request.replies) == applied
    assert host.proceed(request, until=0.0)


def test_connections_that_take_long_are_served_one_in_a_turn_without_time(no_time, monkeypatch):
    monkeypatch.setattr(subject, "_UNTIMED_SECONDS", 0.0)
    turns, served = Turns(), []
    for _ in range(3):
        turns.begin()
        turns.serve_all([(fd, 1) for fd in range(3)], lambda fd, mask: served.append(fd))

    assert served == [0, 1, 2]


@pytest.mark.parametrize("others", [1, 10, 128])
def test_who_asks_for_little_is_served_before_those_whose_requests_take_long(others, monkeypatch):
    """The last one of all that are ready is served in each turn, but while the others are new."""
    monkeypatch.setattr(subject, "_UNTIMED_SECONDS", 0.0)
    now, heard = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def serve(fd: int, mask: int) -> None:
        heard.append(fd)
        now[0] += 0.05 if fd < others else 0.0

    turns, events = Turns(), [(fd, 1) for fd in range(others + 1)]
    for _ in range(2 * others):
        turns.begin()
        turns.serve_all(events, serve)
    for _ in range(2 * others):
        turns.begin()
        heard.clear()
        turns.serve_all(events, serve)
        assert heard[0] == others
        assert len(heard) == 2  # and one of the others


def test_those_whose_requests_take_long_are_passed_over_a_few_times_only(no_time):
    turns, served = Turns(), []
    turns._slow.add(99)
    events = [*((fd, 1) for fd in range(20)), (99, 1)]
    for _ in range(2 * subject.PASSED_OVER_MAX + 1):
        turns.begin()
        turns.serve_all(events, lambda fd, mask: served.append(fd))

    assert 99 in served


def test_a_request_of_usual_length_is_never_put_off(host):
    request = Request([c.Ping()] * UNTIMED_COMMANDS, Member(), lambda replies: None)
    assert host.proceed(request, until=0.0)


def test_what_a_long_request_waits_for_last_is_waited_for(host):
    told: list[list[r.Reply]] = []
    request = Request([*submits("o"), c.Await([f"o-{COMMANDS - 1}"], wait=5.0)], Member(), told.append)
    while not host.proceed(request, until=0.0):
        host.turn()
    host.turn()
    assert told == []
    host.clock.advance(6.0)
    host.turn()

    assert len(told[0]) == COMMANDS + 1


def test_requests_pipelined_behind_a_long_one_are_answered_after_it(served):
    with client(served) as stranger:
        pings: list[c.AnyCommand] = [c.Ping()] * COMMANDS
        frames = [submits("a"), pings[:1], submits("b"), pings, pings[:1]]
        for number, commands in enumerate(frames, 1):
            stranger.send(wire.encode_request(number, commands))
        answers = [answer(stranger) for _ in frames]

    assert [number for number, _ in answers] == [1, 2, 3, 4, 5]
    assert [len(replies) for _, replies in answers] == [len(commands) for commands in frames]
    assert (
        served.server.ask(lambda: served.host.state.ledger.counts_of("default")[JobState.READY]).result(30)
        == 2 * COMMANDS
    )


def put_off(manager: RunningManager, work: Callable[[float], bool]) -> None:
    """Give the first connection a request that goes on for as long as *work* says."""

    def defer() -> None:
        connection = next(iter(manager.server._connections.limits.connections.values()))
        manager.server._turns.defer(connection, work)
        manager.server._connections.watch(connection)

    manager.server.ask(defer).result(30)


def test_others_are_answered_while_a_long_request_goes_on_and_its_own_connection_is_not_read():
    done = threading.Event()
    with running_manager() as manager, client(manager) as greedy, client(manager) as modest:
        put_off(manager, lambda until: done.is_set())
        greedy.send(wire.encode_request(7, [c.Ping()]))
        for number in range(3):
            modest.send(wire.encode_request(number, [c.Ping()]))
            assert answer(modest) == (number, [r.Done()])
        greedy.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            greedy.socket.recv(1)
        greedy.socket.settimeout(20)
        done.set()
        assert answer(greedy)[0] == 7


def test_a_long_request_of_a_peer_that_has_gone_is_forgotten():
    with running_manager() as manager, client(manager) as greedy:
        put_off(manager, lambda until: False)
        assert manager.server._turns.unfinished
        greedy.socket.close()
        manager.until(lambda: not manager.server._turns.unfinished)


def test_several_long_requests_go_on_side_by_side(served):
    with ExitStack() as stack:
        clients = [stack.enter_context(client(served)) for _ in range(5)]
        for place, each in enumerate(clients):
            each.send(wire.encode_request(place, submits(f"o{place}")))
        assert [answer(each)[0] for each in clients] == list(range(5))


def test_a_long_request_is_finished_before_an_orderly_end():
    ends: list[float] = []

    def work(until: float) -> bool:
        """Be done only if there is no end of the time."""
        ends.append(until)
        return until == math.inf

    with ExitStack() as stack, running_manager() as manager:
        stack.enter_context(client(manager))  # it goes after the manager
        put_off(manager, work)
    assert ends[-1] == math.inf
    assert ends.count(math.inf) == 1


def test_many_connections_that_all_have_something_to_say_are_all_served(served):
    with ExitStack() as stack:
        clients = [stack.enter_context(client(served)) for _ in range(40)]
        for number in range(5):
            for each in clients:
                each.send(wire.encode_request(number, [c.Ping()]) * 3)
        for each in clients:
            assert [answer(each)[0] for _ in range(15)] == [n for n in range(5) for _ in range(3)]


def test_nobody_is_passed_over_for_longer_than_it_takes_to_serve_all(no_time):
    """Eight connections are served even without time, so that three turns are enough for twenty."""
    turns, served = Turns(), []
    events = [(fd, 1) for fd in range(20)]
    for _ in range(9):
        turns.begin()
        turns.serve_all(events, lambda fd, mask: served.append(fd))

    for start in range(0, len(served) - 24 + 1, 8):
        assert set(served[start : start + 24]) == set(range(20))


def supervised(manager: RunningManager, stack: ExitStack) -> tuple[ManagerBroker, ManagerBroker]:
    hello = c.Hello(PROTOCOL_VERSION, "worker", name="w")
    supervisor = stack.enter_context(manager.broker(lambda: hello))
    supervisor.connect()
    return supervisor, stack.enter_context(manager.consumer("w-1"))


@pytest.fixture
def stopped() -> LeapingClock:
    """A clock on which no time passes but that of a stall: a busy machine may take longer than a lease."""
    clock = LeapingClock()
    clock.stop()
    return clock


def stall(manager: RunningManager, clock: LeapingClock, seconds: float) -> None:
    """Keep the loop from listening for so long."""

    def hold() -> None:
        threading.Event().wait(seconds)
        clock.advance(seconds)

    manager.server.ask(hold).result(30)


@pytest.mark.parametrize(("lease", "seconds"), [(1.0, 1.5), (0.5, 2.0), (1.2, 1.3)])
def test_a_stall_longer_than_a_lease_ends_no_lease(stopped, lease, seconds):
    limits = Limits(lease_seconds=lease)
    with running_manager(limits=limits, clock=stopped) as manager, ExitStack() as stack:
        supervisor, consumer = supervised(manager, stack)
        supervisor.submit("o", [chunk()])
        delivery = lease_one(consumer)
        stall(manager, stopped, seconds)
        assert supervisor.call([c.Extend(busy=1)]) == [r.Done(1)]
        assert consumer.call([ack_of(delivery)]) == [r.Done(1)]


def test_a_stall_takes_nothing_of_the_time_to_come_back(stopped):
    """A consumer has half a second for that, once it and its supervisor are gone."""
    with running_manager(clock=stopped) as manager, ExitStack() as stack:
        supervisor, consumer = supervised(manager, stack)
        supervisor.submit("o", [NewChunk(0, chunk().terms, [b"x"])])
        delivery = lease_one(consumer)
        workers = manager.host.state.workers
        for each in (supervisor, consumer):
            each._discard()
        manager.until(lambda: not workers["w"].present)
        stall(manager, stopped, 1.2)
        held = [c.Held(delivery.token, delivery.origin, delivery.first, 1)]
        hello = c.Hello(PROTOCOL_VERSION, "consumer", name="w-1", worker="w", tasks=["m:f"], held=held)
        again = stack.enter_context(manager.broker(lambda: hello))
        assert again.connect().lost == []
        assert again.call([ack_of(delivery)]) == [r.Done(1)]


def test_a_lease_still_ends_if_nobody_renews_it_after_a_stall(stopped):
    class Expiries(Observer):
        count = 0

        def expired(self, terms, count):
            self.count += count

    expiries = Expiries()
    with (
        running_manager(limits=Limits(lease_seconds=0.5), observer=expiries, clock=stopped) as manager,
        ExitStack() as stack,
    ):
        supervisor, consumer = supervised(manager, stack)
        supervisor.submit("o", [chunk()])
        lease_one(consumer)
        stall(manager, stopped, 1.2)
        assert expiries.count == 0
        stopped.advance(1.0)
        manager.until(lambda: expiries.count == 1)
