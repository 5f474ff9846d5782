"""Journals whose files disappear while a manager has them, and file systems whose locks do nothing."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest

from svc.domain.events import AnyEvent, Submitted
from svc.domain.job import Terms
from svc.errors import Conflict, JournalError
from svc.server.journal import SqliteJournal, ownership, presence
from svc.server.journal.files import TIMED, file_system
from tests.support.lockless import LocklessLayer
from tests.support.small_disk import bind_mount, small_disk

TERMS = Terms("module:function")
LARGE = 300_000


def event(number: int, size: int = 100) -> AnyEvent:
    return Submitted(float(number), "o", number, TERMS, [b"x" * size])


def replace(path: Path) -> None:
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


LOSSES: dict[str, Callable[[Path], object]] = {
    "the file is deleted": lambda path: path.unlink(),
    "its log is deleted": lambda path: Path(f"{path}-wal").unlink(),
    "its large rows are deleted": lambda path: shutil.rmtree(f"{path}.large"),
    "the file is replaced": replace,
    "its log is replaced": lambda path: replace(Path(f"{path}-wal")),
    "the directory is renamed": lambda path: path.parent.rename(path.parent.with_name("elsewhere")),
    "the directory is deleted": lambda path: shutil.rmtree(path.parent),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "j.db"
    path.parent.mkdir()
    return path


@pytest.fixture(params=["its directory has just changed", "its directory is as it was"])
def journal(
    request: pytest.FixtureRequest, path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SqliteJournal]:
    """A journal with a large row; its directory has just changed, or has been the same for a while."""
    monkeypatch.setattr(presence, "SETTLED_SECONDS", 0.05)
    journal = SqliteJournal.open(path)
    journal.append([(0, event(0, LARGE))])
    journal.append([(1, event(1))])
    if request.param == "its directory is as it was":
        if file_system(path) not in TIMED:
            pytest.skip(f"each commit looks at all files on {file_system(path)}")
        deadline = time.monotonic() + 60
        while journal._place == presence.UNSETTLED:
            assert time.monotonic() < deadline, "the directory did not settle"
            journal.reserve()
    yield journal
    journal.close()


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_is_acknowledged_once_the_files_are_not_in_their_place(
    loss: str, path: Path, journal: SqliteJournal
):
    LOSSES[loss](path)
    with pytest.raises(JournalError, match="though this manager has it open"):
        journal.append([(2, event(2))])
    with pytest.raises(JournalError):
        journal.append([(3, event(3))])


@pytest.mark.parametrize("loss", LOSSES)
def test_a_manager_that_is_idle_notices_too(loss: str, path: Path, journal: SqliteJournal):
    LOSSES[loss](path)
    with pytest.raises(JournalError, match="though this manager has it open"):
        journal.reserve()


@pytest.mark.parametrize("part", ["", "-wal", ".large"])
def test_a_part_that_another_mount_hides_is_noticed(part: str, path: Path, journal: SqliteJournal):
    other = path.with_name("other")
    other.mkdir() if part == ".large" else other.touch()
    journal.reserve()
    with bind_mount(other, Path(f"{path}{part}")):
        with pytest.raises(JournalError, match="is another file now"):
            journal.append([(2, event(2))])
        journal.close()


def test_files_that_stay_in_place_cost_one_look_at_their_directory(
    path: Path, journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch
):
    settled = journal._place != presence.UNSETTLED
    # Anybody's mount on this machine, such as a container's, costs a look too.
    monkeypatch.setattr(journal._presence, "mounts", SimpleNamespace(poll=lambda _seconds: []))
    looks: list[None] = []
    monkeypatch.setattr(journal, "_look", lambda: looks.append(None))
    for number in range(2, 12):
        journal.append([(number, event(number))])
    assert len(looks) == (0 if settled else 10)
    path.with_name("another file").touch()
    journal.append([(12, event(12))])
    assert looks, "a change of the directory is followed by a look at all files"


@pytest.mark.parametrize(
    ("changed_ns", "now", "settled"),
    [
        (1_700_000_000_004_000_000, 1_700_000_000.05, False),
        (1_700_000_000_004_000_000, 1_700_000_000.2, True),
        (1_700_000_000_000_000_000, 1_700_000_000.99, False),
        (1_700_000_000_000_000_000, 1_700_000_001.6, True),
        (1_700_000_000_004_000_000, 1_699_999_999.0, False),
    ],
)
def test_a_clock_of_whole_seconds_takes_longer_to_tell_two_changes_apart(
    changed_ns: int, now: float, settled: bool
):
    assert presence.has_settled(changed_ns, now) is settled


def test_a_file_behind_a_symbolic_link_is_looked_at_with_each_commit(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(presence, "SETTLED_SECONDS", 0.0)
    real = tmp_path / "elsewhere" / "j.db"
    real.parent.mkdir()
    SqliteJournal.open(real).close()
    path.symlink_to(real)
    journal = SqliteJournal.open(path)
    journal.append([(0, event(0))])
    real.unlink()
    with pytest.raises(JournalError, match="is gone"):
        journal.append([(1, event(1))])
    journal.close()


def test_a_disk_that_is_mounted_over_the_directory_is_noticed(path: Path):
    journal = SqliteJournal.open(path)
    journal.append([(0, event(0))])
    with small_disk(path.parent, 4096):
        with pytest.raises(JournalError, match="is gone"):
            journal.append([(1, event(1))])
        journal.close()


def test_a_manager_process_ends_by_itself_with_one_clear_line(path: Path, tmp_path: Path):
    key = tmp_path / "key"
    key.write_text("k" * 64)
    key.chmod(0o600)
    command = [sys.executable, "-m", "svc", "manager", "--listen", "127.0.0.1:0", "--http", "off"]
    command += ["--authkey-file", str(key), "--journal", str(path), "--log-format", "json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as manager:
        assert manager.stderr is not None
        lines = iter(manager.stderr)
        assert any("journal_created" in line for line in lines)
        assert any("manager_started" in line for line in lines)
        path.unlink()
        rest = "".join(lines)
        assert manager.wait(60) == 1
    assert "though this manager has it open" in rest
    assert "Traceback" not in rest


@pytest.mark.parametrize("missing", ["the file", "the directory"])
def test_a_journal_that_has_to_exist_is_not_made(missing: str, path: Path):
    if missing == "the directory":
        path.parent.rmdir()
    with pytest.raises(JournalError, match="is its disk mounted"):
        SqliteJournal.open(path, must_exist=True)
    assert not path.exists()
    path.parent.mkdir(exist_ok=True)
    SqliteJournal.open(path).close()
    journal = SqliteJournal.open(path, must_exist=True)
    assert not journal.created
    journal.close()


# --- locks that do nothing --------------------------------------------------------------------------


@pytest.fixture
def lockless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file system on which no lock does anything, and managers that check a little faster."""
    layer = LocklessLayer()
    monkeypatch.setattr(ownership, "_lock", lambda file: True)
    monkeypatch.setattr(ownership, "CHECK_SECONDS", 0.1)
    yield
    layer.unregister()


@pytest.mark.usefixtures("lockless")
def test_locks_that_do_nothing_are_found_out_and_refused(path: Path):
    with pytest.raises(JournalError, match="accept-network-filesystem"):
        SqliteJournal.open(path)


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "fuse.sshfs", "fuse.glusterfs", "9p"])
def test_a_network_file_system_is_refused_unless_it_is_accepted(
    kind: str, path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ownership, "file_system", lambda place: kind)
    with pytest.raises(JournalError, match=kind):
        SqliteJournal.open(path)
    SqliteJournal.open(path, accept_network=True).close()


def test_the_file_system_of_a_place_is_what_the_kernel_says(tmp_path: Path):
    said = subprocess.run(
        ["findmnt", "-no", "FSTYPE", "-T", tmp_path], capture_output=True, text=True, check=True
    )
    assert file_system(tmp_path / "file") == said.stdout.strip()
    with small_disk(tmp_path / "disk", 4096) as disk:
        assert file_system(disk / "file") == "tmpfs"


@pytest.mark.usefixtures("lockless")
def test_of_two_managers_without_locks_the_first_stops_before_the_second_writes(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The second one's wait lasts here until the first has noticed, however slow the disk is."""
    first = SqliteJournal.open(path, accept_network=True)
    accepted: list[int] = []
    refusals: list[str] = []

    def serve() -> None:
        try:
            while True:
                first.append([(len(accepted), event(len(accepted)))])
                accepted.append(len(accepted))
        except JournalError as error:
            refusals.append(str(error))

    thread = threading.Thread(target=serve)
    thread.start()
    while len(accepted) < 20:
        time.sleep(0.001)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        thread.join(60)

    monkeypatch.setattr(ownership, "time", SimpleNamespace(sleep=wait, monotonic=time.monotonic))
    second = SqliteJournal.open(path, accept_network=True)
    assert not thread.is_alive()
    assert waits == [ownership.TAKEOVER_SECONDS]
    assert f"process {os.getpid()}" in refusals[0]
    found = [number for number, _ in second.replay()]
    assert found == accepted
    second.append([(len(accepted), event(len(accepted)))])
    with pytest.raises(JournalError, match="belongs to"):
        first.append([(len(accepted), event(len(accepted)))])
    first.close()
    second.append([(len(accepted) + 1, event(len(accepted) + 1))])
    second.close()
    (check,) = apsw.Connection(str(path)).execute("PRAGMA integrity_check").fetchall()
    assert check == ("ok",)


def test_a_second_manager_on_a_local_disk_is_told_at_once(path: Path):
    first = SqliteJournal.open(path)
    with pytest.raises(Conflict, match="in use by another process"):
        SqliteJournal.open(path)
    first.append([(0, event(0))])
    first.close()
    assert not Path(f"{path}.owner").exists()


def test_a_manager_without_a_free_descriptor_stays_the_owner(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ownership, "CHECK_SECONDS", 0.0)
    journal = SqliteJournal.open(path)
    journal.append([(0, event(0))])
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            path.open("rb").close()
        journal.append([(1, event(1))])
        journal.reserve()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    journal.append([(2, event(2))])
    journal.close()
