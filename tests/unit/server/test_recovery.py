"""A manager whose state breaks recovers it in place, over real sockets and on every journal."""

from __future__ import annotations

from multiprocessing import connection as stdlib

import pytest

from svc.broker.broken import BLOCKED_MAX, Blocklist, Place
from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.apply import HANDLERS
from svc.domain.claims import ClaimedJob
from svc.domain.events import AnyEvent
from svc.domain.members import Member
from svc.errors import JournalError, ManagerUnreachable
from svc.server.plain import SharedObjects
from svc.wire import PROTOCOL_VERSION, decode_request
from tests.support import broken_manager
from tests.support.broken_manager import CORRUPTS, FAULTS, GRANTS, RAISES, TICKS, WRITES
from tests.support.manager import RunningManager
from tests.support.recovering import (
    PLACES,
    SECRET,
    Told,
    ask,
    breakable,
    ready,
    refused,
    submit,
    trip,
    unfinished,
)


@pytest.fixture(autouse=True)
def _faults(monkeypatch: pytest.MonkeyPatch) -> None:
    broken_manager.replaced(monkeypatch)


def put(manager: RunningManager, *items: object) -> list[tuple[str, object]]:
    """Put *items* as a stock client does; return its answers."""
    with stdlib.Client(manager.endpoint, authkey=manager.authkey) as connection:
        connection.send((None, "accept_connection", ("c",), {}))
        connection.recv()
        answers = []
        for item in items:
            connection.send(("tasks", "put", (item,), {}))
            answers.append(connection.recv())
    return answers


@pytest.mark.parametrize("task", FAULTS)
def test_a_fault_of_any_kind_is_recovered_from_and_nothing_accepted_is_lost(journal, tmp_path, task):
    told = Told()
    with breakable(journal, tmp_path / "faults", told) as manager:
        ask(manager, *(submit("m:f", number) for number in range(50)))
        incarnation = journal.incarnation

        trip(manager, task)

        manager.until(lambda: bool(told.places))
        # The request that armed the later fault was accepted itself, and its consumer may take a job.
        assert unfinished(manager) == 50 + (task in (TICKS, GRANTS))
        assert journal.incarnation == incarnation + 1
        assert told.places == [PLACES[task]]
        assert len(list((tmp_path / "faults").iterdir())) == 1


@pytest.mark.parametrize("task", [RAISES, CORRUPTS, WRITES])
def test_the_request_that_broke_it_is_refused_from_then_on_and_others_are_not(journal, tmp_path, task):
    told = Told()
    with breakable(journal, tmp_path / "faults", told) as manager:
        refusal = refused(trip(manager, task))
        (report,) = (tmp_path / "faults").iterdir()
        assert (refusal.code, report.name in refusal.message) == ("bad_request", True)

        for _ in range(5):
            replies = ask(manager, submit("m:f", 1), submit(task, 0, SECRET.encode(), "b"))
            assert replies[0] == r.Accepted([])
            assert refused(replies).code == "bad_request"
        assert told.places == [PLACES[task]]
        assert ready(manager) == 1


@pytest.mark.parametrize(
    "item",
    [
        (RAISES, (SECRET,)),
        {"task": RAISES, "args": [1, 2], "priority": 3},
        {"task": RAISES, "kwargs": {"a": SECRET}, "key": "nightly", "delay": 5},
    ],
    ids=["call", "mapping", "with a key and a delay"],
)
def test_so_is_a_put_of_a_stock_client_whatever_number_it_would_get(journal, tmp_path, item):
    told = Told()
    with breakable(journal, tmp_path / "faults", told) as manager:
        with pytest.raises(EOFError):
            put(manager, item)
        answers = put(manager, (RAISES.replace("raises", "fine"), (SECRET,)), 1, item, item)

        assert [kind for kind, _ in answers] == ["#RETURN", "#RETURN", "#ERROR", "#ERROR"]
        assert all("bug report" in str(error) for _, error in answers[2:])
        assert told.places == [Place.REQUEST]


def test_puts_are_numbered_anew_so_that_none_takes_the_number_of_one_before_the_fault(journal, tmp_path):
    with breakable(journal, tmp_path / "faults") as manager:
        assert put(manager, "before")[0] == ("#RETURN", None)
        trip(manager, RAISES)
        assert put(manager, "after", "after that")[1] == ("#RETURN", None)
        assert ready(manager) == 3


def test_a_consumer_keeps_the_job_it_runs_and_its_result_is_recorded_once(journal, tmp_path):
    with breakable(journal, tmp_path / "faults") as manager:
        ask(manager, *(submit("m:f", number) for number in range(3)))
        held: list[c.Held] = []
        consumer = manager.broker(
            lambda: c.Hello(PROTOCOL_VERSION, "consumer", "w-1", "w", tasks=["m:f"], held=list(held))
        )
        (grant,) = consumer.call([c.Lease()])
        assert isinstance(grant, r.Grant)
        token, first = grant.deliveries[0].token, grant.deliveries[0].first
        held.append(c.Held(token, "o", first, 1))

        trip(manager, RAISES)

        acks = consumer.call([c.Ack(token, first, [b"done"], [0.1]), c.Ack(token, first, [b"done"], [0.1])])
        assert acks == [r.Done(1), r.Done(1)]
        assert consumer.welcome.lost == []
        (page,) = consumer.call([c.Feed("o")])
        assert isinstance(page, r.Outcomes)
        assert [outcome.result for outcome in page.outcomes] == [b"done"]
        consumer._discard()
        assert ready(manager) == 2


def test_a_request_that_waits_and_breaks_when_it_is_asked_again_is_blamed(journal, tmp_path, monkeypatch):
    asked: list[c.Await] = []

    def await_outcomes(state, command, member, now):
        asked.append(command)
        return None if len(asked) == 1 else 1 / 0

    monkeypatch.setitem(HANDLERS, c.Await, await_outcomes)
    told = Told()
    with breakable(journal, tmp_path / "faults", told) as manager:
        broker = manager.broker()
        broker.call([submit("m:f")])
        refusal = refused(broker.call([c.Await(["o-0"], wait=0.2)], wait=0.2))

        assert "bug report" in refusal.message
        assert told.places == [Place.WAITING]
        # However long it would wait.
        assert refused(broker.call([c.Await(["o-0"])])) == refusal
        broker._discard()


@pytest.mark.parametrize("command", [c.Ping(), c.Stats(), c.Lease(), c.Extend(), c.Leave(), c.Members()])
def test_a_command_without_content_is_never_remembered(command):
    blocklist = Blocklist()

    assert blocklist.add(command, "report") is None
    assert not blocklist
    assert command.identity() is None


@pytest.mark.parametrize(
    ("broke", "same", "others"),
    [
        (
            c.Extend(claims=[ClaimedJob("w/1", 7, "o", 3)]),
            c.Extend(busy=5, round_trip=0.1, told=True, wait=9.0, claims=[ClaimedJob("w/1", 7, "o", 3)]),
            [c.Extend(), c.Extend(busy=5, wait=9.0), c.Extend(claims=[ClaimedJob("w/1", 8, "o", 3)])],
        ),
        (c.Members("x", paged=True), c.Members("x"), [c.Members(), c.Members(paged=True), c.Members("w")]),
        (c.Await(["o-0"], wait=2.0), c.Await(["o-0"], wait=9.0), [c.Await(["o-1"], wait=2.0)]),
    ],
)
def test_a_command_is_remembered_by_what_tells_it_from_the_harmless_ones_of_its_kind(broke, same, others):
    blocklist = Blocklist()

    assert blocklist.add(broke, "report") is not None
    assert blocklist.refusal(same, inside=False) is not None
    assert [blocklist.refusal(other, inside=False) for other in others] == [None] * len(others)


def test_requests_that_are_remembered_are_bounded_and_the_oldest_is_forgotten():
    blocklist = Blocklist()
    for number in range(BLOCKED_MAX + 1):
        blocklist.add(c.Get([f"o-{number}"]), "")

    assert len(blocklist) == BLOCKED_MAX
    assert blocklist.refusal(c.Get(["o-0"]), inside=False) is None
    assert blocklist.refusal(c.Get(["o-1"]), inside=False) is not None
    assert blocklist.refusal(c.Cancel(["o-1"]), inside=False) is None


def test_what_cannot_be_encoded_is_remembered_all_the_same():
    blocklist = Blocklist()
    odd = submit("m:f", 2**70, origin="\ud800")
    blocklist.add(odd, "", inside=True)

    assert blocklist.refusal(submit("m:f", 2**71, origin="\ud801"), inside=True) is not None
    assert blocklist.refusal(odd, inside=False) is None


@pytest.mark.parametrize("wait", [0.0, 0.1])
def test_requests_that_only_read_and_fail_are_refused_once_a_recovery_was_no_help(
    journal, tmp_path, monkeypatch, wait
):
    def fail(state, command, member, now):
        return None if command.wait else {}[command.ids[0]]

    monkeypatch.setitem(HANDLERS, c.Await, fail)
    told = Told()
    with breakable(journal, tmp_path / "faults", told) as manager:
        ask(manager, *(submit("m:f", number) for number in range(5)))
        refusals = [refused(ask(manager, c.Await([f"o-{number}"], wait))) for number in range(5)]

        assert {refusal.code for refusal in refusals} == {"bad_request"}
        assert told.places[1:] == [Place.READING] * 4
        assert journal.incarnation == 2


# --- faults that break no state ---------------------------------------------------------------------


def test_a_fault_in_how_a_message_is_read_ends_its_connection_and_nothing_else(
    journal, tmp_path, monkeypatch
):
    def decode(frame: memoryview) -> tuple[int, list[c.AnyCommand]]:
        if b"odd" in bytes(frame):
            raise RecursionError
        return decode_request(frame)

    monkeypatch.setattr("svc.server.protocol.decode_request", decode)
    told = Told()
    with breakable(journal, tmp_path / "faults", told) as manager:
        other = manager.broker()
        other.connect()
        with pytest.raises(ManagerUnreachable):
            ask(manager, c.Get(["odd-0"]), timeout=0.3)

        assert other.call([c.Ping()]) == [r.Done()]
        assert (other.reconnects, told.places) == (0, [])
        other._discard()


def test_an_answer_that_cannot_be_encoded_is_a_refusal(journal, tmp_path, monkeypatch):
    monkeypatch.setitem(HANDLERS, c.Get, lambda state, command, member, now: r.Text("\ud800"))
    told = Told()
    with breakable(journal, tmp_path / "faults", told) as manager:
        replies = ask(manager, submit("m:f"), c.Get(["o-0"]))

        assert all(isinstance(reply, r.Refused) and "encoded" in reply.message for reply in replies)
        assert told.places == []


def test_a_damaged_row_that_a_stock_client_meets_ends_the_manager_as_a_fault_of_the_disk(tmp_path):
    """A stock client is told of its own mistakes; this is none."""
    host = QueueHost(MemoryJournal())
    face = SharedObjects(host)
    answers: list[object] = []

    def read(sequence: int) -> AnyEvent:
        raise JournalError("row 1 cannot be read")

    face.carry_out(face.method("tasks", "put"), Member("plain"), ("x",), {}, answers.append)
    host.turn()
    for chunk in host.state.ledger.chunks.values():
        chunk.drop_bodies()
    host.state.read = read
    with pytest.raises(JournalError, match="cannot be read"):
        face.carry_out(face.method("tasks", "get"), Member("plain"), (), {}, answers.append)
    assert answers == [None]
