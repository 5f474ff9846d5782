"""Large values with real processes: memory, kills in the middle of a transfer, the command line, backups."""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

import svc
from benchmarks.large_values import Watch
from svc import Client
from svc.broker.base import Broker
from svc.broker.manager import ManagerBroker
from svc.client.client import BrokerClient
from svc.domain import commands as c
from svc.domain.limits import Limits
from svc.domain.names import LARGE
from svc.domain.roles import Role
from svc.errors import Forbidden, JournalFull, LeaseLost, QueueFull
from svc.server.journal import SqliteJournal
from svc.server.journal.large_rows import large_rows_bytes, large_rows_path
from svc.server.keys import Key, KeyRing
from tests.support.asking import lease_one, submit
from tests.support.large_tasks import MEBIBYTE, made
from tests.support.manager import running_manager
from tests.support.processes import descendants
from tests.support.small_disk import small_disk
from tests.support.svc import SVC, Host, end, environment, until

TASKS = "tests.support.large_tasks"
#: MiB of the values whose transfer is measured, and what the processes may take beside the value itself.
SIZE, MANAGER_MORE, OTHERS_MORE = 160, 64, 128
T = TypeVar("T")


class Service:
    """A manager with its journal, a worker of one consumer, and a client."""

    def __init__(self, folder: Path) -> None:
        self.host = Host(folder)
        self.files = folder / "files"
        self.files.mkdir()
        self.host.env |= {"TMPDIR": str(self.files), "LARGE_TASKS_FOLDER": str(folder)}
        self.journal = folder / "journal.db"
        self.manager = self.host.start_manager("127.0.0.1:0", *self.flags)
        self.worker = self.host.start_worker("--tasks", TASKS, "--consumers", "1")
        self.client = Client(self.host.env["SVC_MANAGER"], authkey_file=folder / "authkey")

    @property
    def flags(self) -> tuple[str, ...]:
        return "--journal", str(self.journal), "--max-job-bytes", "100KiB"

    def task(self, name: str, *args: object, **kwargs: object) -> svc.Job:
        return self.client.submit(f"{TASKS}:{name}", *args, **kwargs)

    def restart_manager(self) -> None:
        self.manager.kill()
        self.manager.wait()
        self.manager = self.host.start_manager(self.host.env["SVC_MANAGER"], *self.flags)

    def consumers(self) -> list[int]:
        return [pid for pid in descendants(self.worker.pid) if b"consumer" in _command(pid)]

    def close(self) -> None:
        self.client.close()
        end(self.worker, self.manager)
        self.host.log.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("large"))
    yield service
    service.close()


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def grown(pids: list[int], action: Callable[[], T]) -> tuple[T, list[int]]:
    """Return the result of *action*, and by how many MiB each process has grown at most meanwhile."""
    watches = [Watch(pid) for pid in pids]
    found = action()
    return found, [watch.end() // MEBIBYTE for watch in watches]


# --- memory -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_memory_of_all_processes_is_flat(service, tmp_path):
    assert service.task("echo", bytes(150_000)).result(60) == bytes(150_000)
    pids = [os.getpid(), service.manager.pid, *service.consumers()]
    assert len(pids) == 3
    value = made(SIZE)

    size, (client, manager, consumer) = grown(pids, service.task("size_of", value).result)
    assert size == len(value)
    assert client < OTHERS_MORE
    assert manager < MANAGER_MORE
    assert consumer < SIZE + OTHERS_MORE

    path = tmp_path / "value"
    path.write_bytes(value)
    digest = hashlib.sha256(value).hexdigest()
    del value
    found, (client, manager, consumer) = grown(pids, service.task("digest", svc.File(path)).result)
    assert found == ["value", SIZE * MEBIBYTE, digest]
    assert client < OTHERS_MORE
    assert manager < MANAGER_MORE
    assert consumer < OTHERS_MORE

    job = service.task("written", SIZE)
    file, (client, manager, consumer) = grown(pids, job.result)
    assert hashlib.sha256(file.path.read_bytes()).hexdigest() == digest
    assert client < OTHERS_MORE
    assert manager < MANAGER_MORE
    assert consumer < OTHERS_MORE
    assert job.save(tmp_path / "copy").stat().st_size == SIZE * MEBIBYTE


# --- kills in the middle ------------------------------------------------------------------------------------


def test_a_transfer_goes_on_when_the_manager_was_killed_in_its_middle(service):
    value = made(48)
    jobs: list[svc.Job] = []
    thread = threading.Thread(target=lambda: jobs.append(service.task("echo", value)))
    before = large_rows_bytes(service.journal)
    thread.start()
    until(lambda: large_rows_bytes(service.journal) > before + 8 * MEBIBYTE, "some pieces came")
    service.restart_manager()
    thread.join(60)
    assert jobs[0].result(60) == value


def test_a_result_arrives_though_the_manager_was_killed_while_it_was_stored(service):
    before = large_rows_bytes(service.journal)
    job = service.task("made", 48)
    until(lambda: large_rows_bytes(service.journal) > before + 8 * MEBIBYTE, "some pieces came")
    service.restart_manager()
    assert job.result(60) == made(48)


def test_a_killed_consumer_leaves_no_file_and_its_job_runs_again(service, tmp_path):
    (tmp_path / "scan").write_bytes(made(3))
    told = service.host.folder / "where"
    told.unlink(missing_ok=True)
    job = service.task("slow", svc.File(tmp_path / "scan"), 60.0)
    where = Path(until(lambda: told.exists() and told.read_text(), "the task has its file"))
    assert where.exists()
    os.kill(service.consumers()[0], signal.SIGKILL)
    assert Path(str(job.result(60))) != where
    until(lambda: not where.parent.parent.exists(), "the directory of the killed consumer is gone")
    until(lambda: not list(service.files.glob("svc-files-*/*/*")), "its successor has removed its own file")


def test_pieces_of_a_killed_client_are_removed(tmp_path):
    limits = Limits(max_job_bytes=100_000, unclaimed_seconds=2.0)
    journal = SqliteJournal.open(tmp_path / "journal.db")
    with running_manager(journal, limits) as manager:
        program = (
            "from svc.broker.manager import ManagerBroker\n"
            "from svc.client.client import BrokerClient\n"
            f"key = bytes.fromhex('{manager.authkey.hex()}')\n"
            f"client = BrokerClient(lambda: ManagerBroker({manager.endpoint!r}, key))\n"
            "client.submit('m:f', bytes(1 << 30))\n"
        )
        client = subprocess.Popen([sys.executable, "-c", program], env=environment())
        until(lambda: large_rows_bytes(tmp_path / "journal.db") > 4 * MEBIBYTE, "some pieces came")
        client.kill()
        client.wait()
        # The newest row of a journal stays until there is a newer one.
        until(lambda: large_rows_bytes(tmp_path / "journal.db") < 2 * MEBIBYTE, "the pieces are removed")
        with manager.broker() as broker:
            submit(broker)
            assert len(broker.find(c.List())) == 1
            until(lambda: not large_rows_bytes(tmp_path / "journal.db"), "the last one is removed")


# --- bounds and rights --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_value_that_a_small_disk_has_no_room_for_is_refused_and_nothing_else(tmp_path):
    with small_disk(tmp_path / "disk", 64 * 1024) as disk:
        limits = Limits(max_job_bytes=100_000, min_free_bytes=16 * MEBIBYTE)
        journal = SqliteJournal.open(disk / "journal.db", ballast_bytes=0)
        with running_manager(journal, limits) as manager:
            manager.server.scarcity.min_free_bytes = limits.min_free_bytes
            manager.until(lambda: manager.host.state.free_bytes < 1 << 40)
            with BrokerClient(manager.broker) as client:
                first = client.submit("m:f", made(24))
                with pytest.raises(JournalFull):
                    client.submit("m:f", made(40))
                assert client.cancel([first]) == 1
                manager.until(lambda: not large_rows_bytes(disk / "journal.db"))


def test_a_submitter_stores_and_reads_for_its_own_jobs_alone():
    keys = {role: secrets.token_bytes(32) for role in (Role.SUBMIT, Role.WORK, Role.READ)}
    ring = KeyRing(Key(role, key) for role, key in keys.items())
    limits = Limits(max_job_bytes=100_000, piece_bytes=MEBIBYTE)
    with running_manager(limits=limits, keys=ring) as manager:
        client = {
            role: BrokerClient(partial(ManagerBroker, manager.endpoint, key)) for role, key in keys.items()
        }
        job = client[Role.SUBMIT].submit("m:f", made(2))
        for role in (Role.WORK, Role.READ):
            with pytest.raises(Forbidden):
                client[role].submit("m:f", made(2))
        manager.authkey = keys[Role.WORK]
        hello = c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"], accept=["plain", LARGE])
        with manager.broker(lambda: hello) as worker, manager.broker() as other:
            delivery = lease_one(worker)
            ask = c.FetchArgument(delivery.token, 0, 1, 0)
            assert worker.fetch([ask]) == other.fetch([ask]) == [made(1)]
            with pytest.raises(LeaseLost):
                worker.fetch([c.FetchArgument(delivery.token + 1, 0, 1, 0)])
            with pytest.raises(Forbidden):
                worker.store([c.StorePiece("o", 0, 1, 1, 0, b"x")])
            worker.store([c.StoreResultPiece(delivery.token, 0, 5, 0, b"12345")])
            worker.settle([c.Ack(delivery.token, 0, [b"r"], [0.1], [0])])
            with pytest.raises(Forbidden):
                worker.fetch([c.FetchResult(job.id, 0)])
        for role in (Role.SUBMIT, Role.READ):
            assert client[role]._session.transfer(_result(job.id)) == [b"12345"]
        with pytest.raises(svc.UnknownJob):
            client[Role.SUBMIT]._session.transfer(_result("0123456789abc-0"))
        with pytest.raises(Forbidden):
            client[Role.SUBMIT]._session.transfer(_result("put1-0"))
        with pytest.raises(Forbidden):
            client[Role.SUBMIT]._session.transfer(lambda broker: broker.fetch([ask]))
        for each in client.values():
            each.close()


def _result(job: str) -> Callable[[Broker], list[bytes]]:
    return lambda broker: broker.fetch([c.FetchResult(job, 0)])


def test_a_bound_on_all_values_is_told(tmp_path):
    limits = Limits(max_job_bytes=100_000, all_values_bytes=8 * MEBIBYTE)
    with running_manager(limits=limits) as manager, BrokerClient(manager.broker) as client:
        client.submit("m:f", made(4))
        with pytest.raises(QueueFull, match="--max-values"):
            client.submit("m:f", made(4))


# --- command line, backups ----------------------------------------------------------------------------------


def test_the_command_line_streams_large_files(service, tmp_path):
    (tmp_path / "in").write_bytes(made(4))
    run = service.host.svc
    shown = run("submit", f"{TASKS}:echo", "--input", f"value=@{tmp_path / 'in'}")
    name = shown.stdout.strip()
    assert run("results", name, "--output", str(tmp_path / "out")).returncode == 0
    assert (tmp_path / "out").read_bytes() == made(4)

    piped = subprocess.run(
        [*SVC, "results", name, "--output", "-"], env=service.host.env, capture_output=True, check=True
    )
    assert piped.stdout == made(4)
    told = run("jobs", "show", name)
    assert "value=<bytes of 4194304 bytes>" in told.stdout
    assert "--output FILE" in told.stdout
    line = run("results", name)
    assert "--output FILE" in line.stderr


def test_a_backup_has_the_large_values(service, tmp_path):
    run = service.host.svc
    run("jobs", "purge", "--all", "--yes")
    job = service.task("made", 3)
    assert job.result(60) == made(3)
    backup = Path(run("journal", "backup", f"{tmp_path.name}.db").stdout.split()[0])
    restored = tmp_path / "restored.db"
    assert run("journal", "restore", str(backup), "--journal", str(restored)).returncode == 0
    assert run("journal", "verify", "--journal", str(restored)).returncode == 0
    limits = Limits(max_job_bytes=100_000)
    with (
        running_manager(SqliteJournal.open(restored), limits) as manager,
        BrokerClient(manager.broker) as client,
    ):
        assert client.result(job.id, 60) == made(3)


def test_nothing_is_left_when_all_jobs_are_purged(service):
    assert large_rows_bytes(service.journal)
    service.host.svc("jobs", "purge", "--all", "--yes")
    until(lambda: not any(large_rows_path(service.journal).iterdir()), "all pieces are removed")
