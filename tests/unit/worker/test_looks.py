"""The state of a consumer's process is looked at once in a millisecond, and before the next jobs."""

from __future__ import annotations

import io
import locale
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from svc.worker.leftovers import LOOK_SECONDS, Leftovers, ProcessState


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    directory, environment = Path.cwd(), dict(os.environ)
    umask = os.umask(0o022)
    os.umask(umask)
    yield
    os.chdir(directory)
    os.umask(umask)
    os.environ.clear()
    os.environ.update(environment)


def change_directory() -> None:
    os.chdir("/")


def change_environment() -> None:
    os.environ["SVC_TEST_LEFT"] = "1"


def change_umask() -> None:
    os.umask(0o777)


def state() -> tuple[Path, dict[str, str], int]:
    umask = os.umask(0)
    os.umask(umask)
    return Path.cwd(), dict(os.environ), umask


@pytest.mark.parametrize("change", [change_directory, change_environment, change_umask])
def test_what_changes_right_after_a_look_is_put_back_before_the_next_jobs(change) -> None:
    now = [0.0]
    leftovers, before = Leftovers(lambda: now[0]), state()
    assert leftovers.clear(keep_children=True) == []
    change()

    now[0] += LOOK_SECONDS / 2
    assert leftovers.clear(keep_children=True) == []
    assert state() != before
    now[0] += LOOK_SECONDS / 2
    assert leftovers.catch_up() == []

    assert state() == before


@pytest.mark.parametrize("change", [change_directory, change_environment, change_umask])
def test_what_changes_a_while_after_a_look_is_put_back_at_once(change) -> None:
    now = [0.0]
    leftovers, before = Leftovers(lambda: now[0]), state()
    leftovers.clear(keep_children=True)
    change()

    now[0] += LOOK_SECONDS
    leftovers.clear(keep_children=True)

    assert state() == before


def other_handler() -> Callable[[], object]:
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    return lambda: signal.signal(signal.SIGUSR2, before)


def other_locale() -> Callable[[], object]:
    before = locale.setlocale(locale.LC_ALL)
    locale.setlocale(locale.LC_ALL, "C.UTF-8" if before == "C" else "C")
    return lambda: locale.setlocale(locale.LC_ALL, before)


def running_timer() -> Callable[[], object]:
    signal.setitimer(signal.ITIMER_VIRTUAL, 3600.0)
    return lambda: signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)


def other_limit() -> Callable[[], object]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def other_stream() -> Callable[[], object]:
    before, sys.stdout = sys.stdout, io.StringIO()
    return lambda: setattr(sys, "stdout", before)


def other_descriptor() -> Callable[[], object]:
    undo, other = closed_descriptor(), os.open("/", os.O_RDONLY)
    os.dup2(other, 0)
    if other:
        os.close(other)
    return undo


def closed_descriptor() -> Callable[[], object]:
    before = os.dup(0)
    os.close(0)

    def undo() -> None:
        os.dup2(before, 0)
        os.close(before)

    return undo


def other_flags() -> Callable[[], object]:
    before = os.get_blocking(1)
    os.set_blocking(1, not before)
    return lambda: os.set_blocking(1, before)


def blocked_signals() -> Callable[[], object]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    return lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before)


def other_recursion() -> Callable[[], object]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + 1)
    return lambda: sys.setrecursionlimit(before)


CHANGES = [
    *(change_directory, change_environment, change_umask, other_handler, other_locale, running_timer),
    *(other_limit, other_stream, other_descriptor, closed_descriptor, other_flags),
    *(blocked_signals, other_recursion),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_quick_look_sees_each_change_of_the_process(change: Callable[[], Callable[[], object] | None]):
    state_before = ProcessState()
    assert state_before.is_kept()
    undo = change()
    try:
        assert not state_before.is_kept()
    finally:
        if undo is not None:
            undo()


def test_a_quick_look_sees_that_a_stream_was_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    state_before = ProcessState()
    assert state_before.is_kept()
    sys.stdin.close()
    assert not state_before.is_kept()


def test_a_quick_look_never_passes_for_a_timer_that_ran_before_and_has_ended():
    end = running_timer()
    state_before = ProcessState()
    end()
    assert state_before.restore() == ["interval timers"]
