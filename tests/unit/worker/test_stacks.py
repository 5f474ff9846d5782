"""The stacks that a process writes at a signal, and how an error shows them."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import pytest

from svc.domain.field_bounds import TRACEBACK_MAX
from svc.worker.stacks import LONGEST_SECONDS, STACK_SIGNAL, StackReader, shown_stacks, write_stacks_to

ATTEMPT = (7, 3)


@pytest.fixture
def pipe() -> Iterator[tuple[StackReader, Connection]]:
    """A reader, and the end to which this process writes its stacks."""
    ours, theirs = Pipe(duplex=False)
    enabled = faulthandler.is_enabled()
    with ours, theirs:
        write_stacks_to(theirs)
        yield StackReader(ours), theirs
        faulthandler.unregister(STACK_SIGNAL)
        faulthandler.disable()
    if enabled:
        faulthandler.enable(2)


def test_a_process_that_is_asked_writes_the_stack_of_its_code(pipe: tuple[StackReader, Connection]) -> None:
    stacks, _ = pipe
    stacks.ask(os.getpid(), ATTEMPT, 5.0)
    assert (stacks.asked_for, stacks.due > 5.0) == (ATTEMPT, True)
    told = stacks.of_the_attempt()
    assert told.startswith("Current thread (most recent call first):\n")
    assert "in test_a_process_that_is_asked_writes_the_stack_of_its_code" in told
    assert stacks.of_the_crash() == ""


def test_stacks_of_an_attempt_that_has_ended_are_forgotten(pipe: tuple[StackReader, Connection]) -> None:
    stacks, _ = pipe
    stacks.ask(os.getpid(), ATTEMPT, 5.0)
    stacks.forget()
    assert (stacks.asked_for, stacks.of_the_attempt()) == (None, "")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test sets, on which a process is asked that writes nothing by itself."""
    now = [100.0]
    monkeypatch.setattr("svc.worker.stacks.time.monotonic", lambda: now[0])
    monkeypatch.setattr(os, "kill", lambda pid, number: None)
    return now


def test_stacks_that_are_still_coming_are_awaited_and_others_are_not(
    pipe: tuple[StackReader, Connection], clock: list[float]
) -> None:
    reader, theirs = pipe
    reader.ask(1, ATTEMPT, clock[0])
    for _ in range(4):
        clock[0] = reader.due + 0.001
        os.write(theirs.fileno(), b"Thread 0x1 (most recent call first):\n\n")
        assert reader.are_awaited(clock[0])
        assert reader.due > clock[0]
    clock[0] = reader.due + 0.001
    assert not reader.are_awaited(clock[0]), "nothing has come since"
    assert reader.of_the_attempt().count("Thread") == 4


def test_stacks_without_an_end_are_awaited_for_a_while_only(
    pipe: tuple[StackReader, Connection], clock: list[float]
) -> None:
    reader, theirs = pipe
    began = clock[0]
    reader.ask(1, ATTEMPT, began)
    while reader.are_awaited(clock[0]):
        assert clock[0] < began + LONGEST_SECONDS
        os.write(theirs.fileno(), b"x")
        clock[0] = reader.due + 0.001


def test_a_process_that_is_gone_is_asked_in_vain(pipe: tuple[StackReader, Connection]) -> None:
    stacks, _ = pipe
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    stacks.ask(ended.pid, ATTEMPT, 5.0)
    assert stacks.of_the_attempt() == ""


def test_a_pipe_that_was_closed_is_waited_for_no_more(pipe: tuple[StackReader, Connection]) -> None:
    stacks, theirs = pipe
    os.write(theirs.fileno(), b"Current thread")
    theirs.close()
    stacks.note([])
    assert stacks.open
    stacks.note([stacks.pipe])
    assert (stacks.open, stacks.of_the_attempt()) == (False, "Current thread")


def test_a_crash_is_told_from_stacks_that_came_before(pipe: tuple[StackReader, Connection]) -> None:
    stacks, theirs = pipe
    stacks.ask(os.getpid(), ATTEMPT, 5.0)
    os.write(
        theirs.fileno(), b"Fatal Python error: Aborted\n\nCurrent thread 0x00af (most recent call first):\n"
    )
    assert stacks.of_the_crash() == "Fatal Python error: Aborted\n\nCurrent thread (most recent call first):"
    assert "Fatal" not in stacks.of_the_attempt()


def test_the_current_thread_comes_first_and_addresses_are_left_out() -> None:
    dump = (
        "Thread 0x1f (most recent call first):\n  a\n\nCurrent thread 0x2f (most recent call first):\n  b\n"
    )
    shown = "Current thread (most recent call first):\n  b\n\nThread (most recent call first):\n  a"
    assert shown_stacks(dump) == shown
    fatal = "Fatal Python error: Segmentation fault"
    assert shown_stacks(f"{fatal}\n\n{dump}") == f"{fatal}\n\n{shown}"
    assert shown_stacks("") == ""


def test_stacks_of_many_threads_are_cut_and_the_current_thread_is_kept() -> None:
    others = [f"Thread 0x{number:x} (most recent call first):\n" + "  x\n" * 100 for number in range(100)]
    shown = shown_stacks("\n".join([*others, "Current thread 0xff (most recent call first):\n  here\n"]))
    assert shown.startswith("Current thread (most recent call first):\n  here\n")
    assert len(shown) == TRACEBACK_MAX
    assert shown.endswith("characters left out")


def test_the_signal_is_none_that_is_used_for_another_thing() -> None:
    assert STACK_SIGNAL not in {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGRTMAX - 2}
