"""The manager's event loop over real sockets: strangers, limits, and the first calls of a stock client."""

from __future__ import annotations

import pickle
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from multiprocessing import connection as stdlib
from multiprocessing.managers import BaseManager, RemoteError

import pytest

from svc import wire, wire_handshake
from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.broker.manager import ManagerBroker
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.events import AnyEvent
from svc.domain.job import NewChunk, Terms
from svc.domain.members import Member
from svc.domain.observer import Observer
from svc.errors import AuthenticationFailed, ManagerUnreachable
from svc.server import loop
from svc.server.connection_limits import Bounds
from svc.server.manager import Server, listen
from svc.wire import HEADER, encode_request
from tests.support.manager import RunningManager, running_manager


@pytest.fixture
def manager():
    with running_manager() as running:
        yield running


def stock(manager: RunningManager) -> stdlib.Connection:
    """Return a connection on which the handshake is done, as the stdlib makes it."""
    return stdlib.Client(manager.endpoint, authkey=manager.authkey)


def ask(connection: stdlib.Connection, *request: object) -> tuple[str, object]:
    connection.send(request)
    kind, value = connection.recv()
    return kind, value


def socket_of(broker: ManagerBroker) -> socket.socket:
    assert broker._stream is not None
    channel = broker._stream._channel
    assert isinstance(channel, socket.socket)
    return channel


def read_frame(sock: socket.socket) -> tuple[int, list[r.AnyReply]]:
    (length,) = HEADER.unpack(sock.recv(4, socket.MSG_WAITALL))
    frame = wire.response_frame(sock.recv(length, socket.MSG_WAITALL))
    assert frame is not None
    return wire.decode_response(frame)


def test_a_wrong_key_is_refused_and_told_nothing(manager):
    with pytest.raises(AuthenticationFailed):
        ManagerBroker(manager.endpoint, b"wrong").connect()
    with socket.create_connection(manager.endpoint) as stranger:
        stranger.recv(1000)
        stranger.sendall(wire.with_header(b"let me in"))
        said = stranger.recv(1000)

    assert said == wire.with_header(wire_handshake.FAILURE)


def test_half_open_connections_are_bounded_and_honest_ones_still_served():
    with running_manager(bounds=Bounds(half_open=4)) as manager:
        strangers = [socket.create_connection(manager.endpoint) for _ in range(20)]
        broker = manager.broker()

        assert broker.connect().version == wire.PROTOCOL_VERSION
        assert manager.server.ask(lambda: len(manager.server._connections.limits.half_open)).result(30) <= 4
        broker._discard()
        for stranger in strangers:
            stranger.close()


def test_a_handshake_that_takes_too_long_is_cut_off():
    with (
        running_manager(bounds=Bounds(handshake_seconds=0.1)) as manager,
        socket.create_connection(manager.endpoint) as stranger,
    ):
        stranger.settimeout(30)
        stranger.recv(1000)

        assert stranger.recv(1) == b""


def test_connections_are_bounded():
    host = QueueHost(MemoryJournal())
    server = Server(host, listen("127.0.0.1", 0), b"key", bounds=Bounds(connections=2))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        first, second = (ManagerBroker(server.endpoint, b"key") for _ in range(2))
        first.connect()
        second.connect()
        with pytest.raises(ManagerUnreachable):
            ManagerBroker(server.endpoint, b"key", timeout=0.3).connect()
        first._discard()
        second._discard()
    finally:
        server.stop()
        thread.join(30)


def test_the_first_request_is_to_the_server_itself(manager):
    with stock(manager) as connection:
        assert ask(connection, None, "dummy") == ("#TRACEBACK", "a request is (ident, method, args, kwds)")
    with stock(manager) as connection:
        kind, made = ask(connection, None, "create", ("tasks",), {})

    assert isinstance(made, tuple)
    assert (kind, made[0]) == ("#RETURN", "tasks")
    assert "put" in made[1]


@pytest.mark.parametrize(
    "method", ["shutdown", "debug_info", "number_of_objects", "serve_forever", "__init__"]
)
def test_what_the_stdlib_would_do_for_anyone_is_not_served(manager, method):
    with stock(manager) as connection:
        kind, said = ask(connection, None, method, (), {})

    assert kind == "#TRACEBACK"
    assert method in str(said)


def test_an_object_that_does_not_exist_is_told_to_the_stock_client(manager):
    class Manager(BaseManager):
        pass

    Manager.register("secrets")
    remote = Manager(manager.endpoint, authkey=manager.authkey)
    remote.connect()

    with pytest.raises(RemoteError, match="secrets"):
        remote.secrets()  # type: ignore[attr-defined]


def test_pipelined_frames_are_answered_in_order(manager):
    broker = manager.broker()
    broker.connect()
    sock = socket_of(broker)
    sock.sendall(b"".join(encode_request(number, [c.Ping()]) for number in range(100, 150)))

    assert [read_frame(sock)[0] for _ in range(50)] == list(range(100, 150))
    broker._discard()


def test_a_frame_that_cannot_be_read_is_refused_and_the_connection_goes_on(manager):
    broker = manager.broker()
    broker.connect()
    sock = socket_of(broker)
    good = encode_request(5, [c.Ping()])
    sock.sendall(good.replace(b"\xa4ping", b"\xa4pong") + good)

    request, (refused,) = read_frame(sock)
    assert request == 0
    assert isinstance(refused, r.Refused)
    assert read_frame(sock) == (5, [r.Done()])
    broker._discard()


def test_a_message_over_the_limit_costs_only_its_own_connection(manager):
    other = manager.broker()
    other.connect()
    broker = manager.broker()
    broker.connect()
    sock = socket_of(broker)
    sock.sendall(struct.pack("!i", wire.MESSAGE_BYTES_MAX + 1))

    assert sock.recv(1) == b""
    assert other.call([c.Ping()]) == [r.Done()]
    broker._discard()
    other._discard()


def test_a_pickle_that_names_a_global_is_refused(manager):
    with stock(manager) as connection:
        connection.send((None, "accept_connection", ("x",), {}))
        connection.recv()
        connection.send_bytes(pickle.dumps(("tasks", "put", (print,), {})))
        kind, error = connection.recv()

    assert kind == "#ERROR"
    assert isinstance(error, ValueError)


def test_what_a_function_raises_in_the_loop_reaches_who_asked(manager):
    def fail() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        manager.server.ask(fail).result(30)


def test_stop_may_be_called_again_when_all_is_over():
    with running_manager() as manager:
        server = manager.server
    server.stop()


def test_the_loop_sleeps_when_nothing_happens(manager):
    turns: list[int] = []
    real: Callable[[], list[str]] = manager.host.turn

    def turn() -> list[str]:
        turns.append(1)
        return real()

    manager.host.turn = turn
    idle = threading.Event()
    idle.wait(0.5)

    assert len(turns) < 20


def test_the_length_of_every_turn_is_told_with_the_work_done_in_it_and_without_the_wait_before_it():
    class Turns(Observer):
        def __init__(self):
            self.seconds = []

        def turned(self, seconds):
            self.seconds.append(seconds)

    turns = Turns()
    with running_manager(observer=turns) as manager:
        manager.server.ask(lambda: None).result(30)
        before = len(turns.seconds)
        # One turn works for 30 ms; the loop sleeps before it, for as long as nobody asks.
        manager.server.ask(lambda: threading.Event().wait(0.03)).result(30)
        manager.until(lambda: len(turns.seconds) > before + 1)
        assert max(turns.seconds) >= 0.03


class SyncedJournal(MemoryJournal):
    """Counts the commits of a journal that says it syncs."""

    durability = "fsync"
    commits = 0

    def append(self, records: Sequence[tuple[int, AnyEvent]], forget: Sequence[int] = ()) -> None:
        self.commits += 1
        super().append(records, forget)


def test_requests_that_come_while_others_are_served_share_their_commit(monkeypatch):
    for bound in ("GATHER_SECONDS", "TURN_SECONDS"):  # A busy machine may hold a turn for longer.
        monkeypatch.setattr(loop, bound, 10.0)
    journal = SyncedJournal()
    with running_manager(journal) as manager, stock(manager) as other:
        ask(other, None, "accept_connection", ("c",), {})
        before = manager.server.ask(lambda: journal.commits).result(30)
        submit = c.Submit("o", [NewChunk(0, Terms("m:f"), [b"x"])])

        def meanwhile() -> None:
            """Be served, in the loop's own thread, while a call arrives from another client."""
            manager.host.call([submit], Member(), lambda replies: None)
            other.send(("tasks", "put", (1,), {}))

        manager.server.ask(meanwhile).result(30)
        assert other.recv() == ("#RETURN", None)
        assert manager.server.ask(lambda: journal.commits).result(30) == before + 1
