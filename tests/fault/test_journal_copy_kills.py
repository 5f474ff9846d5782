"""`svc journal copy` dies by SIGKILL at each named place; nobody serves a part, and the next run ends it."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from svc.domain.events import AnyEvent, Failed, Range, Submitted, Succeeded
from svc.domain.job import Cause, ErrorInfo
from svc.errors import CopyIncomplete, JournalError, JournalMoved
from svc.server.journal import SqliteJournal
from tests.support.journal_copies import (
    PLACES,
    Place,
    checks,
    copied,
    described,
    new_place,
    opened,
    rows,
    write,
)
from tests.support.journals import TERMS, event, failed, traceback_with
from tests.support.small_disk import remount, small_disk
from tests.support.svc import ROOT, environment

KILLED = "tests.support.journal_copies"
KILLED_BY_DISK = "tests.support.journal_kills"
KINDS = [("file", "stream"), ("stream", "file")]
AT = ["begun", "put:4", "verified", "moved", "complete"]
#: Ten batches of rows, one of them larger than a message of NATS.
RECORDS = [
    *[(number, event(number, 100_000)) for number in range(1, 41)],
    (41, event(41, 3 << 20)),
    *[(number, failed(number, ErrorInfo("E", "m", traceback_with("m")))) for number in range(42, 60)],
]


def copy(source: Place, target: Place, *options: str, module: tuple[str, ...] = ("svc",)) -> Any:
    """Run `svc journal copy` in a process of its own; return its JSON, or its negative exit code."""
    words = ("journal", "copy", str(source), str(target), "--journal-replicas", "1", "--json", *options)
    ended = subprocess.run(
        [sys.executable, "-m", *module, *words],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    return ended.returncode if ended.returncode < 0 else json.loads(ended.stdout or ended.stderr)


def is_served(place: Place, folder: Path) -> bool:
    """Return whether a manager would serve the journal at *place*."""
    try:
        opened(place, folder).close()
    except (CopyIncomplete, JournalMoved):
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kinds", "place"), [*itertools.product(KINDS, AT), (KINDS[0], "in_frame:9")], ids=str
)
def test_a_killed_move_leaves_one_journal_to_serve_at_most_and_is_completed(
    tmp_path: Path, kinds: tuple[str, str], place: str, record_property: Any
):
    name = place.partition(":")[0]
    assert name in PLACES
    source, target = (new_place(kind, tmp_path) for kind in kinds)
    write(source, tmp_path, RECORDS, [7])
    wanted = rows(source, tmp_path)
    assert copy(source, target, "--move", module=(KILLED, place)) == -signal.SIGKILL, "it was never there"
    if name == "complete":
        assert not is_served(source, tmp_path)
    else:
        assert not is_served(target, tmp_path)
        assert described(source).moved_to == (str(target) if name == "moved" else "")
    report = copy(source, target, "--move")
    kept = {"begun": -1, "in_frame": 30, "put": 20}.get(name, 59)
    assert report["kept"] == pytest.approx(kept, abs=12)
    assert report["contents"]["rows"] == len(wanted)
    assert all(checks(target).values())
    assert not is_served(source, tmp_path)
    assert rows(target, tmp_path) == wanted
    record_property(f"kill -9 a copy of a journal: {name.replace('_', ' ')}", 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "place", ["before_write:40", "before_write:900", "before_sync:3", "in_checkpoint:20"]
)
def test_a_copy_killed_while_its_file_is_written_is_completed(
    tmp_path: Path, place: str, record_property: Any
):
    source, target = tmp_path / "a.db", tmp_path / "b.db"
    write(source, tmp_path, RECORDS, [7])
    assert copy(source, target, module=(KILLED_BY_DISK, place)) == -signal.SIGKILL, "it was never there"
    assert not is_served(target, tmp_path)
    copy(source, target)
    assert rows(target, tmp_path) == rows(source, tmp_path)
    record_property(f"kill -9 a copy of a journal {place.partition(':')[0].replace('_', ' ')}", 1)


def test_a_copy_onto_a_disk_that_fills_up_says_so_and_goes_on_once_there_is_room(
    tmp_path: Path, record_property: Any
):
    source = tmp_path / "a.db"
    write(source, tmp_path, RECORDS, [7])
    with small_disk(tmp_path / "disk", 10 * 1024) as disk:
        with pytest.raises(JournalError, match="is full; make room and run the same command again"):
            copied(source, disk / "b.db")
        remount(disk, "size=64m")
        assert not is_served(disk / "b.db", tmp_path)
        report = copied(source, disk / "b.db", move=True)
        assert 0 < report.kept < report.contents.newest
        assert len(rows(disk / "b.db", tmp_path)) == len(RECORDS) - 1
    record_property("a copy of a journal fills its disk", 1)


# --- a million jobs --------------------------------------------------------------------------------

JOBS = 1_000_000
_ALONE = JOBS // 4


def million() -> Iterator[tuple[int, AnyEvent]]:
    """Yield the rows of a million jobs: a quarter has a row each, half of the others have ended."""
    number = 0
    for number in range(1, _ALONE + 1):
        yield number, Submitted(float(number), "alone", number, TERMS, [b"%0100d" % number])
    for first in range(0, JOBS - _ALONE, 1000):
        number += 1
        bodies = [b"%0100d" % job for job in range(first, first + 1000)]
        yield number, Submitted(float(number), "many", first, TERMS, bodies)
    for first in range(0, (JOBS - _ALONE) // 2, 500):
        number += 1
        results = Range("many", first, (1 << 40) + first, [b"%020d" % first] * 500, [0.25] * 500)
        yield number, Succeeded(float(number), [results])
    error = ErrorInfo("ValueError", "no", traceback_with("no"))
    for job in range(1, 20_001):
        number += 1
        yield number, Failed(float(number), "alone", job, Cause.FAILED, error, None, 0.1, "w", job, 1)


def write_million(path: Path) -> None:
    """Make a journal with them."""
    journal, batch = SqliteJournal.open(path, "os"), list[tuple[int, AnyEvent]]()
    for record in million():
        batch.append(record)
        if len(batch) == 1000:
            journal.append(batch)
            batch = []
    journal.append(batch)
    journal.close()


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_million_jobs_are_moved_both_ways_killed_in_the_middle_and_are_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], record_property: Any
):
    first, stream, last = tmp_path / "a.db", new_place("stream", tmp_path), tmp_path / "b.db"
    write_million(first)
    contents = []
    for source, target, puts in ((first, stream, "put:150"), (stream, last, "put:150")):
        began = time.monotonic()
        assert copy(source, target, "--move", module=(KILLED, puts)) == -signal.SIGKILL
        middle = time.monotonic()
        report = copy(source, target, "--move")
        assert 0 < report["kept"] < report["contents"]["newest"], "it was not killed in the middle"
        contents.append(report["contents"])
        with capsys.disabled():
            print(  # noqa: T201 - the figures are what the test is run for
                f"\n{source} to {target}: killed after {middle - began:.1f} s at row {report['kept']}, "
                f"completed in {time.monotonic() - middle:.1f} s: {report['contents']}"
            )
    assert contents[0] == contents[1]
    assert sum(contents[0]["states"]["default"].values()) == JOBS
    assert all(checks(last).values())
    record_property("kill -9 a copy of 1,000,000 jobs in the middle", 2)
