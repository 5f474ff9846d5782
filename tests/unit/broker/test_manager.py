"""The connection to a manager: what happens when it breaks; the verbs are in tests/contract."""

from __future__ import annotations

import socket
import threading

import pytest

from service.broker.manager import ManagerBroker
from service.domain import commands as c
from service.domain import replies as r
from service.errors import BadRequest, ManagerUnreachable
from service.wire import PROTOCOL_VERSION, with_header
from tests.support.asking import batch, counts, submit
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
    submit(broker, batch(0))
    break_connection(broker)

    submit(broker, batch(0))

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
    broker = manager.broker(timeout=0.2)
    broker.connect()
    manager.server.ask(lambda: threading.Event().wait(1.0))

    with pytest.raises(ManagerUnreachable):
        broker.call([c.Ping()])
    manager.server.ask(lambda: None).result(5)

    assert broker.call([c.Stats()])[0].__class__ is r.Totals
    broker.close()
