"""The connection to a manager, and its breaks; the verbs are in tests/contract."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from tests.support.manager import running_manager
from tests.support.memory_journals import reopened


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


def test_an_error_that_is_raised_on_a_failure_ends_the_call_at_once(manager):
    broker = manager.broker()
    broker.connect()

    def fail() -> None:
        raise OSError("no descriptor")

    broker.on_failure = fail
    break_connection(broker)

    with pytest.raises(OSError, match="no descriptor"):
        broker.ping()
    broker.on_failure = None
    broker.ping()
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
        thread.join(30)


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


@pytest.fixture
def nobody() -> Iterator[tuple[str, int]]:
    """An address on which nobody listens, and that no other process can take meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()


def test_nobody_listening_is_unreachable_within_the_timeout(nobody):
    broker = ManagerBroker(nobody, b"key", timeout=0.3)

    assert broker.trouble == ""
    with pytest.raises(ManagerUnreachable, match="is it running"):
        broker.connect()
    assert "refused" in broker.trouble


def test_an_attempt_that_begins_after_the_deadline_hides_no_reason_of_an_earlier_one(nobody):
    """A busy host wakes a caller late from the pause between two attempts."""
    pauses: list[float] = []

    class Oversleeping(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            pauses.append(timeout)
            return super().wait(timeout + 5.0)

    broker = ManagerBroker(nobody, b"key", timeout=5.0)
    broker._interrupted = Oversleeping()
    with pytest.raises(ManagerUnreachable, match="Connection refused; is it running"):
        broker.connect()
    assert len(pauses) == 1


def test_an_interrupted_call_tries_no_longer_to_reach_a_manager_that_is_away(nobody):
    broker = ManagerBroker(nobody, b"key", timeout=600.0)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(broker.ping)
        while not broker.trouble:
            pass
        broker.interrupt()
        with pytest.raises(ManagerUnreachable, match="Connection refused"):
            call.result(30)
    with pytest.raises(ManagerUnreachable, match="Connection refused"):
        broker.ping()


def test_an_interrupted_call_may_still_be_answered_over_a_new_connection(manager):
    broker = manager.broker(timeout=600.0)
    broker.interrupt()
    broker.ping()
    broker.close()


def test_a_dial_that_is_given_up_ends(monkeypatch: pytest.MonkeyPatch):
    """The other side accepts the connection, and says nothing."""
    monkeypatch.setattr("svc.broker.manager.CONNECT_SECONDS", 600.0)
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        broker = ManagerBroker(listener.getsockname(), b"key", timeout=600.0)
        call = pool.submit(broker.ping)
        with listener.accept()[0]:
            broker.give_up()
            with pytest.raises(ManagerUnreachable):
                call.result(30)


@pytest.mark.parametrize("greeted", [False, True])
def test_a_request_that_is_given_up_ends_without_its_answer(manager, greeted):
    """So does the hello of its new connection."""
    hung, begun = threading.Event(), threading.Event()

    def hello() -> c.Hello:
        if not greeted:
            manager.server.ask(hung.wait)
            begun.set()
        return c.Hello(PROTOCOL_VERSION, "client")

    broker = manager.broker(hello, timeout=600.0)
    if greeted:
        broker.ping()
        manager.server.ask(hung.wait)
        begun.set()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(broker.ping)
        assert begun.wait(30)
        while not call.done():
            broker.give_up()  # one that was just about to begin goes on
        hung.set()
        with pytest.raises(ManagerUnreachable):
            call.result(30)
    broker.close()


def test_who_answers_something_else_is_no_manager():
    def greet(listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(with_header(b"220 ready"))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=greet, args=(listener,))
        thread.start()
        with pytest.raises(BadRequest, match="not a manager"):
            ManagerBroker(listener.getsockname(), b"key", timeout=30.0).connect()
        thread.join(30)


def test_close_may_be_called_twice_and_before_any_call(manager):
    broker = manager.broker()
    broker.close()
    broker.connect()
    broker.close()
    broker.close()


def test_a_call_that_is_given_up_takes_its_connection_with_it(manager):
    """Its late answer must not be taken for that of the next call."""
    broker = manager.broker()
    broker.connect()
    broker._timeout = 0.5
    held = threading.Event()
    manager.server.ask(held.wait)

    with pytest.raises(ManagerUnreachable):
        broker.call([c.Ping()])
    held.set()
    manager.server.ask(lambda: None).result(30)
    broker._timeout = 30.0

    assert broker.call([c.Stats()])[0].__class__ is r.Totals
    broker.close()


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (False, "it answers a ping, and not this request; is it busy?"),
        (True, "it was away, answers a ping again, and has not answered this request yet"),
    ],
)
def test_a_request_without_an_answer_says_whether_the_connection_broke_meanwhile(
    manager, broken, reason, monkeypatch
):
    monkeypatch.setattr("svc.broker.manager.ASK_SECONDS", 60.0)  # half of the time is for the answer
    broker = manager.broker(timeout=8.0)
    broker.connect()
    before = broker._request

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(broker.call, [c.Feed("o", wait=60.0)])
        manager.until(lambda: broker._request > before)
        if broken:
            break_connection(broker)
        manager.until(lambda: broker._reason != "")
        broker.give_up()
        with pytest.raises(ManagerUnreachable, match=re.escape(reason)):
            late.result(30)
    broker.close()


def test_a_request_that_is_sent_again_waits_for_the_rest_of_its_time(manager):
    """Its answer would come after its deadline otherwise; here the wait is over before the first answer."""
    broker = manager.broker(timeout=30.0)
    broker.connect()
    before = broker._request

    with ThreadPoolExecutor(1) as pool:
        # The request says to wait for longer than the call allows, and is cut to what is left of that.
        call = pool.submit(broker.call, [c.Feed("o", wait=60.0)], wait=0.01)
        manager.until(lambda: broker._request > before)
        break_connection(broker)
        assert isinstance(call.result(30)[0], r.Outcomes)
    broker.close()
