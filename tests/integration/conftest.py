"""A manager, a client, workers, certificates and a NATS server, for the tests that need no others."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from svc.cli.certificates import make_authority
from tests.support.certificates import NAMES
from tests.support.nats_servers import NatsCluster, running_nats
from tests.support.workers import KEY, Client, Manager, Start, Worker, options


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    with running_nats(tmp_path_factory.mktemp("nats")) as cluster:
        yield cluster


@pytest.fixture
def manager() -> Iterator[Manager]:
    manager = Manager()
    manager.start()
    yield manager
    manager.stop()


@pytest.fixture
def client(manager: Manager) -> Iterator[Client]:
    with manager.client() as client:
        yield client


@pytest.fixture
def start(manager: Manager) -> Iterator[Start]:
    """Start workers with the given options; all are ended after the test."""
    workers: list[Worker] = []

    def start(consumers: int = 2, *, key: bytes = KEY, log_level: str = "info", **changes: Any) -> Worker:
        worker = Worker(manager.address, options(consumers, **changes), log_level, key)
        workers.append(worker)
        worker.start()
        return worker

    yield start
    for worker in workers:
        worker.end()


@pytest.fixture
def frozen() -> Iterator[None]:
    """Have the collector pass over the present objects, as a manager does: here those of all tests."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the certificates of an authority, a manager and a client."""
    folder: Path = tmp_path_factory.mktemp("tls")
    make_authority(folder, NAMES)
    return folder
