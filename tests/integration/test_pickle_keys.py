"""A manager in the wrong hands: its journal is changed, with right checksums, and nobody runs that."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from svc.broker.manager import ManagerBroker
from svc.client.client import BrokerClient
from svc.client.executor import BrokerExecutor
from svc.client.specs import JobSpec, Options
from svc.domain.events import AnyEvent, Failed, Submitted, Succeeded
from svc.errors import CodecError, JobFailed, UntrustedPickle
from svc.server.journal import SqliteJournal
from svc.server.journal.store import rows_of
from tests.support.pickle_keys import PICKLE_KEYS
from tests.support.workers import KEY, TASKS, Manager, Worker, options, until


class Touch:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "code was run"


@pytest.fixture
def stolen(tmp_path: Path) -> Iterator[StolenManager]:
    manager = StolenManager(tmp_path / "journal")
    yield manager
    manager.end()


class StolenManager:
    """A manager on a journal that its thief rewrites between two of its lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manager = Manager(journal=SqliteJournal.open(path, "os"))
        self.manager.start()
        self.worker: Worker | None = None

    def client(self) -> BrokerClient:
        return BrokerClient(
            lambda: ManagerBroker(self.manager.address, KEY), accept=["pickle"], pickle_keys=PICKLE_KEYS
        )

    def work(self) -> Worker:
        served = options(1, accept=("plain", "pickle"))
        self.worker = Worker(self.manager.address, served)
        self.worker.start()
        return self.worker

    def rewrite(self, change: Callable[[AnyEvent], AnyEvent]) -> None:
        """Stop, change every event, with the checksums that belong to it, and serve again."""
        if self.worker is not None:
            self.worker.end()
        self.manager.stop()
        self.manager.journal.close()
        with sqlite3.connect(self.path) as connection:
            rows = connection.execute("SELECT seq, body FROM events").fetchall()
            for number, body in rows:
                event = change(msgspec.msgpack.decode(body, type=AnyEvent))
                ((_, changed, check, _),) = rows_of([(number, event)])
                connection.execute("UPDATE events SET body=?, crc=? WHERE seq=?", (changed, check, number))
        connection.close()
        self.manager.journal = SqliteJournal.open(self.path, "os")
        self.manager.start()

    def end(self) -> None:
        if self.worker is not None:
            self.worker.end()
        self.manager.stop()
        self.manager.journal.close()


def test_a_worker_runs_nothing_that_a_stolen_manager_made_up_or_moved(
    stolen: StolenManager, canary: Path
) -> None:
    pickled = Options(codec="pickle")
    with stolen.client() as client:
        jobs = [
            client.submit_spec(JobSpec(f"{TASKS}:{task}", (number,), {}, pickled))
            for number, task in enumerate(["echo", "echo", "sleep", "echo"])
        ]
        forged, replayed, moved, honest = jobs
        bodies: dict[str, bytes] = {}

        def tamper(event: AnyEvent) -> AnyEvent:
            if not isinstance(event, Submitted):
                return event
            name = f"{event.origin}-{event.first}"
            bodies[name] = event.bodies[0]
            if name == forged.id:
                return msgspec.structs.replace(event, bodies=[pickle.dumps(((Touch(canary),), {}))])
            if name == replayed.id:
                return msgspec.structs.replace(event, bodies=[bodies[forged.id]])
            if name == moved.id:
                terms = msgspec.structs.replace(event.terms, task=f"{TASKS}:echo")
                return msgspec.structs.replace(event, terms=terms)
            return event

        stolen.rewrite(tamper)
        worker = stolen.work()
        assert honest.result(timeout=30) == 3
        for job in (forged, replayed, moved):
            with pytest.raises(JobFailed, match=r"UntrustedPickle: the .*not opened"):
                job.result(timeout=30)
            assert job.view().state == "dead"
        until(lambda: worker.events("pickle_refused"))
        assert worker.events("pickle_refused")[0]["job_id"] == forged.id
    assert not canary.exists()


def test_a_client_unpickles_nothing_that_a_stolen_manager_made_up_or_moved(
    stolen: StolenManager, canary: Path
) -> None:
    with stolen.client() as client, BrokerExecutor(client, codec="pickle") as executor:
        futures = [
            executor.submit(set, "a"),
            executor.submit(set, "b"),
            executor.submit(set, "c"),
            executor.submit(divmod, 1, 0),
        ]
        forged, replayed, honest, failed = [future.job_id for future in futures]
        executor.flush()
        stolen.work()
        assert futures[2].result(timeout=30) == {"c"}
        assert isinstance(futures[3].exception(timeout=30), ZeroDivisionError)
        results: dict[str, bytes] = {}

        def tamper(event: AnyEvent) -> AnyEvent:
            if isinstance(event, Failed):
                error = msgspec.structs.replace(event.error, exception=pickle.dumps(Touch(canary)))
                return msgspec.structs.replace(event, error=error)
            if not isinstance(event, Succeeded):
                return event
            ranges = []
            for part in event.ranges:
                changed = list(part.results)
                for place, result in enumerate(part.results):
                    name = f"{part.origin}-{part.first + place}"
                    results[name] = result
                    if name == forged:
                        changed[place] = msgspec.msgpack.encode(
                            msgspec.msgpack.Ext(80, pickle.dumps(Touch(canary)))
                        )
                    elif name == replayed:
                        changed[place] = results[forged]
                ranges.append(msgspec.structs.replace(part, results=changed))
            return msgspec.structs.replace(event, ranges=ranges)

        stolen.rewrite(tamper)
        with stolen.client() as reader, BrokerExecutor(reader, codec="pickle") as another:
            assert reader.result(honest, timeout=30) == {"c"}
            for job in (forged, replayed):
                with pytest.raises(UntrustedPickle, match="not opened"):
                    reader.result(job, timeout=30)
                with pytest.raises(UntrustedPickle):
                    another.future(job).result(timeout=30)
            error = another.future(failed).exception(timeout=30)
            assert isinstance(error, JobFailed)
            assert "not opened" in error.__notes__[0]
    assert not canary.exists()


def test_a_client_without_the_key_submits_no_pickle(stolen: StolenManager) -> None:
    with BrokerClient(lambda: ManagerBroker(stolen.manager.address, KEY)) as client:
        with pytest.raises(CodecError, match="svc auth generate --pickle"):
            client.submit(lambda: 1)
        (answers,) = client.submit_each([JobSpec(len, ("x",)), JobSpec(lambda: 1), JobSpec(len, ("y",))])
        assert [isinstance(answer, CodecError) for answer in answers] == [False, True, False]
        with BrokerExecutor(client) as executor:
            assert isinstance(executor.submit(lambda: 1).exception(), CodecError)
