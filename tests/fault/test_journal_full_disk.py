"""The disk fills up and empties again: acks go on, new jobs are refused, nothing is lost (F8, I13)."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from svc.broker.manager import ManagerBroker
from svc.domain import commands as c
from svc.domain.job import NewChunk, Terms
from svc.domain.limits import Limits
from svc.errors import JournalError
from svc.server.journal import SqliteJournal
from tests.support.asking import record
from tests.support.journals import event, rows_of
from tests.support.manager import running_manager
from tests.support.small_disk import small_disk

BALLAST = 4 << 20
LIMITS = Limits(min_free_bytes=2 << 20)
CYCLES, JOBS = 5, 200


def fill(disk: Path, leave: int) -> Path:
    """Fill the file system except for about *leave* bytes."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        while True:
            space = os.statvfs(disk)
            # The manager may take some of it meanwhile, for a checkpoint for example.
            with suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - leave)
                return filler
            file.truncate(0)


def appended_until_refused(journal: SqliteJournal, limit: int) -> int:
    for number in range(limit):
        try:
            journal.append([(number, event(number, 1000))])
        except JournalError:
            return number
    return limit


@pytest.mark.parametrize("ballast", [0, 1 << 20])
def test_the_ballast_is_room_for_hundreds_of_commits_that_without_it_would_end_the_journal(tmp_path, ballast):
    with small_disk(tmp_path / "disk", 8192) as disk:
        journal = SqliteJournal.open(disk / "j.db", ballast_bytes=ballast)
        fill(disk, 64 << 10)
        accepted = appended_until_refused(journal, 100_000)
        journal.close()
        (disk / "filler").unlink()
        assert [number for number, _ in rows_of(disk / "j.db")] == list(range(accepted))
    assert (accepted > 150) == bool(ballast), accepted


def test_the_commit_that_found_no_room_is_whole_after_the_ballast_is_given_up(tmp_path):
    with small_disk(tmp_path / "disk", 8192) as disk:
        path = disk / "j.db"
        journal = SqliteJournal.open(path, ballast_bytes=2 << 20)
        fill(disk, 16 << 10)
        rows = [(number, event(number, 1000)) for number in range(300)]
        journal.append(rows)
        assert not path.with_name("j.db.ballast").exists()
        assert list(journal.replay()) == rows
        journal.close()


def test_the_room_that_is_told_of_does_not_depend_on_who_holds_the_ballast(tmp_path):
    with small_disk(tmp_path / "disk", 8192) as disk:
        journal = SqliteJournal.open(disk / "j.db", ballast_bytes=2 << 20)
        before = journal.free_bytes()
        journal._ballast.give_up()
        assert abs(journal.free_bytes() - before) <= 8192
        journal.reserve()
        assert (disk / "j.db.ballast").stat().st_size == 2 << 20
        journal.close()


def submit(broker: ManagerBroker, first: int, count: int) -> str:
    """Submit jobs; return the code of the refusal, or ""."""
    chunk = NewChunk(first, Terms("m:f"), [b"x" * 500] * count)
    notes = broker.submit("full", [chunk])
    return notes[0].code if notes else ""


def test_acks_go_on_and_new_jobs_are_refused_on_a_full_disk_through_cycles_of_a_filler(
    tmp_path, record_property
):
    with small_disk(tmp_path / "disk", 32 << 10) as disk:
        path = disk / "j.db"
        journal = SqliteJournal.open(path, ballast_bytes=BALLAST)
        with (
            running_manager(journal, LIMITS) as manager,
            manager.broker() as producer,
            manager.consumer() as consumer,
        ):
            manager.server.scarcity.min_free_bytes = LIMITS.min_free_bytes
            acknowledged = 0
            for cycle in range(CYCLES):
                assert submit(producer, cycle * JOBS, JOBS) == ""
                # Now, not while the disk is filled: a checkpoint that finds no room gives up the ballast, and
                # the filler would take that as well.
                manager.server.ask(journal.checkpoint).result(60)
                filler = fill(disk, 32 << 10)
                refused = cycle * JOBS + JOBS
                manager.until(lambda: bool(manager.host.state.refusal))
                assert submit(producer, refused, 1) == "journal_full"
                acknowledged += ack_all(consumer, JOBS)
                filler.unlink()
                manager.until(lambda: not manager.host.state.refusal)
                manager.until(lambda: not journal._ballast.missing)
            (queue,) = producer.stats().queues
            assert queue.succeeded == acknowledged == CYCLES * JOBS
        assert recovered_results(path) == CYCLES * JOBS
    record_property("F8 fill the disk, and free it", CYCLES)


def ack_all(consumer: ManagerBroker, count: int) -> int:
    """Take jobs one at a time and report a result for each; one result alone would fill the disk."""
    done = 0
    while done < count:
        turn = consumer.lease(limit=1, wait=timedelta(seconds=60))
        (delivery,) = turn.grant.deliveries
        record(consumer, c.Ack(delivery.token, delivery.first, [b"r" * 1000], [0.1]))
        done += 1
    return done


def recovered_results(path: Path) -> int:
    return sum(len(span.results) for _, found in rows_of(path) for span in getattr(found, "ranges", ()))
