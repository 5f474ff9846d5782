"""The way of partial results to the manager: gathered, in order, repeated, and bounded."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from svc.domain.commands import Yield
from svc.domain.field_bounds import YIELDED_VALUES_MAX
from svc.errors import LeaseLost, ManagerUnreachable
from svc.worker import value_sender
from svc.worker.value_sender import MESSAGE_BYTES, WAITING_BYTES, ValueBounds, ValueSender


class Manager:
    """Takes messages when it is open, and says what it is told to say."""

    def __init__(self) -> None:
        self.taken: list[Yield] = []
        self.asked = threading.Semaphore(0)
        self.error: BaseException | None = None
        self._open = threading.Event()
        self._open.set()

    def bounds(self) -> ValueBounds:
        return ValueBounds(1, 1, 1)

    def record(self, values: Yield) -> None:
        self.asked.release()
        assert self._open.wait(30)
        if self.error is not None:
            raise self.error
        self.taken.append(values)

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    @property
    def values(self) -> list[bytes]:
        """All values; the messages follow each other without a gap."""
        found: list[bytes] = []
        for message in self.taken:
            assert message.first == len(found)
            found += message.values
        return found


@pytest.fixture
def manager() -> Manager:
    return Manager()


@pytest.fixture
def sender(manager: Manager) -> Iterator[ValueSender]:
    sender = ValueSender(manager, token=7, number=3)
    yield sender
    manager.open()
    sender.close(0.0)


def sent(sender: ValueSender) -> bool:
    """Wait until all values are sent; return whether that came."""
    done = threading.Event()
    sender.when_sent(done.set)
    return done.wait(30)


def test_the_first_value_goes_at_once_and_those_that_come_meanwhile_together(
    manager: Manager, sender: ValueSender
) -> None:
    manager.close()
    values = [b"%d" % number for number in range(500)]
    sender.add(values[0])
    assert manager.asked.acquire(timeout=30)
    for value in values[1:]:
        sender.add(value)
    manager.open()
    assert sent(sender)
    assert manager.values == values
    assert [len(message.values) for message in manager.taken] == [1, 499]
    assert {(message.token, message.number) for message in manager.taken} == {(7, 3)}


def test_values_wait_a_little_for_others(
    manager: Manager, sender: ValueSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(value_sender, "SEND_SECONDS", 3600.0)
    sender.add(b"first")
    assert manager.asked.acquire(timeout=30)
    sender.add(b"second")
    assert not manager.asked.acquire(timeout=0.05)
    assert sent(sender), "the end of the attempt does not wait"
    assert manager.values == [b"first", b"second"]


@pytest.mark.parametrize("size", [0, 1000, MESSAGE_BYTES // 3 + 1, MESSAGE_BYTES * 2])
def test_a_message_has_a_bound(manager: Manager, sender: ValueSender, size: int) -> None:
    count = 2500 if size <= 1000 else 10
    for _ in range(count):
        sender.add(bytes(size))
    assert sent(sender)
    assert manager.values == [bytes(size)] * count
    for message in manager.taken:
        assert len(message.values) <= YIELDED_VALUES_MAX
        assert sum(map(len, message.values)) <= MESSAGE_BYTES or len(message.values) == 1


def test_there_is_room_again_when_the_manager_has_taken_some(manager: Manager, sender: ValueSender) -> None:
    manager.close()
    piece = bytes(WAITING_BYTES // 8)
    assert [sender.add(piece) for _ in range(8)] == [True] * 7 + [False]
    room = threading.Event()
    sender.when_room(room.set)
    assert not room.is_set()
    manager.open()
    assert room.wait(30)
    assert sender.add(piece)


def test_values_wait_for_a_manager_that_is_away(manager: Manager, sender: ValueSender) -> None:
    manager.error = ManagerUnreachable()
    for value in (b"a", b"b"):
        sender.add(value)
    for _ in range(3):
        assert manager.asked.acquire(timeout=30)
    manager.error = None
    assert sent(sender)
    assert manager.values == [b"a", b"b"]


@pytest.mark.parametrize("error", [LeaseLost(), OSError("no more files"), SystemExit(1)])
def test_after_a_refusal_no_value_is_taken(
    manager: Manager, sender: ValueSender, error: BaseException
) -> None:
    manager.error = error
    sender.add(b"a")
    assert sent(sender)
    assert sender.error is manager.error
    manager.error = None
    with pytest.raises(type(error)):
        sender.add(b"b")
    assert manager.values == []


def test_an_attempt_that_has_failed_does_not_wait_long_for_a_manager_that_is_away(
    manager: Manager, sender: ValueSender
) -> None:
    manager.error = ManagerUnreachable()
    sender.add(b"a")
    assert manager.asked.acquire(timeout=30)
    sender.close(0.05)
    thread = sender._thread
    assert thread is not None
    thread.join(30)
    assert not thread.is_alive()


def test_an_attempt_that_has_failed_sends_what_was_yielded_before(
    manager: Manager, sender: ValueSender
) -> None:
    for value in (b"a", b"b", b"c"):
        sender.add(value)
    sender.close(10.0)
    assert manager.values == [b"a", b"b", b"c"]


def test_one_that_yields_nothing_has_no_thread(sender: ValueSender) -> None:
    assert sent(sender)
    assert sender._thread is None
