"""The long texts of errors in the journal's file: damage, kills, backups, older formats, many dead jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import msgspec
import pytest

from svc.broker.host import QueueHost
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.events import Failed
from svc.domain.job import ErrorInfo, NewChunk, Terms
from svc.domain.job_view import JobView
from svc.domain.members import Member
from svc.server.journal import SqliteJournal
from svc.server.journal.inspection import info, restore, verify
from tests.support.journals import LONG_TRACEBACK as LONG
from tests.support.journals import age, event, failed, in_file, killed, traceback_with

CONSUMER = Member("plain")


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A journal with three failed attempts, two of them with equal texts."""
    path = tmp_path / "j.db"
    journal = in_file(path, "os").journal
    errors = [ErrorInfo("E", "m", LONG), ErrorInfo("E", "m", LONG), ErrorInfo("E", "m", LONG[::-1])]
    journal.append([(n, failed(n, error)) for n, error in enumerate(errors, start=1)])
    journal.append([(9, event(9))])
    journal.close()
    assert all(check.ok for check in verify(path))
    return path


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE texts SET body = zeroblob(20) WHERE id = 1",
        "UPDATE texts SET body = (SELECT body FROM texts WHERE id = 2) WHERE id = 1",
        "UPDATE texts SET compressed = 0 WHERE id = 2",
        "UPDATE texts SET digest = zeroblob(16) WHERE id = 2",
        "DELETE FROM texts WHERE id = 1",
        "DELETE FROM text_uses WHERE seq = 3",
        "DELETE FROM text_uses WHERE seq = 1",
        "UPDATE text_uses SET text = 2 WHERE seq = 1",
        "UPDATE text_uses SET seq = 8 WHERE seq = 3",
        "INSERT INTO text_uses VALUES (9, 1)",
        "INSERT INTO texts VALUES (7, zeroblob(16), 0, x'00')",
    ],
)
def test_verify_finds_a_damaged_missing_or_left_over_text(whole, damage):
    with apsw.Connection(str(whole)) as connection:
        connection.execute(damage)
    connection.close()

    assert {check.name for check in verify(whole) if not check.ok} == {"texts"}


@pytest.mark.parametrize("damage", ["DELETE FROM texts", "UPDATE texts SET body = zeroblob(20)"])
def test_a_damaged_text_is_told_in_its_place_and_hinders_nothing(whole, damage):
    with apsw.Connection(str(whole)) as connection:
        connection.execute(damage)
    connection.close()
    journal = SqliteJournal.open(whole, "os")

    assert [number for number, _ in journal.replay()] == [1, 2, 3, 9]
    read = journal.read(1)
    assert isinstance(read, Failed)
    assert read.error.message == "m"
    assert "text of its error is" in read.error.traceback
    assert "svc journal verify" in read.error.traceback
    assert journal.read(9) == event(9)
    journal.close()


def test_the_texts_are_counted_and_an_older_journal_has_none(whole):
    assert info(whole).texts == 2
    age(whole, 2)
    assert info(whole).texts == 0


def test_what_a_kill_leaves_has_its_texts(tmp_path):
    journal = in_file(tmp_path / "j.db", "os").journal
    journal.append([(1, failed(1, ErrorInfo("E", "m", LONG)))])
    copy = killed(tmp_path / "j.db", tmp_path / "copy.db")
    journal.close()

    again = SqliteJournal.open(copy, "os")
    assert again.read(1) == failed(1, ErrorInfo("E", "m", LONG))
    again.close()


def test_a_backup_has_the_texts(whole, tmp_path):
    journal = SqliteJournal.open(whole, "os", backups=tmp_path / "backups")
    journal.backup("b.db")
    while journal.maintain(idle=False):
        pass
    journal.close()
    restored = tmp_path / "restored.db"
    copy = tmp_path / "backups" / "b.db"
    while not copy.exists():  # checked and named by a thread
        pass
    restore(copy, restored)

    assert all(check.ok for check in verify(restored))
    again = SqliteJournal.open(restored, "os")
    assert again.read(3) == failed(3, ErrorInfo("E", "m", LONG[::-1]))
    again.close()


@pytest.mark.parametrize("version", [1, 2])
def test_a_journal_of_an_older_version_keeps_its_rows_and_has_new_texts_beside_them(whole, version):
    age(whole, version)
    assert all(check.ok for check in verify(whole))

    journal = SqliteJournal.open(whole, "os")
    number, old = next(iter(journal.replay()))
    new = failed(10, ErrorInfo("E", "m", LONG))
    journal.append([(10, new)])

    assert (number, old) == (1, failed(1, ErrorInfo("E", "m", LONG)))
    assert [journal.read(1), journal.read(10)] == [old, new]
    journal.append([(11, event(11))], forget=[1, 10])
    journal.close()
    assert all(check.ok for check in verify(whole))


def test_a_journal_brought_up_to_date_has_the_form_of_a_new_one(tmp_path):
    forms = []
    for version in (1, 2, None):
        path = tmp_path / f"{version}.db"
        SqliteJournal.open(path, "os").close()
        if version is not None:
            age(path, version)
        SqliteJournal.open(path, "os").close()
        with apsw.Connection(str(path)) as connection:
            columns = connection.execute(
                "SELECT m.name, c.name, c.type FROM sqlite_schema m, pragma_table_info(m.name) c"
                " ORDER BY 1, 2"
            ).fetchall()
        connection.close()
        forms.append(columns)
    assert forms[0] == forms[1] == forms[2]


# --- the purpose ---

JOBS, ATTEMPTS = 200, 4
#: More than the row of a failed attempt takes whose texts are beside it.
ROW_BYTES = 1024


@pytest.mark.parametrize(
    "error_of",
    [
        pytest.param(lambda job, attempt: ErrorInfo("E", "m", LONG), id="equal"),
        pytest.param(lambda job, _: ErrorInfo("E", f"{job:03}", traceback_with(f"{job:03}")), id="message"),
        pytest.param(lambda _, attempt: ErrorInfo("E", "m", LONG + str(attempt)), id="of each attempt"),
        pytest.param(lambda _, attempt: ErrorInfo("E", "m", "", LONG.encode()), id="exception"),
    ],
)
def test_dead_jobs_tell_all_their_attempts_after_a_restart_and_take_little_room(
    tmp_path: Path, error_of: Callable[[int, int], ErrorInfo]
):
    path = tmp_path / "j.db"
    host = QueueHost(SqliteJournal.open(path, "os"))
    call(host, c.Submit("o", [NewChunk(0, Terms("m:f"), [b""] * JOBS)]))
    for attempt in range(1, ATTEMPTS + 1):
        retry_in = 0.0 if attempt < ATTEMPTS else None
        nacks = [
            c.Nack(each.token, number, error_of(number, attempt), retry_in) for each, number in leased(host)
        ]
        call(host, *nacks)
    host.close()

    journal = SqliteJournal.open(path, "os")
    replayed = msgspec.msgpack.encode(list(journal.replay()))
    again = QueueHost(journal)
    told = [view.attempts for number in range(JOBS) for view in viewed(again, f"o-{number}")]
    again.close()

    assert [[attempt.error for attempt in attempts] for attempts in told] == [
        [error_of(number, attempt) for attempt in range(1, ATTEMPTS + 1)] for number in range(JOBS)
    ]
    assert len(replayed) < JOBS * ATTEMPTS * ROW_BYTES
    assert path.stat().st_size < JOBS * ATTEMPTS * ROW_BYTES
    assert all(check.ok for check in verify(path))


def call(host: QueueHost, *commands: c.AnyCommand) -> list[r.Reply]:
    replies: list[r.Reply] = []
    host.call(commands, CONSUMER, replies.extend)
    host.turn()
    return replies


def viewed(host: QueueHost, job: str) -> list[JobView]:
    [found] = call(host, c.Get([job]))
    assert isinstance(found, r.Views)
    return found.jobs


def leased(host: QueueHost) -> Iterator[tuple[r.Delivery, int]]:
    """Lease all jobs, in as many requests as it takes."""
    left = JOBS
    while left:
        [granted] = call(host, c.Lease(left))
        assert isinstance(granted, r.Grant)
        for each in granted.deliveries:
            for number in range(each.first, each.first + len(each.bodies)):
                left -= 1
                yield each, number
