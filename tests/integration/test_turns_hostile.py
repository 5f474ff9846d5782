"""The cost of stock clients and frames in one turn of the loop, and its report (threat T7)."""

from __future__ import annotations

import pickle
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest
from structlog.testing import capture_logs

from svc import wire
from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain.job import NewChunk, Terms
from svc.domain.limits import Limits
from svc.domain.observer import Observer
from svc.domain.roles import Role
from svc.server import loop
from svc.server.manager import Server, listen
from svc.server.pickle_machine import OPERATIONS_MAX
from svc.server.pickle_stack import CONTAINERS_MAX
from svc.server.plain_calls import CODING_BYTES_MAX
from svc.wire import HEADER, MESSAGE_BYTES_MAX, with_header
from tests.support.manager import RunningManager
from tests.support.stranger import Stranger
from tests.support.turns import KEYS, TURN_SECONDS, longest_turn, observed_manager


class Told(Observer):
    """The reports of turns and refusals."""

    def __init__(self) -> None:
        self.refusals: list[tuple[str, str]] = []
        self.turn = 0.0
        self.longest = (0.0, "", "")

    def refused(self, kind: str, role: str) -> None:
        self.refusals.append((kind, role))

    def longest_turn(self, processor_seconds: float, part: str, role: str) -> None:
        self.longest = processor_seconds, part, role

    def turned(self, seconds: float) -> None:
        self.turn = max(self.turn, seconds)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def manager(told: Told) -> Iterator[RunningManager]:
    with observed_manager(told) as running:
        yield running


def client(manager: RunningManager, role: Role) -> Stranger:
    stranger = Stranger(manager.endpoint)
    stranger.serve(KEYS[role])
    return stranger


def put(content: bytes) -> bytes:
    """Return a call of `tasks.put` with the opcodes *content* as its item."""
    return with_header(b"\x80\x02(X\x05\0\0\0tasksX\x03\0\0\0put" + content + b"\x85}t.")


FLOODS = {
    "empty lists": b"(" + b"]" * 1_000_000 + b"l",
    "lists of one": b"]" + b"]a" * 500_000,
    "references": b"(]q\0" + b"h\0" * 500_000 + b"t",
    "remembered": b"(" + b"N\x94" * 500_000 + b"t",
    "lines of text": b"(" + b"I1\n" * 330_000 + b"t",
    "entries of a dict": b"}" + b"NNs" * 330_000,
    "sets": b"(" + b"\x8f" * 1_000_000 + b"t",
    "floats": b"(" + (b"G" + b"\0" * 8) * 110_000 + b"l",
    "short strings": b"(" + b"\x8c\x05abcde" * 120_000 + b"l",
    "lone surrogates": b"X" + (990_000).to_bytes(4, "little") + b"\xed\xa0\x80" * 330_000,
    "texts of surrogates": b"(" + (b"\x8c\xff" + b"\xed\xbf\xbf" * 85) * 4_000 + b"l",
}


@pytest.mark.parametrize("name", FLOODS)
def test_others_are_served_while_a_large_call_is_scanned(manager, name, monkeypatch):
    """Without time the scan goes on a few thousand opcodes in each turn, and answers the same in the end."""
    monkeypatch.setattr(loop, "TURN_SECONDS", 0.0)
    deferred = threading.Event()
    defer = manager.server._turns.defer

    def noted(*work):
        deferred.set()
        defer(*work)

    monkeypatch.setattr(manager.server._turns, "defer", noted)
    with client(manager, Role.SUBMIT) as greedy, client(manager, Role.READ) as modest:
        greedy.send(put(FLOODS[name]))
        assert deferred.wait(30.0)
        modest.send(wire.encode_request(1, [c.Ping()]))
        assert modest.receive()
        assert pickle.loads(greedy.receive())[0] in ("#RETURN", "#ERROR")


@pytest.mark.parametrize("name", FLOODS)
def test_no_turn_is_long_for_a_call_of_a_mebibyte(frozen, name):
    """The processor time of the loop's thread in the longest turn; twice as much is for slow machines."""

    def story(manager: RunningManager) -> None:
        with client(manager, Role.SUBMIT) as greedy:
            for _ in range(2):
                greedy.send(put(FLOODS[name]))
                greedy.receive()
            manager.server.ask(lambda: None).result(30)

    assert longest_turn(story, 2 * TURN_SECONDS) < 2 * TURN_SECONDS


def test_a_hundred_thousand_floats_or_short_strings_are_accepted(manager):
    with client(manager, Role.SUBMIT) as honest:
        for item in ([place / 8 for place in range(100_000)], [f"{place:06}" for place in range(100_000)]):
            honest.send(with_header(pickle.dumps(("tasks", "put", (item,), {}))))
            assert pickle.loads(honest.receive()) == ("#RETURN", None)


@pytest.mark.parametrize(
    "content", [b"(" + b"N" * OPERATIONS_MAX + b"t", b"(" + b"]" * CONTAINERS_MAX + b"l"]
)
def test_more_than_the_bounds_is_refused(manager, content):
    with client(manager, Role.SUBMIT) as greedy:
        greedy.send(put(content))
        kind, error = pickle.loads(greedy.receive())
        assert (kind, type(error)) == ("#ERROR", ValueError)
        assert "send less at once" in str(error)


@pytest.mark.parametrize("text", ["x", "x\U0001f600", "\xe9"])
def test_a_call_that_is_larger_than_any_job_is_refused_unread(manager, told, text):
    """In memory wide text takes four times its bytes: 60 MiB of it took 600 MiB and a second."""
    with client(manager, Role.SUBMIT) as greedy:
        large = text + "x" * (Limits().max_job_bytes + CODING_BYTES_MAX)
        greedy.send(with_header(pickle.dumps(("tasks", "put", (large,), {}))))
        kind, error = pickle.loads(greedy.receive())
        assert (kind, type(error)) == ("#ERROR", ValueError)
        assert "over the limit" in str(error)
    assert told.refusals == [("too_large", "submit")]


@pytest.mark.parametrize("role", [Role.SUBMIT, Role.WORK, Role.READ])
def test_refusals_are_counted_by_kind_and_role_and_logged(manager, told, role):
    with capture_logs() as logs, client(manager, role) as stranger:
        stranger.send(wire.encode_request(1, [c.Drain()]))
        stranger.send(with_header(pickle.dumps(("tasks", "put", (None,), {}))))
        stranger.send(with_header(pickle.dumps(("tasks", "get", (Role.READ,), {}))))
        for _ in range(3):
            stranger.receive()
        stranger.send(HEADER.pack(MESSAGE_BYTES_MAX + 1))
        assert stranger.rest() == b""
    assert told.refusals == [
        (kind, role.value) for kind in ("forbidden", "forbidden", "not_plain", "too_large")
    ]
    refused = [each for each in logs if each["event"] == "call_refused"]
    assert [each["kind"] for each in refused] == ["forbidden", "forbidden", "not_plain"]


@pytest.mark.parametrize(
    ("role", "command", "kind"),
    [
        (
            Role.WORK,
            c.Hello(wire.PROTOCOL_VERSION, "client", "x", held=[c.Held(7, "o", 0, 5)]),
            "bad_request",
        ),
        (Role.SUBMIT, c.Submit("put1", [NewChunk(0, Terms("a:b"), [b"x"])]), "bad_request"),
        (Role.SUBMIT, c.Cancel(["o-00"]), "unknown_job"),
        (Role.WORK, c.Ack(7, 0, [b"x"], [0.1]), "lease_lost"),
        (Role.WORK, c.StoreResultPiece(7, 0, 5, 0, b"hello"), "lease_lost"),
    ],
    ids=["held by a client", "reserved origin", "odd id", "guessed token", "guessed token of a result"],
)
def test_a_command_that_may_be_sent_and_is_refused_is_counted_by_its_code_and_role(
    manager, told, role, command, kind
):
    with capture_logs() as logs, client(manager, role) as stranger:
        stranger.send(wire.encode_request(1, [command, c.Ping()]))
        stranger.receive()
    assert told.refusals == [(kind, role.value)]
    assert ("call_refused" in {each["event"] for each in logs}) == (kind == "bad_request")


@pytest.mark.parametrize(
    "item",
    [
        {"task": "a:b", "retries": -(2**63) - 1},
        {"task": "a:b", "priority": "x"},
        {"task": "a:b", "queue": "\ud800"},
    ],
)
def test_a_put_that_makes_no_sense_is_counted_by_role(manager, told, item):
    with client(manager, Role.SUBMIT) as stranger:
        stranger.send(with_header(pickle.dumps(("tasks", "put", (item,), {}))))
        assert pickle.loads(stranger.receive())[0] == "#ERROR"
    assert told.refusals == [("bad_request", "submit")]


def test_a_frame_that_cannot_be_read_is_counted_as_malformed(manager, told):
    with client(manager, Role.READ) as stranger:
        message = wire.encode_request(1, [c.Ping()])
        stranger.send(message.replace(b"ping", b"pong"))
        assert stranger.receive()
    assert told.refusals == [("malformed", "read")]


def test_a_peer_without_a_place_is_counted(manager, told):
    with ExitStack() as stack:
        for _ in range(7):  # of ten, with four other keys that have one each: one more than it may have
            stack.enter_context(client(manager, Role.READ))
        assert told.refusals == [("no_place", "read")]


def test_the_longest_turn_is_told_with_what_it_was_for(manager, told):
    with capture_logs() as logs:
        manager.server.ask(lambda: threading.Event().wait(0.2)).result(30)
        manager.until(lambda: told.turn >= 0.2)
    long = max((each for each in logs if each["event"].endswith("_turn")), key=lambda each: each["turn_s"])
    assert long["turn_s"] >= 0.2
    assert long["processor_s"] < 0.2


def stay(seconds: float) -> None:
    """Use *seconds* of the processor, and of a clock that is a little slower at times."""
    end, last = time.thread_time() + seconds, time.perf_counter() + seconds
    while time.thread_time() < end or time.perf_counter() < last:
        pass


def test_a_turn_that_is_longer_than_all_is_told_though_another_long_one_was_told_just_now(manager, told):
    with capture_logs() as logs:
        for seconds in (0.1, 0.2, 0.1, 0.4):
            manager.server.ask(partial(stay, seconds)).result(30)
            manager.until(lambda longest=seconds: told.longest[0] >= longest)
    told_s = [each["processor_s"] for each in logs if each["event"] == "longest_turn"]
    assert [int(seconds * 10) for seconds in told_s if seconds >= 0.1] == [1, 2, 4]


def test_the_first_turn_is_counted_by_the_processor_time_of_the_thread_that_serves_it(told):
    stay(0.05)  # so that the clock of this thread is ahead of the other's
    host = QueueHost(MemoryJournal(), observer=told)
    server = Server(host, listen("127.0.0.1", 0), secrets.token_bytes(32))
    asked = [server.ask(partial(stay, 0.1)), server.ask(server.stop)]
    thread = threading.Thread(target=server.serve_forever, name="manager")
    thread.start()
    thread.join(60)
    assert [future.result(0) for future in asked] == [None, None]
    assert told.longest[0] >= 0.1


def test_the_command_of_a_long_turn_is_named(frozen, manager, told, monkeypatch):
    def slow(*arguments: object) -> object:
        stay(0.1)
        return real(*arguments)

    real = manager.host._apply
    monkeypatch.setattr(manager.host, "_apply", slow)
    with client(manager, Role.READ) as reader:
        reader.send(wire.encode_request(1, [c.Stats()]))
        reader.receive()
    manager.until(lambda: told.longest[0] >= 0.1)
    assert told.longest[1:] == ("stats", "read")
