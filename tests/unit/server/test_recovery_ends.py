"""A manager that ends in place of recovering: its third fault within a minute, or a recovery that fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from svc.broker import durable_state
from svc.broker.host import QueueHost
from svc.broker.journal import Journal
from svc.domain import commands as c
from svc.domain.events import AnyEvent, Submitted
from svc.errors import JournalError, ManagerBroken
from svc.server.journal import SqliteJournal
from svc.server.manager import Server, listen
from svc.wire import PROTOCOL_VERSION, encode_request
from tests.support import broken_manager
from tests.support.asking import chunk
from tests.support.broken_manager import CORRUPTS, FAULTS, GRANTS, RAISES, TICKS, WRITES
from tests.support.manager import RunningManager
from tests.support.recovering import ask, submit
from tests.support.stranger import Stranger

Rows = Iterator[tuple[int, AnyEvent]]
KEY = b"key"


@pytest.fixture(autouse=True)
def _faults(monkeypatch: pytest.MonkeyPatch) -> None:
    broken_manager.replaced(monkeypatch)


class Ending(RunningManager):
    """A manager that is expected to end by itself, and the error that ended it."""

    def __init__(self, journal: Journal) -> None:
        host = QueueHost(journal)
        super().__init__(Server(host, listen("127.0.0.1", 0), KEY), host, KEY)
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self.server.serve_forever()
        except (ManagerBroken, JournalError) as error:
            self.error = error

    def break_once(self, task: str, number: int = 0) -> bool:
        """Send a job of *task*, which breaks the state, beside one that does no harm.

        Returns:
            Whether there was an answer before the manager closed the connection.
        """
        commands: list[c.AnyCommand] = [
            submit("m:f", number, origin="beside"),
            submit(task, number, origin="b"),
        ]
        if task == TICKS:
            commands.append(c.Submit("delayed", [chunk(number, delay=0.001)]))  # work for upkeep
        if task == GRANTS:
            commands += [c.Hello(PROTOCOL_VERSION, "consumer", "w-9", "w", tasks=["m:f"]), c.Lease()]
        with Stranger(self.endpoint) as sender:
            sender.serve(KEY)
            sender.send(encode_request(1, commands))
            return bool(sender.rest())

    def wait_for_end(self) -> str:
        """Return the text of the error that ended it."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return f"{type(self.error).__name__}: {self.error}"


THREE = [
    *((task,) * 3 for task in FAULTS),
    (RAISES, CORRUPTS, WRITES),
    (TICKS, GRANTS, RAISES),
    (WRITES, TICKS, CORRUPTS),
    (CORRUPTS, RAISES, GRANTS),
]


@pytest.mark.parametrize("tasks", THREE, ids=" ".join)
def test_the_third_fault_within_a_minute_ends_the_manager_and_leaves_its_journal_whole(tmp_path, tasks):
    manager = Ending(SqliteJournal.open(tmp_path / "j.db", "os"))
    ask(manager, submit("m:f"))
    answered = [number for number, task in enumerate(tasks) if manager.break_once(task, number)]

    assert "ManagerBroken: the manager's state broke 3 times in 60 s" in manager.wait_for_end()
    again = SqliteJournal.open(tmp_path / "j.db", "os")
    jobs = [(each.origin, each.first) for _, each in again.replay() if isinstance(each, Submitted)]
    again.close()
    assert [job for job in jobs if job[0] == "o"] == [("o", 0)]
    assert [number for origin, number in jobs if origin == "beside"] == answered
    assert all(tasks[number] == TICKS for number in answered)


@pytest.mark.parametrize("journal", ["sqlite"], indirect=True)
@pytest.mark.parametrize("tasks", THREE, ids=" ".join)
def test_two_faults_within_a_minute_do_not(journal, tasks):
    manager = Ending(journal)
    for number, task in enumerate(tasks[:2]):
        manager.break_once(task, number)

    assert ask(manager, submit("m:f"))
    manager.server.stop()
    assert manager.wait_for_end() == "NoneType: None"


def raising(error: Exception) -> Any:
    def fail(*arguments: object) -> None:
        raise error

    return fail


def replaying(journal: Journal, rows: int, *odd: Any, error: Exception | None = None) -> Any:
    """Return a replay of some *rows* and of *odd* ones, which ends with *error*."""
    replay = journal.replay

    def fail() -> Iterator[Any]:
        yield from islice(replay(), rows)
        yield from odd
        if error is not None:
            raise error

    return fail


NOT_GIVEN_BACK = "ManagerBroken: the manager's state broke and the journal does not give it back"
#: How a recovery fails: the function that does, its replacement on a journal, and the error that ends it all.
FAILURES: dict[str, tuple[str, Any, str]] = {
    "a fault as the incarnation begins": (
        "begin_incarnation",
        lambda journal: raising(ValueError("odd")),
        f"{NOT_GIVEN_BACK} (ValueError)",
    ),
    "the disk, as the incarnation begins": (
        "begin_incarnation",
        lambda journal: raising(JournalError("the disk is gone")),
        "JournalError: the disk is gone",
    ),
    "the first row": (
        "replay",
        lambda journal: replaying(journal, 0, error=KeyError("odd")),
        f"{NOT_GIVEN_BACK} (KeyError)",
    ),
    "a row in the middle": (
        "replay",
        lambda journal: replaying(journal, 2, error=RuntimeError("odd")),
        f"{NOT_GIVEN_BACK} (RuntimeError)",
    ),
    "the disk, in the middle": (
        "replay",
        lambda journal: replaying(journal, 2, error=JournalError("the disk is gone")),
        "JournalError: the disk is gone",
    ),
    "no memory": (
        "replay",
        lambda journal: replaying(journal, 2, error=MemoryError()),
        f"{NOT_GIVEN_BACK} (MemoryError)",
    ),
    "a row that is no event": (
        "replay",
        lambda journal: replaying(journal, 2, (1 << 20, None)),
        NOT_GIVEN_BACK,
    ),
    "after the last row": ("recover", None, f"{NOT_GIVEN_BACK} (ZeroDivisionError)"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_recovery_that_fails_ends_the_manager(journal, monkeypatch, failure):
    name, replacement, told = FAILURES[failure]
    manager = Ending(journal)
    ask(manager, *(submit("m:f", number) for number in range(5)))
    if replacement is None:
        monkeypatch.setattr(durable_state, name, raising(ZeroDivisionError()))
    else:
        monkeypatch.setattr(journal, name, replacement(journal))

    with Stranger(manager.endpoint) as other:
        other.serve(KEY)
        assert not manager.break_once(RAISES)
        assert told in manager.wait_for_end()
        assert other.rest() == b""
    with pytest.raises(ConnectionRefusedError):
        Stranger(manager.endpoint)


@pytest.mark.parametrize("task", FAULTS)
def test_a_recovery_that_fails_ends_the_manager_whatever_broke_it(journal, monkeypatch, task):
    manager = Ending(journal)
    ask(manager, submit("m:f"))
    monkeypatch.setattr(journal, "replay", replaying(journal, 1, error=KeyError("odd")))

    manager.break_once(task)

    assert NOT_GIVEN_BACK in manager.wait_for_end()
