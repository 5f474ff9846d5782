"""The connection to a manager, and its breaks; the verbs are in tests/contract."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.broker.manager import ManagerBroker
from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replies as r
from svc.errors import BadRequest, JournalError, ManagerUnreachable
from svc.server.manager import Server, listen
from svc.wire import PROTOCOL_VERSION, with_header
from tests.support.asking import NOW, ack_of, chunk, counts, lease_one, record, states, submit
from tests.support.journals import reopened
from tests.support.manager import running_manager


@pytest.fixture
def manager():
    with running_manager() as running:
        yield running


def break_connection(broker: ManagerBroker) -> None:
    assert broker._stream is not None
    channel = broker._stream._channel
    assert isinstance(channel, socket.socket)
    channel.shutdown(socket.SHUT_RDWR)


def test_a_broken_connection_is_made_again_and_the_same_request_sent_again(manager):
    broker = manager.broker()
    submit(broker, chunk(0))
    break_connection(broker)

    submit(broker, chunk(0))

    assert counts(broker).submitted == 1
    assert broker.reconnects == 1
    broker.close()


def test_each_new_connection_says_hello_anew(manager):
    said = []

    def hello() -> c.Hello:
        said.append(1)
        return c.Hello(PROTOCOL_VERSION, "consumer", "w-1", "w", tasks=["m:f"])

    broker = manager.broker(hello)
    broker.connect()
    break_connection(broker)
    broker.connect()

    assert len(said) == 2
    broker.close()


class Breaking(MemoryJournal):
    """A journal whose commits fail from some time on."""

    broken = False

    def append(self, records: Sequence[tuple[int, e.AnyEvent]], forget: Sequence[int] = ()) -> None:
        if self.broken:
            raise JournalError("broken")
        super().append(records, forget)


@contextmanager
def serving(journal: MemoryJournal, authkey: bytes, port: int = 0) -> Iterator[tuple[str, int]]:
    """Serve *journal* at *port* until the block ends, or until it breaks."""
    server = Server(QueueHost(journal), listen("127.0.0.1", port), authkey)

    def serve() -> None:
        with suppress(JournalError):
            server.serve_forever()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.endpoint
    finally:
        server.stop()
        thread.join(10)


def test_a_report_that_was_answered_before_a_commit_that_never_came_is_repeated_to_the_next_manager():
    """So the job that it was about does not run again."""
    journal, authkey = Breaking(), b"k" * 32
    held: list[c.Held] = []

    def hello() -> c.Hello:
        return c.Hello(PROTOCOL_VERSION, "consumer", "w-1", "w", tasks=["m:f"], held=held)

    with serving(journal, authkey) as endpoint:
        consumer, client = ManagerBroker(endpoint, authkey, hello=hello), ManagerBroker(endpoint, authkey)
        submit(client, chunk(0, 2))
        first = lease_one(consumer)
        journal.broken = True
        turn = consumer.lease(limit=1, wait=NOW, early=True, outcomes=[ack_of(first)])
        assert turn.grant.early
    (second,) = turn.grant.deliveries
    held += [c.Held(each.token, each.origin, each.first, 1) for each in (first, second)]

    with serving(reopened(journal), authkey, endpoint[1]):
        record(consumer, ack_of(second))

        assert states(client, "o-0", "o-1") == ["succeeded", "succeeded"]
        assert counts(client).leased == 0
        consumer.close()
        client.close()


def test_nobody_listening_is_unreachable_within_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    broker = ManagerBroker(address, b"key", timeout=0.3)

    with pytest.raises(ManagerUnreachable, match="is it running"):
        broker.connect()


def test_who_answers_something_else_is_no_manager():
    def greet(listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(with_header(b"220 ready"))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=greet, args=(listener,))
        thread.start()
        with pytest.raises(BadRequest, match="not a manager"):
            ManagerBroker(listener.getsockname(), b"key", timeout=2.0).connect()
        thread.join(5)


def test_close_may_be_called_twice_and_before_any_call(manager):
    broker = manager.broker()
    broker.close()
    broker.connect()
    broker.close()
    broker.close()


def test_a_call_that_is_given_up_takes_its_connection_with_it(manager):
    """Its late answer must not be taken for that of the next call."""
    broker = manager.broker(timeout=2.0)
    broker.connect()
    held = threading.Event()
    manager.server.ask(held.wait)

    with pytest.raises(ManagerUnreachable):
        broker.call([c.Ping()])
    held.set()
    manager.server.ask(lambda: None).result(5)

    assert broker.call([c.Stats()])[0].__class__ is r.Totals
    broker.close()
