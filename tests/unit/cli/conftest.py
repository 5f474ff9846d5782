"""`svc` in this process against the real queue in memory; a consumer that does as it is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from svc.addresses import ManagerAddresses
from svc.broker.base import Broker
from svc.broker.local import LocalBroker, LocalQueue
from svc.cli.program import run
from svc.cli.wiring import Wiring
from svc.codec import decode_arguments, encode_result
from svc.domain import commands as c
from svc.domain.job import ErrorInfo
from svc.domain.limits import Limits
from svc.settings import ManagerSettings, WorkerSettings
from svc.wire import PROTOCOL_VERSION
from tests.support.asking import record
from tests.support.pickle_keys import envelopes_of, opener


@dataclass
class Ended:
    """How a run of `svc` ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def error(self) -> Any:
        return json.loads(self.err)["error"]


class Consumer:
    """A consumer of the queue, by hand."""

    def __init__(self, queue: LocalQueue, tasks: Sequence[str] = ("t:f",), worker: str = "w1") -> None:
        self.tasks = list(tasks)
        self.queue, self.worker = queue, worker
        self.supervisor = self._join(queue, "worker", worker, worker)
        self.broker = self._join(queue, "consumer", f"{worker}/1", worker)

    def _join(
        self, queue: LocalQueue, role: str, name: str, worker: str, queues: Sequence[str] = ("default",)
    ) -> LocalBroker:
        hello = c.Hello(PROTOCOL_VERSION, role, name, worker, "host", 1, self.tasks, list(queues))
        return LocalBroker(queue, lambda: hello)

    def take_from(self, *queues: str) -> None:
        """Take jobs from other queues from now on."""
        self.broker = self._join(self.queue, "consumer", f"{self.worker}/1", self.worker, queues)

    def succeed(self, function: Callable[..., Any] = lambda *args: list(args), limit: int = 1) -> None:
        """Take jobs and end each with the value of *function* for its arguments."""
        for delivery in self.broker.lease(limit=limit, wait=timedelta(seconds=5)).grant.deliveries:
            results = []
            for place, body in enumerate(delivery.bodies):
                opened, envelopes = opener(delivery, place), envelopes_of(delivery, place)
                args, kwargs = decode_arguments(delivery.terms.codec, body, ("plain", "pickle"), opened)
                results.append(encode_result(delivery.terms.codec, function(*args, **kwargs), envelopes))
            record(self.broker, c.Ack(delivery.token, delivery.first, results, [0.5] * len(results)))

    def fail(self, message: str = "no such mailbox", retry_in: float | None = None) -> None:
        """Take a job and end its attempt with an error."""
        (delivery,) = self.broker.lease(limit=1, wait=timedelta(seconds=5)).grant.deliveries
        error = ErrorInfo("ValueError", message, 'Traceback (most recent call last):\n  File "m.py", line 3')
        record(self.broker, c.Nack(delivery.token, delivery.first, error, retry_in, seconds=0.25))

    def leave(self) -> None:
        self.broker.close()
        self.supervisor.close()


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> Iterator[LocalQueue]:
    # Nobody renews the lease of a consumer by hand: on a busy host 15 s may pass before it is used.
    limits = replace(getattr(request, "param", Limits()), lease_seconds=3600.0)
    queue = LocalQueue(limits=limits)
    yield queue
    queue.close()


@pytest.fixture
def consumer(queue: LocalQueue) -> Consumer:
    return Consumer(queue)


@pytest.fixture
def authkey_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An authkey that `svc` finds, and none of the developer's own settings."""
    for name in ("SVC_MANAGER", "SVC_TIMEOUT", "SVC_CONFIG", "SVC_HTTP", "SVC_TASKS", "SVC_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "authkey"
    path.write_text("0123456789abcdef\n")
    path.chmod(0o600)
    monkeypatch.setenv("SVC_AUTHKEY_FILE", str(path))
    monkeypatch.chdir(tmp_path)
    return path


@dataclass
class Started:
    """The settings with which `svc manager` and `svc worker` were started."""

    connected: list[tuple[ManagerAddresses, bytes, float]]
    managers: list[ManagerSettings]
    workers: list[WorkerSettings]


@pytest.fixture
def started() -> Started:
    return Started([], [], [])


@pytest.fixture
def svc(
    queue: LocalQueue, authkey_file: Path, started: Started, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Run `svc` with arguments on the queue in memory."""

    def connect(address: ManagerAddresses, authkey: bytes, timeout: float, *, tls: object = None) -> Broker:
        started.connected.append((address, authkey, timeout))
        return LocalBroker(queue, lambda: c.Hello(PROTOCOL_VERSION, "client"))

    def run_manager(settings: ManagerSettings) -> int:
        assert settings.read_authkey()
        started.managers.append(settings)
        return 0

    def run_worker(settings: WorkerSettings) -> int:
        settings.read_pickle_keys(settings.read_authkey())  # as the real one does first
        started.workers.append(settings)
        return 0

    def call(*argv: str) -> Ended:
        code = run(argv, Wiring(connect, run_manager, run_worker))
        captured = capfd.readouterr()
        return Ended(code, captured.out, captured.err)

    return call
