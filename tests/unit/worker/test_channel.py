"""The consumer's end of reports about jobs that run."""

from __future__ import annotations

import multiprocessing
import threading
from functools import partial

import msgspec
import pytest

from svc.domain.commands import Checkpoint
from svc.errors import LeaseLost, OutsideJob
from svc.worker.channel import PipeChannel


def test_what_an_attempt_has_left_is_forgotten_once_it_is_reported() -> None:
    ours, theirs = multiprocessing.Pipe()
    channel = PipeChannel(theirs, lambda: True)
    errors: list[BaseException] = []

    def keep() -> None:
        try:
            channel.keep(Checkpoint(7, 0, b"data"), durable=True)
        except OutsideJob as error:
            errors.append(error)

    thread = threading.Thread(target=keep)
    thread.start()
    assert ours.recv_bytes()  # it is on its way, and nobody will answer
    channel.forget(8)
    assert thread.is_alive()
    channel.forget(7)
    thread.join(30)
    assert len(errors) == 1
    assert channel.unrecorded(7, 0) is None


def test_a_lost_lease_is_remembered_until_its_attempt_has_ended() -> None:
    ours, theirs = multiprocessing.Pipe()
    channel = PipeChannel(theirs, lambda: True)

    def answer() -> None:
        assert ours.recv_bytes()
        channel.answered(msgspec.msgpack.encode((1, False, LeaseLost.code, "gone")))

    threading.Thread(target=answer).start()
    for _ in range(2):
        with pytest.raises(LeaseLost):
            channel.keep(Checkpoint(7, 0, b"data"), durable=True)
    channel.forget(7)
    assert not channel._lost


def test_the_record_of_a_checkpoint_settles_an_earlier_one_that_another_thread_left_meanwhile() -> None:
    ours, theirs = multiprocessing.Pipe()
    channel = PipeChannel(theirs, lambda: True)
    threads = []
    for data in (b"earlier", b"later"):
        leave = partial(channel.keep, Checkpoint(7, 0, data), durable=False)
        threads.append(threading.Thread(target=leave))
        threads[-1].start()
        assert ours.recv_bytes()
    for answer in ((1, False, "", ""), (2, False, "", ""), (2, True, "", "")):
        channel.answered(msgspec.msgpack.encode(answer))
    for thread in threads:
        thread.join(30)
    assert channel.unrecorded(7, 0) is None
