"""The journal against real files, kills, full disks and failing syncs: no accepted job is ever lost."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from svc.domain.events import AnyEvent, Submitted
from svc.domain.job import Terms
from svc.errors import Conflict, JournalError
from svc.server.journal import SqliteJournal
from tests.support.disk import Disk, recorded_disk
from tests.support.small_disk import remount, small_disk

TERMS = Terms("module:function")

APPENDER = """
import sys
from svc.domain.events import Submitted
from svc.domain.job import Terms
from svc.server.journal import SqliteJournal

path, durability, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
journal = SqliteJournal.open(path, durability)
terms = Terms("module:function")
while True:
    size = first % 7 + 1
    records = [(n, Submitted(float(n), "o", n, terms, [b"%d" % n * 20])) for n in range(first, first + size)]
    forget = [first - 50] if first >= 50 else []
    journal.append(records, forget)
    first += size
    print(first - 1, *forget, flush=True)
    if journal.wal_bytes > 300_000:
        journal.checkpoint()
"""

HOLDER = """
import sys
from svc.server.journal import SqliteJournal

journal = SqliteJournal.open(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


def event(number: int, size: int = 100) -> AnyEvent:
    return Submitted(float(number), "o", number, TERMS, [b"%d" % number * (size // len(str(number)))])


def fill(journal: SqliteJournal, numbers: range, size: int = 100) -> None:
    for number in numbers:
        journal.append([(number, event(number, size))])


def numbers_in(path: Path) -> list[int]:
    journal = SqliteJournal.open(path, "os")
    try:
        return [number for number, _ in journal.replay()]
    finally:
        journal.close()


@contextmanager
def script(source: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a Python program that communicates by pipes; kill it at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", source, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def printed_until_killed(path: Path, durability: str, first: int, lines: int) -> tuple[int, set[int]]:
    """Let an appender print that many lines, kill -9 it, and return everything that it printed."""
    with script(APPENDER, path, durability, first) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        said += process.stdout.read().splitlines(keepends=True)
    whole = [line.split() for line in said if line.endswith("\n")]
    return int(whole[-1][0]), {int(word) for line in whole for word in line[1:]}


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_what_append_returned_for_is_there_after_kill_9(tmp_path, durability):
    """Ten kills of one journal at ten moments; rows that were forgotten stay forgotten."""
    path = tmp_path / "j.db"
    first, forgotten = 0, set[int]()
    for kill in range(10):
        last, gone = printed_until_killed(path, durability, first, lines=5 + 37 * kill)
        forgotten |= gone
        unanswered = last - 49  # the row that the interrupted append would have forgotten
        journal = SqliteJournal.open(path, durability)
        rows = dict(journal.replay())
        assert journal.incarnation == 2 * kill + 2
        journal.close()
        missing = set(range(last + 1)) - set(rows)
        assert missing <= forgotten | {unanswered}
        assert not forgotten & set(rows)
        for number, found in rows.items():
            assert found == Submitted(float(number), "o", number, TERMS, [b"%d" % number * 20])
        forgotten |= missing
        first = max(rows) + 1


def test_a_second_manager_is_refused_until_the_first_is_dead(tmp_path):
    path = tmp_path / "j.db"
    with script(HOLDER, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(Conflict, match=rf"{path} is in use by another process; stop that manager first"):
            SqliteJournal.open(path)
        with sqlite3.connect(path, timeout=0) as other, pytest.raises(sqlite3.OperationalError, match="lock"):
            other.execute("SELECT * FROM events")
        other.close()
    journal = SqliteJournal.open(path)
    assert journal.incarnation == 2
    journal.close()


def test_a_refused_second_open_does_not_free_the_lock(tmp_path):
    """POSIX locks end when any descriptor of the file is closed, so only SQLite may open it."""
    path = tmp_path / "j.db"
    journal = SqliteJournal.open(path)
    with pytest.raises(Conflict):
        SqliteJournal.open(path)
    journal.size()
    with script(HOLDER, path) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == ""
        assert other.wait(60) == 1
    fill(journal, range(3))
    journal.close()


@pytest.mark.parametrize("content", [b"garbage", b"\0" * 5000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "j.db"
    path.write_bytes(content)
    with pytest.raises(JournalError, match=r"damaged or not a journal.*restore a backup"):
        SqliteJournal.open(path)
    assert path.read_bytes() == content


def test_a_file_that_was_cut_short_is_refused(tmp_path):
    """At each of fifty lengths: an error with advice, never a shorter list of jobs."""
    path = tmp_path / "j.db"
    journal = SqliteJournal.open(path, "os")
    fill(journal, range(400), size=500)
    journal.close()
    content = path.read_bytes()
    for length in random.Random(1).sample(range(1, len(content)), 50):
        path.write_bytes(content[:length])
        with pytest.raises(JournalError, match=r"restore a backup|see to the disk"):
            numbers_in(path)


def test_flipped_bits_end_in_a_journal_error_or_do_not_change_the_list_of_jobs(tmp_path):
    path = tmp_path / "j.db"
    journal = SqliteJournal.open(path, "os")
    fill(journal, range(200), size=300)
    journal.close()
    content, dice = path.read_bytes(), random.Random(2)
    refused = 0
    for _ in range(200):
        damaged = bytearray(content)
        damaged[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        try:
            numbers_in(path)
        except JournalError:
            refused += 1
        path.with_name("j.db-wal").unlink(missing_ok=True)
    assert refused > 0


def test_a_log_that_was_cut_short_is_refused_and_then_gives_the_commits_before_the_cut(tmp_path):
    """A mark tells that there was more; without it, each commit is there as a whole or not at all."""
    path, log, mark = tmp_path / "j.db", tmp_path / "j.db-wal", tmp_path / "j.db.mark"
    journal = SqliteJournal.open(path, "os")
    for number in range(0, 100, 5):
        journal.append([(n, event(n)) for n in range(number, number + 5)])
    database, whole, claim = path.read_bytes(), log.read_bytes(), mark.read_bytes()
    journal.close()

    def lay(path: Path, database: bytes, log_content: bytes) -> None:
        path.write_bytes(database)
        log.write_bytes(log_content)
        mark.write_bytes(claim)

    for length in random.Random(3).sample(range(len(whole)), 40):
        lay(path, database, whole[:length])
        with pytest.raises(JournalError, match=r"--accept-loss|no svc journal"):
            SqliteJournal.open(path, "os")
        lay(path, database, whole[:length])
        mark.unlink(missing_ok=True)
        try:
            found = numbers_in(path)
        except JournalError:  # the cut was before the first commit: there is no journal yet
            assert length < 20_000
            continue
        assert found == list(range(len(found)))
        assert len(found) % 5 == 0


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("/proc/j.db", r"/proc/j.db cannot be created .*choose a directory"),
        ("/dev/null/j.db", r"there is no directory /dev/null for the journal j.db"),
    ],
)
def test_a_place_where_no_file_can_be_made_is_told(place, told):
    with pytest.raises(JournalError, match=told):
        SqliteJournal.open(place)


def test_a_directory_in_place_of_the_file_is_told(tmp_path):
    with pytest.raises(JournalError, match="cannot be opened"):
        SqliteJournal.open(tmp_path)


def test_a_read_only_disk_is_told(tmp_path):
    with small_disk(tmp_path / "disk", 4096) as disk:
        SqliteJournal.open(disk / "j.db").close()
        remount(disk, "ro")
        with pytest.raises(JournalError, match=r"cannot be opened .*may read and write"):
            SqliteJournal.open(disk / "j.db")
        with pytest.raises(JournalError, match=r"cannot be created .*may write to"):
            SqliteJournal.open(disk / "new.db")


def append_until_refused(journal: SqliteJournal) -> int:
    """Return the number of single rows that were accepted before the disk was full."""
    accepted = 0
    with pytest.raises(JournalError, match=r"is full.*start the manager again"):  # noqa: PT012  # how many?
        while accepted < 100_000:
            journal.append([(accepted, event(accepted, 1000))])
            accepted += 1
    return accepted


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_a_full_disk_ends_the_journal_and_loses_nothing_accepted(tmp_path, durability):
    with small_disk(tmp_path / "disk", 2048) as disk:
        path = disk / "j.db"
        journal = SqliteJournal.open(path, durability)
        accepted = append_until_refused(journal)
        assert accepted > 100
        with pytest.raises(JournalError, match="is full"):
            journal.append([])
        journal.close()
        remount(disk, "size=8192k")
        assert numbers_in(path) == list(range(accepted))


def test_a_disk_without_room_for_a_new_journal_is_told(tmp_path):
    with small_disk(tmp_path / "disk", 2048) as disk:
        (disk / "filler").write_bytes(b"\0" * 2_080_000)
        with pytest.raises(JournalError, match=r"cannot be opened .*the disk has room"):
            SqliteJournal.open(disk / "j.db")
        (disk / "filler").unlink()
        assert numbers_in(disk / "j.db") == []


def test_a_checkpoint_on_a_full_disk_is_put_off(tmp_path):
    with small_disk(tmp_path / "disk", 2048) as disk:
        journal = SqliteJournal.open(disk / "j.db")
        fill(journal, range(100), size=1000)
        free = journal.free_bytes()
        (disk / "filler").write_bytes(b"\0" * (free - 65536))
        waiting = journal.wal_bytes
        journal.checkpoint()
        assert journal.wal_bytes == waiting
        (disk / "filler").unlink()
        journal.checkpoint()
        assert journal.wal_bytes == 0
        fill(journal, range(100, 110))
        journal.close()
        assert numbers_in(disk / "j.db") == list(range(110))


@pytest.fixture
def disk() -> Iterator[Disk]:
    with recorded_disk() as disk:
        yield disk


def test_after_a_failed_sync_nothing_is_accepted_and_nothing_more_is_written(tmp_path, disk):
    """The kernel may have marked the pages clean: a second sync would then wrongly succeed."""
    path = tmp_path / "j.db"
    journal = SqliteJournal.open(path)
    fill(journal, range(10))
    disk.failing = True
    with pytest.raises(JournalError, match="cannot be written"):
        journal.append([(10, event(10))])
    disk.failing = False
    written = len(disk.history)
    with pytest.raises(JournalError, match="cannot be written"):
        journal.append([(11, event(11))])
    with pytest.raises(JournalError, match="cannot be written"):
        journal.checkpoint()
    journal.close()
    assert len(disk.history) == written
    assert numbers_in(path)[:10] == list(range(10))


def test_a_failed_sync_in_a_checkpoint_ends_the_journal_too(tmp_path, disk):
    path = tmp_path / "j.db"
    journal = SqliteJournal.open(path)
    fill(journal, range(10))
    disk.failing = True
    with pytest.raises(JournalError, match="cannot be checkpointed"):
        journal.checkpoint()
    disk.failing = False
    with pytest.raises(JournalError):
        journal.append([(10, event(10))])
    journal.close()
    assert numbers_in(path) == list(range(10))


def after_power_loss(history: list[tuple[str, str, int, bytes]], dice: random.Random) -> dict[str, bytearray]:
    """Return the files as a disk may hold them: all synced writes; later ones whole, in part or not."""
    files: dict[str, bytearray] = {}
    synced = {name: place for place, (kind, name, _, _) in enumerate(history) if kind == "sync"}
    for place, (kind, name, offset, data) in enumerate(history):
        file = files.setdefault(name, bytearray())
        lost = place > synced.get(name, -1) and dice.random() < 0.5
        if kind == "truncate":
            del file[offset:]
        elif kind == "write" and not lost:
            file.extend(bytes(max(0, offset + len(data) - len(file))))
            file[offset : offset + len(data)] = data
    return files


@pytest.mark.parametrize("seed", range(4))
def test_a_synced_append_survives_power_loss_at_any_moment(tmp_path, disk, seed, record_property):
    """Cut the power after each sync and between: drop unsynced writes at random, start, and count."""
    journal = SqliteJournal.open(tmp_path / "j.db")
    accepted: list[tuple[int, int]] = []
    for number in range(40):
        journal.append([(number, event(number, 700))])
        accepted.append((len(disk.history), number))
        if number % 15 == 14:
            journal.checkpoint()
    journal.close()
    dice = random.Random(seed)
    for cut in sorted(dice.sample(range(accepted[0][0], len(disk.history)), 60)):
        image = tmp_path / f"cut{cut}"
        image.mkdir()
        for name, content in after_power_loss(disk.history[:cut], dice).items():
            if not name.endswith("-journal"):
                (image / name).write_bytes(content)
        promised = [number for place, number in accepted if place <= cut]
        found = numbers_in(image / "j.db")
        assert found[: len(promised)] == promised, f"seed {seed}, cut {cut}"
        assert len(found) <= len(promised) + 1
    record_property("F6 cut the power at random, dropping unsynced writes", 60)
